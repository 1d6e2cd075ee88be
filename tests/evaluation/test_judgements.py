from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from headwater.data.layouts.description_parser import parse
from headwater.data.reading import ReadOptions, RowReader
from headwater.errors import DataError, UsageError
from headwater.evaluation import alpaca_eval, judgement_files, judgements
from headwater.evaluation.judgements import Judgement, facing, mean, turned
from headwater.evaluation.prompts import as_text

ANNOTATION = {
    "instruction": "Why?",
    "output_1": "base",
    "output_2": "tuned",
    "generator_1": "b",
    "generator_2": "t",
    "annotator": "gpt",
    "preference": 1.25,
}


def read(path: Path, *rows: dict[str, Any]) -> list[Judgement]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return judgement_files.read(path)[0]


def test_an_annotation_is_read(tmp_path: Path) -> None:
    (one,) = read(tmp_path / "a.jsonl", ANNOTATION)
    assert one == Judgement(
        prompt="Why?", judge="gpt", first="b", second="t", preference=0.25, outputs=("base", "tuned")
    )


def test_labels_of_people_need_no_generators(tmp_path: Path) -> None:
    rows = [{"input": "Why?", "output_1": "x", "output_2": "y", "label": label} for label in (1, 2)]
    found = read(tmp_path / "l.jsonl", *rows)
    assert [(one.judge, one.first, one.second, one.preference) for one in found] == [
        ("human", "output_1", "output_2", 0.0),
        ("human", "output_1", "output_2", 1.0),
    ]


@pytest.mark.parametrize(
    ("more", "asked"),
    [
        ({}, "Why?"),
        ({"input": ""}, "Why?"),
        ({"input": "cats"}, "Why?\ncats"),
        ({"system": "Be brief."}, "[system]\nBe brief.\n\n[user]\nWhy?"),
        ({"history": [["Hi", "Ho"]]}, "[user]\nHi\n\n[assistant]\nHo\n\n[user]\nWhy?"),
    ],
)
def test_the_prompt_is_that_of_the_pair(tmp_path: Path, more: dict[str, Any], asked: str) -> None:
    """Judgements, answers and pairs read one row alike: rows that differ in input or system have different prompts."""
    (one,) = read(tmp_path / "a.jsonl", ANNOTATION | more)
    assert one.prompt == asked
    (record,) = RowReader(tmp_path / "a.jsonl", ReadOptions())
    assert as_text(record.prompt) == asked
    answers = {"instruction": "Why?", "output": "So.", "generator": "b"} | more
    (tmp_path / "b.json").write_text(json.dumps([answers, answers | {"input": "dogs"}]), encoding="utf-8")
    found = [answer.prompt for answer in alpaca_eval.read_answers(tmp_path / "b.json").answers]
    assert found[0] == asked and found[1].endswith("Why?\ndogs")


def test_columns_that_are_not_read_are_named_or_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(ANNOTATION | {"raw_completion": "…", "tools": [], "votes": None}), encoding="utf-8")
    assert judgement_files.read(path)[1].not_read == ["raw_completion"]
    path.write_text(json.dumps(ANNOTATION | {"context": "In 1990."}), encoding="utf-8")
    with pytest.raises(DataError, match=r"a\.jsonl:1 · context changes what the row means"):
        judgement_files.read(path)


def test_people_who_name_no_models_judged_those_of_the_same_answers(tmp_path: Path) -> None:
    """A sheet of labels with the answers alone: whichever stands first, the models are found by the texts."""
    texts = {"instruction": "Why?", "output_1": "tuned", "output_2": "base", "preference": 1}
    other = {"instruction": "Who?", "output_1": "tuned", "output_2": "base", "preference": 1}
    for name, rows in (("a", [ANNOTATION]), ("b", [texts, other])):
        (tmp_path / f"{name}.json").write_text(json.dumps(rows), encoding="utf-8")
    _, label, unknown = judgement_files.read_all([tmp_path / "a.json", tmp_path / "b.json"])[0]
    assert (label.first, label.second, label.preference) == ("t", "b", 0.0)
    assert (unknown.first, unknown.second) == ("output_1", "output_2")


def test_votes_without_a_verdict_leave_other_answers_to_the_prompt_alone() -> None:
    one = Judgement(prompt="p", judge="j", first="b", second="t", preference=1.0, outputs=("x", "y"))
    other = replace(one, outputs=("x", "z"))
    failed = replace(other, preference=None, problem="refusal")
    votes = [one, other, failed, turned(failed)]
    assert judgements.whole(votes) == [one]
    counts = judgements.count_comparisons(votes)
    assert (counts.rows_in, counts.kept, counts.dropped) == (2, 1, {"refusal": 1})
    assert judgements.without_verdict(votes) == {"refusal": 3}
    assert [row["preference"] for row in judgements.as_annotations(votes)] == [2.0, None]


