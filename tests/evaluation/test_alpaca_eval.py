from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from headwater.data import reading
from headwater.data.layouts.description_parser import parse
from headwater.data.preference import Candidates, Message, Response
from headwater.errors import DataError, UsageError
from headwater.evaluation import alpaca_eval, judgement_files
from headwater.evaluation.alpaca_eval import Answer, AnswerFile, read_answers


@pytest.mark.parametrize(
    "name", ["FuseChat-Gemma-2-9B-Instruct", "gpt-3.5-turbo-1106", "gpt4_0613_concise", "text_davinci_001"]
)
def test_recorded_annotations_give_the_leaderboards_figures(name: str, shared_data: Path) -> None:
    data = shared_data / "alpaca_eval2"
    with (data / "weighted_alpaca_eval_gpt4_turbo_leaderboard.csv").open(encoding="utf-8", newline="") as handle:
        published = {row[""]: row for row in csv.DictReader(handle)}[name]
    judged, row_counts = judgement_files.read(data / f"annotations_{name}.json.gz")
    found = alpaca_eval.win_rate([one.preference for one in judged if one.preference is not None])
    assert row_counts.kept == found.n_total == int(published["n_total"])
    for figure in ("win_rate", "standard_error", "discrete_win_rate"):
        assert getattr(found, figure) == pytest.approx(float(published[figure]), abs=1e-3)
    for figure in ("n_wins", "n_wins_base", "n_draws"):
        assert getattr(found, figure) == int(published[figure])


def test_ties_count_half_by_hand() -> None:
    found = alpaca_eval.win_rate([0.9, 0.5, 0.2, 1.0])
    assert found[2:] == (2, 1, 1, 4, 62.5)
    assert found.win_rate == pytest.approx(65.0)


def test_published_outputs_are_read_and_written_back(shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "alpaca_eval2" / "outputs_gpt-3.5-turbo-1106.json.gz"
    found = read_answers(path).answers
    assert len(found) == 805 and {one.model for one in found} == {"gpt-3.5-turbo-1106"}
    copy = tmp_path / "copy.json"
    copy.write_text(json.dumps(alpaca_eval.as_rows(found)), encoding="utf-8")
    assert read_answers(copy).answers == found


def test_arena_hard_answers_are_answers(shared_data: Path) -> None:
    found = read_answers(shared_data / "arena_hard" / "v0.1_gpt-4-0314.jsonl.gz").answers
    assert len(found) == 500 and found[0].model == "gpt-4-0314" and len(found[0].text) > 100


def test_a_file_without_names_is_called_after_itself_and_keeps_what_was_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "mine.json"
    rows: list[dict[str, Any]] = [{"instruction": "a", "output": "x", "complete": False}]
    path.write_text(json.dumps(rows), encoding="utf-8")
    assert read_answers(path).answers == [Answer("a", "x", "mine", "", False)]
    assert alpaca_eval.as_rows(read_answers(path).answers)[0]["complete"] is False


def test_what_sample_writes_is_a_set_of_answers(tmp_path: Path) -> None:
    prompt = (Message("user", "Why?"),)
    row = Candidates(prompt=prompt, responses=(Response("Because.", None, False),), id="r", source="s")
    reading.write(tmp_path / "dpo.jsonl", [row])
    assert read_answers(tmp_path / "dpo.jsonl").answers == [Answer("Why?", "Because.", "dpo", "", False)]
    two = dataclasses.replace(row, responses=row.responses * 2)
    reading.write(tmp_path / "two.jsonl", [two])
    with pytest.raises(DataError, match="sample with --n 1"):
        read_answers(tmp_path / "two.jsonl")


def test_columns_of_answers_that_are_not_read_are_named(tmp_path: Path) -> None:
    rows = [{"instruction": "a", "input": "b", "output": "x", "votes": 3, "comment": "c"}]
    (tmp_path / "a.json").write_text(json.dumps(rows), encoding="utf-8")
    found = read_answers(tmp_path / "a.json")
    assert (found.answers[0].prompt, found.not_read) == ("a\nb", ["comment", "votes"])


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        ([{"instruction": "a"}], "no output among instruction · expected instruction and output"),
        ([{"instruction": "a", "output": "x", "context": "c"}], "context changes what the row means"),
        ([{"instruction": "a", "output": "x"}] * 2, "for the second time"),
        ([{"instruction": str(i), "output": "x", "generator": f"m{i}"} for i in range(2)], "answers of m0, m1"),
    ],
)
def test_what_is_no_set_of_answers_is_refused(rows: list[dict[str, Any]], problem: str, tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text(json.dumps(rows), encoding="utf-8")
    with pytest.raises(DataError, match=problem):
        read_answers(path)


def described(path: Path, columns: str, *rows: dict[str, Any]) -> AnswerFile:
    path.write_text(json.dumps(rows), encoding="utf-8")
    return read_answers(path, description=parse(columns))


def test_answers_of_any_other_form_are_described(tmp_path: Path) -> None:
    path, row = tmp_path / "mine.json", {"data": {"q": "Why?"}, "reply": "So.", "votes": 3}
    found = described(path, "prompt=data.q, completion=reply", row)
    assert found.answers == [Answer("Why?", "So.", "mine")] and found.not_read == ["votes"]
    columns = "prompt=data.q, completion=reply, complete=done, source=kind"
    more = {"generator": "dpo", "done": False, "kind": "hard", "system": "Be brief."}
    (one,) = described(path, columns, row | more).answers
    assert one == alpaca_eval.answer_to(
        (Message("system", "Be brief."), Message("user", "Why?")), "So.", "dpo", "hard", complete=False
    )
    talk = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]
    assert described(path, "completion=talk", {"talk": talk}).answers == [Answer("Why?", "So.", "mine")]
    assert described(path, "completion=talk", {"talk": json.dumps(talk)}).answers == [Answer("Why?", "So.", "mine")]


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ("prompt=q, completion=answer", r"a.json\[1\] · no column answer"),
        ("prompt=q", r"--columns names prompt · expected prompt and completion"),
        ("prompt=q, completion=reply, label=ok", r"--columns names prompt, completion, label · expected prompt and"),
        ("prompt=q, chosen=reply, rejected=q", r"--columns names prompt, chosen, rejected · expected prompt and"),
        ("prompt=q, completion=ok", r"a.json\[1\] · completion is a int"),
    ],
)
def test_a_description_that_finds_no_answers_is_refused(columns: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises((DataError, UsageError), match=problem):
        described(tmp_path / "a.json", columns, {"q": "Why?", "reply": "So.", "ok": 1})


def test_a_file_of_another_form_is_refused_with_a_description(tmp_path: Path) -> None:
    row = {"question": "Why is it so?", "reply": "Because it is so."}
    (tmp_path / "a.json").write_text(json.dumps([row]), encoding="utf-8")
    with pytest.raises(DataError) as caught:
        read_answers(tmp_path / "a.json")
    columns = "prompt=question, completion=reply"
    assert str(caught.value).endswith(f"or describe it, such as --columns '{columns}'")
    assert described(tmp_path / "a.json", columns, row).answers[0].text == row["reply"]
