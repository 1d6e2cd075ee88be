"""The prompts of rows without responses: every column that holds one, and what beside it is named or refused."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headwater.data.preference import Message
from headwater.data.prompts import Prompts, read_prompts
from headwater.data.reading import ReadOptions
from headwater.errors import DataError
from headwater.evaluation import prompts

ASKED = (Message("user", "Why?"),)
TURNS = [{"role": "user", "content": "Why?"}]
HH = "\n\nHuman: Hi\n\nAssistant: Ho\n\nHuman: Why?\n\nAssistant:"
LATER = (Message("user", "Hi"), Message("assistant", "Ho"), *ASKED)


def read(path: Path, *rows: dict[str, Any], options: ReadOptions | None = None) -> Prompts:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return read_prompts(path, options or ReadOptions())


@pytest.mark.parametrize(
    ("row", "prompt"),
    [
        ({"prompt": "Why?"}, ASKED),
        ({"question": "Why?"}, ASKED),
        ({"query": "Why?"}, ASKED),
        ({"prompt": TURNS}, ASKED),
        ({"messages": TURNS}, ASKED),
        ({"messages": json.dumps(TURNS)}, ASKED),
        ({"conversations": [{"from": "human", "value": "Why?"}]}, ASKED),
        ({"turns": ["Why?"]}, ASKED),
        ({"prompt": "Why?", "system_prompt": "Be brief."}, (Message("system", "Be brief."), *ASKED)),
        ({"instruction": "Sum up.", "input": "cats"}, (Message("user", "Sum up.\ncats"),)),
        ({"prompt": "Sum up.", "input": "cats"}, (Message("user", "Sum up.\ncats"),)),
        ({"query": "Why?", "history": [["Hi", "Ho"]]}, LATER),
        *(({column: HH}, LATER) for column in ("prompt", "question", "instruction", "query")),
        ({"turns": [HH]}, LATER),
        # Rows with responses are read as records.
        ({"messages": [*TURNS, {"role": "assistant", "content": "So."}]}, ASKED),
        ({"instruction": "Why?", "output": "So."}, ASKED),
        ({"prompt": "Why?", "chosen": "So.", "rejected": "No."}, ASKED),
        ({"instruction": HH, "output_1": "So.", "output_2": "No.", "preference": 1}, LATER),
        ({"history": HH, "human_ref_A": "So.", "human_ref_B": "No.", "labels": 1}, LATER),
    ],
)
def test_a_prompt_is_read_from_any_column_that_holds_one(
    row: dict[str, Any], prompt: tuple[Message, ...], tmp_path: Path
) -> None:
    found = read(tmp_path / "a.jsonl", row, row)
    assert [one.prompt for one in found.asked] == [prompt]
    assert not any(counts.notes.get("markers_kept_as_text") for counts in found.stages.values())


def test_unknown_columns_are_named_and_those_that_change_the_meaning_refused(tmp_path: Path) -> None:
    rows = [{"prompt": f"Why {n}?", "difficulty": n, "id": f"p{n}", "category": "hard"} for n in range(3)]
    found = read(tmp_path / "a.jsonl", *rows)
    assert found.stages["prompts"].not_read == ["difficulty"]
    assert [(one.id, one.source) for one in found.asked] == [(f"p{n}", "hard") for n in range(3)]
    with pytest.raises(DataError, match=r"a.jsonl:2 · images changes what the row means"):
        read(tmp_path / "a.jsonl", {"prompt": "Why?"}, {"prompt": "Who?", "images": ["a.png"]})
    ignored = ReadOptions(ignore_columns="images")
    assert len(read(tmp_path / "a.jsonl", {"prompt": "Who?", "images": ["a.png"]}, options=ignored).asked) == 1


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"text": "Why?", "level": 3}, "hold no known prompt .*such as --columns prompt=text"),
        ({"prompt": " "}, "prompt is empty"),
        ({"prompt": 3}, "prompt is a int"),
        ({"messages": [{"role": "bot", "content": "Hi"}, *TURNS]}, "messages has the role 'bot'"),
        ({"turns": ["Why?", "And?"]}, "expected one"),
        (
            {"turns": [{"content": "Why?", "tool_calls": [{"id": "a"}]}]},
            r"turns\[\].tool_calls changes what the row means",
        ),
        ({"prompt": [*TURNS, {"role": "assistant", "content": "So"}]}, "ends with the turn of the assistant"),
    ],
)
def test_a_row_without_a_prompt_is_refused_and_no_layout_of_pairs_is_listed(
    row: dict[str, Any], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=rf"a.jsonl:1 · .*{message}") as caught:
        read(tmp_path / "a.jsonl", row)
    assert "chosen" not in str(caught.value)


def test_markers_inside_of_a_prompt_are_counted_wherever_prompts_are_read(tmp_path: Path) -> None:
    quoting = "Look at this:\n\nHuman: Hi\n\nAssistant: Ho"
    for row in (
        {"question": quoting},
        {"prompt": [{"role": "user", "content": quoting}]},
        {"instruction": quoting, "output": "So."},
        {"question": quoting, "answers": [{"text": "So.", "pm_score": 1}, {"text": "No.", "pm_score": 0}]},
    ):
        found = read(tmp_path / "a.jsonl", row)
        (counts, *_) = found.stages.values()
        assert counts.notes == {"markers_kept_as_text": 1} and found.asked[0].prompt == (Message("user", quoting),)


GOOD = ['{"prompt": "Why?"}', '{"prompt": "Who?"}', '{"prompt": "Why?"}']
BAD = {
    "BROKEN_JSON": '{"prompt": "Wh',
    "MALFORMED": '{"prompt": 3}',
    "NOT_OBJECT": "[1]",
    "MEDIA": '{"prompt": "What?", "images": ["a.png"]}',
}
READERS: dict[str, Callable[[Path, ReadOptions], Prompts]] = {
    "a known column": read_prompts,
    "described": lambda path, options: read_prompts(path, dataclasses.replace(options, columns="prompt=prompt")),
    "a column": lambda path, options: read_prompts(path, options, "prompt"),
    "evaluation prompts": prompts.read,
    "recorded answers": prompts.read,
}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("code", BAD)
@pytest.mark.parametrize("place", [0, 1, 3])
def test_bad_rows_of_prompts_alone_are_allowed_and_counted(reader: str, code: str, place: int, tmp_path: Path) -> None:
    lines = [*GOOD[:place], BAD[code], *GOOD[place:]]
    if reader == "recorded answers":
        lines = [line.replace('{"prompt"', '{"output": "So.", "generator": "m", "instruction"') for line in lines]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(line + "\n" for line in lines))
    found = READERS[reader](path, ReadOptions(max_bad_rows="25%"))
    (counts,) = found.stages.values()
    assert [one.prompt[0].content for one in found.asked] == ["Why?", "Who?"]
    assert (counts.rows_in, counts.kept, counts.quarantined) == (4, 2, 1)
    assert counts.dropped == {"repeated_prompt": 1}
    (left_out,) = found.reader.quarantine
    assert (left_out["line"], left_out["code"], left_out["raw"]) == (place + 1, code, lines[place])
    for limit, said in (("0", "1 bad row, more than --max-bad-rows 0"), ("24%", "1 bad row of 4, more than")):
        with pytest.raises(DataError, match=rf"a.jsonl:{place + 1}\b.* · {said}"):
            READERS[reader](path, ReadOptions(max_bad_rows=limit))


def test_prompts_that_are_all_bad_are_no_usable_rows(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no usable rows among 2 · bad: MALFORMED 2 \(first: .*a.jsonl:1\)"):
        read(tmp_path / "a.jsonl", *[{"prompt": 3}] * 2, options=ReadOptions(max_bad_rows="2"))


def test_the_first_row_with_a_prompt_shows_its_column(tmp_path: Path) -> None:
    found = read(tmp_path / "a.jsonl", {"text": "Hi"}, {"prompt": "Why?"}, options=ReadOptions(max_bad_rows="1"))
    assert found.stages["prompts"].quarantined == 1 and [one.prompt for one in found.asked] == [ASKED]
    with pytest.raises(DataError, match=r"a.jsonl:1 · columns text hold no known prompt"):
        read(tmp_path / "a.jsonl", {"text": "Hi"}, {"text": "Why?"}, options=ReadOptions(max_bad_rows="1"))