def test_annotations_of_one_pair_are_one_row_whichever_answer_comes_first() -> None:
    one = Judgement(prompt="p", judge="j", first="b", second="t", preference=0.25, swapped=False, outputs=("x", "y"))
    (row,) = judgements.as_annotations([one, turned(replace(one, preference=0.75, swapped=True))])
    assert (row["output_1"], row["generator_2"], row["preference"]) == ("x", "t", 1.5)
    assert [game["preference"] for game in row["games"]] == [1.25, 1.75]


def game(label: str | None) -> dict[str, Any]:
    return {"score": label, "judgment": "…"}


@pytest.mark.parametrize("name", ["uid", "question_id"])
def test_arena_games_are_turned_and_weighted(tmp_path: Path, name: str) -> None:
    """In the first game the baseline is A, in the second the model is; `>>` is three votes."""
    row = {name: "q1", "model": "t", "judge": "gpt", "games": [game("B>>A"), game("A>B")], "category": "math"}
    first, second = read(tmp_path / "a.jsonl", row)
    assert (first.preference, first.weight, first.swapped) == (1.0, 3, False)
    assert (second.preference, second.weight, second.swapped) == (1.0, 1, True)
    assert first.prompt == second.prompt == "q1" and first.category == "math"


@pytest.mark.parametrize("games", [[game(None), game("A>B")], [None, game("A>B")]])
def test_half_a_pair_of_games_is_dropped_and_counted(tmp_path: Path, games: list[Any]) -> None:
    whole = {"uid": "q0", "model": "t", "games": [game("A=B"), game("A=B")]}
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(whole) + "\n" + json.dumps(whole | {"games": games}), encoding="utf-8")
    found, row_counts = judgement_files.read(path)
    assert len(found) == 2
    assert (row_counts.rows_in, row_counts.kept, dict(row_counts.dropped)) == (2, 1, {"unparsed": 1})


@pytest.mark.parametrize(("winner", "preference"), [("model_a", 0.0), ("model_b", 1.0), ("tie (bothbad)", 0.5)])
def test_battles(tmp_path: Path, winner: str, preference: float) -> None:
    (one,) = read(tmp_path / "b.jsonl", {"question_id": 3, "model_a": "x", "model_b": "y", "winner": winner})
    assert (one.prompt, one.first, one.second, one.preference) == ("3", "x", "y", preference)


