"""Prompts of any data, each once."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headwater.data.prompts import Prompts, check_column, read_prompts
from headwater.data.reading import ReadOptions
from headwater.errors import DataError, UsageError
from headwater.evaluation import prompts

ROW = {"data": {"q": "Why?", "more": "x"}, "votes": 3}


def read(path: Path, *rows: dict[str, Any], column: str | None = None, **options: Any) -> Prompts:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return read_prompts(path, ReadOptions(**options), column)


def texts(found: Prompts) -> list[str]:
    return [one.prompt[-1].content for one in found.asked]


def test_a_column_or_a_description_holds_the_prompts(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    found = read(path, ROW, ROW, {"data": {"q": "How?"}}, columns="prompt=data.q")
    assert texts(found) == ["Why?", "How?"] and list(found.stages) == ["prompts"]
    counts = found.stages["prompts"]
    assert (counts.rows_in, counts.kept, counts.dropped) == (3, 2, {"repeated_prompt": 1})
    assert counts.not_read == ["data.more", "votes"]
    found = read(path, {"my.q": "Why?", "system": "Be brief."}, column="my.q")
    assert [message.role for message in found.asked[0].prompt] == ["system", "user"]
    assert texts(read(path, ROW, {"data": {"q": "How?"}}, columns="prompt=data.q", limit=1)) == ["Why?"]


def test_a_description_of_pairs_counts_the_pairs(tmp_path: Path) -> None:
    row = {"q": "Why?", "good": "So.", "bad": "So."}
    with pytest.raises(DataError, match="no usable rows among 1 · dropped: identical_responses"):
        read(tmp_path / "q.jsonl", row, columns="prompt=q,chosen=good,rejected=bad")
    assert texts(read(tmp_path / "q.jsonl", row, columns="prompt=q")) == ["Why?"]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"data": {"q": None}}, "q.jsonl:1 · prompt is null"),
        ({"data": {"p": "Why?"}}, "q.jsonl:1 · no q in data"),
        ({"data": {"q": [{"role": "assistant", "content": "So."}]}}, "data.q ends with the turn of the assistant"),
        ({"data": {"q": "Why?"}, "context": "It rains."}, "q.jsonl:1 · context changes what the row means"),
        ({"data": {"q": "Why?", "history": [["a", "b"]]}}, "q.jsonl:1 · data.history changes what the row means"),
    ],
)
def test_a_row_without_a_prompt_is_refused(row: dict[str, Any], problem: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=problem):
        read(tmp_path / "q.jsonl", row, columns="prompt=data.q")


def test_options_without_effect_are_refused() -> None:
    with pytest.raises(UsageError, match="--columns · has no effect with --column"):
        check_column("q", ReadOptions(columns="prompt=x"))
    with pytest.raises(UsageError, match="--max-bad-rows · has no effect with prompts alone"):
        check_column(None, ReadOptions(columns="prompt=x", max_bad_rows="1"))
    check_column(None, ReadOptions(max_bad_rows="1"))


def test_evaluation_prompts_take_the_options_of_data(tmp_path: Path) -> None:
    path = tmp_path / "q.jsonl"
    path.write_text("".join(json.dumps({"instruction": f"Why {n}?"}) + "\n" for n in range(3)), encoding="utf-8")
    found, stages = prompts.read(path, ReadOptions(limit=2))
    assert len(found) == 2 and list(stages) == ["prompts"]
    with pytest.raises(UsageError, match="--max-bad-rows · has no effect on evaluation prompts"):
        prompts.read(path, ReadOptions(max_bad_rows="1"))
    found, stages = prompts.read(path, ReadOptions(columns="prompt=instruction+instruction"))
    assert found[0].prompt[0].content == "Why 0?\nWhy 0?"