@pytest.mark.parametrize(
    "row",
    [
        ANNOTATION | {"preference": 3},
        ANNOTATION | {"preference": "yes"},
        {"instruction": "Why?"},
        {"uid": "q", "model": "t", "games": [game("A>B")]},
        {"uid": "q", "model": "t", "games": [game("A>C"), game("A>B")]},
        {"model_a": "x", "model_b": "y", "winner": "x"},
    ],
)
def test_what_is_no_judgement_is_refused_by_line(tmp_path: Path, row: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl:2"):
        read(tmp_path / "a.jsonl", ANNOTATION, row)


def test_games_survive_writing_and_reading(tmp_path: Path) -> None:
    votes = [
        Judgement(
            prompt="p",
            judge="j",
            first="b",
            second="t",
            preference=preference,
            weight=weight,
            swapped=swapped,
            outputs=("x", "y"),
            scores=(0.5, 2.0),
        )
        for preference, weight, swapped in ((1.0, 3, False), (0.5, 1, True))
    ]
    (row,) = judgements.as_annotations(votes)
    assert row["preference"] == 1 + (3 * 1.0 + 0.5) / 4
    assert read(tmp_path / "a.jsonl", row) == votes


def test_one_look_without_a_verdict_leaves_the_pair_without(tmp_path: Path) -> None:
    one = Judgement(prompt="p", judge="j", first="b", second="t", preference=None, outputs=("x", "y"))
    assert mean([one, one]) is None
    (row,) = judgements.as_annotations([one])
    assert row["preference"] is None
    assert read(tmp_path / "a.jsonl", row) == [one]


def test_facing_turns_what_stands_the_other_way() -> None:
    one = Judgement(prompt="p", judge="j", first="t", second="b", preference=0.25, swapped=True, scores=(1.0, 2.0))
    (found,) = facing([one, Judgement(prompt="p", judge="j", first="x", second="y", preference=1.0)], "b")
    assert (found.first, found.second, found.preference, found.swapped, found.scores) == ("b", "t", 0.75, False, (2, 1))
    assert turned(turned(one)) == one


def test_battles_that_do_not_say_what_was_asked_are_of_prompts_of_their_own(tmp_path: Path) -> None:
    row = {"model_a": "x", "model_b": "y", "winner": "model_a"}
    (tmp_path / "b.jsonl").write_text("\n".join(json.dumps(row) for _ in range(3)), encoding="utf-8")
    found, _ = judgement_files.read(tmp_path / "b.jsonl")
    assert len({one.prompt for one in found}) == 3


# --- described by --columns ---------------------------------------------------------------------------------------

MINE = {"data": {"q": "Why?"}, "x": "So.", "y": "No.", "label": 2, "who": "ann", "m1": "base", "m2": "dpo", "s1": 1}


def described(path: Path, columns: str, *rows: dict[str, Any]) -> tuple[list[Judgement], Any]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return judgement_files.read(path, parse(columns))


def test_a_described_row_is_a_judgement(tmp_path: Path) -> None:
    columns = "prompt=data.q, a=x, b=y, winner=label{1:a,2:b,0:tie,null:none}, judge=who, model_a=m1, model_b=m2"
    rows = [{**MINE, "label": label} for label in (2, 0, None)]
    found, counts = described(tmp_path / "j.jsonl", columns, *rows)
    about: dict[str, Any] = {"prompt": "Why?", "first": "base", "second": "dpo", "preference": 1.0}
    assert found[0] == Judgement(judge="ann", outputs=("So.", "No."), **about)
    assert [one.preference for one in found] == [1.0, 0.5, None] and counts.not_read == ["s1"]
    (scored,), _ = described(tmp_path / "j.jsonl", f"{columns}, score_a=s1, score_b=label", MINE)
    assert scored.scores == (1.0, 2.0)


def test_a_described_battle_needs_no_answers(tmp_path: Path) -> None:
    columns = "prompt=data.q, winner=label{1:a,2:b}, model_a=m1, model_b=m2"
    (one,), _ = described(tmp_path / "j.jsonl", columns, MINE)
    assert one == Judgement(prompt="Why?", judge="human", first="base", second="dpo", preference=1.0)
    (one,), _ = described(tmp_path / "j.jsonl", columns.removeprefix("prompt=data.q, "), {**MINE, "data": ""})
    assert one.prompt == f"{tmp_path / 'j.jsonl'}:1"


def test_a_judge_run_is_not_described(tmp_path: Path) -> None:
    about: dict[str, Any] = {"prompt": "Why?", "first": "base", "second": "dpo", "outputs": ("So.", "No.")}
    one = Judgement(judge="r", preference=1.0, **about)
    (tmp_path / judgements.ANNOTATIONS).write_text(json.dumps(judgements.as_annotations([one])), encoding="utf-8")
    assert judgement_files.read(tmp_path, parse("a=x,b=y,winner=l"))[0] == [one]


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        (
            "prompt=data.q,a=x,winner=label{2:a}",
            r"j.jsonl:1 · a, prompt, winner are described · expected winner",
        ),
        ("prompt=data.q,a=x,b=y", r"j.jsonl:1 · a, b, prompt are described · expected winner"),
        ("prompt=data.q,a=x,b=y,winner=label", r"j.jsonl:1 · winner is 2 · .*winner=label\{1:a,2:b\}"),
        ("prompt=data.p,a=x,b=y,winner=label{2:a}", "j.jsonl:1 · no p in data · data has q"),
    ],
)
def test_a_broken_description_of_judgements_is_refused(columns: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=problem):
        described(tmp_path / "j.jsonl", columns, MINE)


def test_a_description_of_other_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="--columns names chosen, rejected · expected winner, and a and b"):
        judgement_files.read_all([tmp_path], parse("chosen=x,rejected=y"))


def test_an_unknown_file_is_refused_with_a_description(tmp_path: Path) -> None:
    row = {"question": "Why is it so?", "answer_x": "Because it is so.", "answer_y": "No idea at all.", "verdict": "a"}
    with pytest.raises(
        DataError, match=r"or describe it, such as --columns 'prompt=question, a=answer_x, b=answer_y, win"
    ):
        read(tmp_path / "j.jsonl", row)
    (one,), _ = described(tmp_path / "j.jsonl", "prompt=question, a=answer_x, b=answer_y, winner=verdict", row)
    assert one.preference == 0.0
