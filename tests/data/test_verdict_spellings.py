"""Verdicts on two answers are spelled alike in pairs and in judgements: words, labels, numbers, and none."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from headwater.data.layouts.layout import Broken
from headwater.data.layouts.verdicts import (
    LABELS,
    ONE_OR_TWO,
    ONE_OR_ZERO,
    ONE_TO_TWO,
    STRENGTH,
    TIES,
    WORDS_ONLY,
    ZERO_OR_ONE,
    Numbers,
    arena_label,
    share,
)
from headwater.data.reading import ReadOptions, RowReader
from headwater.errors import DataError
from headwater.evaluation import judgement_files

FIRST = ("A", "a", "[[A]]", "(A)", "model_a", "Model A", "response_a", "first", "left", "A>B", "A>>B", "B<A")
SECOND = ("B", "b", "[[B]]", "model_b", "assistant_b", "answer B", "second", "right", "B>A", "B >> A", "A<B")
EVEN = (*TIES, "Tie", "TIE", "tie (bothbad)", "tie (inconsistent)", "both_bad", "bothbad", "both_good", "A=B", "[[C]]")
NOTHING = (None, "", " ", "None", "null", "nan", float("nan"), "error")
UNKNOWN = ("yes", "gpt-4", "AB", "a tiebreak", "()", "???", True, [1], {"a": 1}, "inf", float("inf"), 10**400)


def of(value: Any, numbers: Numbers = WORDS_ONLY) -> float | None:
    return share({"winner": value}, "winner", numbers)


@pytest.mark.parametrize(("spellings", "meant"), [(FIRST, 0.0), (SECOND, 1.0), (EVEN, 0.5), (NOTHING, None)])
@pytest.mark.parametrize("numbers", [ONE_TO_TWO, ONE_OR_TWO, ZERO_OR_ONE, ONE_OR_ZERO, STRENGTH, WORDS_ONLY])
def test_words_mean_the_same_in_every_column(spellings: tuple[Any, ...], meant: float | None, numbers: Numbers) -> None:
    assert {spelling: of(spelling, numbers) for spelling in spellings} == dict.fromkeys(spellings, meant)


@pytest.mark.parametrize(
    ("numbers", "expected"),
    [
        (ONE_TO_TWO, {0: 0.5, 1: 0.0, 1.25: 0.25, 1.5: 0.5, 2: 1.0}),
        (ONE_OR_TWO, {1: 0.0, 2: 1.0}),
        (ZERO_OR_ONE, {0: 0.0, 1: 1.0}),
        (ONE_OR_ZERO, {1: 0.0, 0: 1.0}),
        (STRENGTH, {-3: 0.0, 0: 0.5, 3: 1.0}),
    ],
)
def test_numbers_are_read_as_themselves_and_as_texts(numbers: Numbers, expected: dict[float, float]) -> None:
    for value, meant in expected.items():
        assert {of(value, numbers), of(str(value), numbers), of(f" {float(value)} ", numbers)} == {meant}
        if value in (0, 1, 2):
            assert of(f"response_{value}", numbers) == meant


@pytest.mark.parametrize("value", UNKNOWN)
def test_an_unknown_spelling_is_refused_with_the_known_ones(value: Any) -> None:
    with pytest.raises(Broken) as caught:
        of(value, ONE_TO_TWO)
    assert caught.value.message.startswith("winner is ") and repr(value)[:8] in caught.value.message
    assert (
        "model_a" in caught.value.message and "both bad" in caught.value.message and "0 or 1.5" in caught.value.message
    )


@pytest.mark.parametrize("value", [0, 1, 2, "1", "model_1"])
def test_a_number_is_refused_where_its_meaning_is_not_known(value: Any) -> None:
    with pytest.raises(Broken, match="expected no number"):
        of(value)


@pytest.mark.parametrize(("value", "numbers"), [(0, ONE_OR_TWO), (1.5, ONE_OR_TWO), (2, ZERO_OR_ONE), (4, STRENGTH)])
def test_a_number_beside_the_known_ones_is_refused(value: float, numbers: Numbers) -> None:
    with pytest.raises(Broken, match=f"winner is {value}"):
        of(value, numbers)


def test_labels_carry_their_votes() -> None:
    assert {label: arena_label(label) for label in LABELS} == LABELS
    assert arena_label("[[B>>A]]") == (1.0, 3)
    with pytest.raises(Broken, match="A>C"):
        arena_label("A>C")


SPELLED = [
    1,
    "1",
    "1.0",
    2,
    "2.0",
    0,
    1.5,
    1.75,
    "tie",
    "both_bad",
    "tie (bothbad)",
    "bothbad",
    "A",
    "model_b",
    "first",
]


@pytest.mark.parametrize("value", [*SPELLED, None, ""])
def test_pairs_and_judgements_read_a_preference_alike(value: Any, tmp_path: Path) -> None:
    """Both read one file; what is a tie or no verdict for one is for the other."""
    one = {"instruction": "Why?", "output_1": "So.", "output_2": "No.", "preference": value}
    other = one | {"instruction": "Who?", "input": "cats", "preference": 2}
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in (one, other)), encoding="utf-8")
    reader = RowReader(path, ReadOptions())
    records: list[Any] = list(reader)
    found = [each.preference for each in judgement_files.read(path)[0]]
    assert found == [share(one, "preference", ONE_TO_TWO), 1.0]
    if found[0] is None:
        assert reader.row_counts.dropped == {"no_verdict": 1}
    elif found[0] == 0.5:
        assert reader.row_counts.dropped == {"tie": 1}
    else:
        assert records[0].chosen.text == ("So." if found[0] < 0.5 else "No.")


@pytest.mark.parametrize(
    ("values", "is_refused"),
    [
        ([0, 1, 1], True),
        (["0", "1", None], True),
        ([0.0, "tie", 1.0], True),
        ([[0, 0, 1], [1, 1, 0], 1], True),
        ([0, 1, 2], False),
        ([0, 1, 1.5], False),
        ([0, 1, 1.2], False),
        ([1, 1, 1], False),
        ([0, 0, "A"], False),
    ],
)
@pytest.mark.parametrize("names", [("instruction", "output_1", "output_2"), ("question", "response_1", "response_2")])
def test_verdicts_of_0_and_1_are_no_ties_without_a_word(
    names: tuple[str, str, str], values: list[Any], is_refused: bool, tmp_path: Path
) -> None:
    """A column from 1 to 2, with 0 for a tie, that holds 0 and 1 alone: a 0 for the first would be a tie."""
    path = tmp_path / "a.jsonl"
    texts = [dict(zip(names, (f"Why {n}?", "So.", "No."), strict=True)) for n in range(3)]
    rows = [{**text, "preference": value} for text, value in zip(texts, values, strict=True)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    readers = [lambda: list(RowReader(path, ReadOptions(max_bad_rows="100%")))]
    if names[0] == "instruction" and not isinstance(values[0], list):
        readers.append(lambda: judgement_files.read(path)[0])
    for read in readers:
        if not is_refused:
            read()
            continue
        with pytest.raises(DataError) as caught:
            read()
        place, found, _, fix = str(caught.value).split(" · ")
        assert place == str(path) and re.fullmatch(r"preference is 0 \(\d\) or 1 \(\d\) in all rows", found)
        (columns,) = re.findall(r"--columns '(.*)'", fix)
        assert columns == "prompt={}, a={}, b={}, winner=preference{{0:a,1:b}}".format(*names)
        records: list[Any] = list(RowReader(path, ReadOptions(columns=columns, max_bad_rows="100%")))
        assert [one.chosen.text for one in records][:1] == ["So."]


def said(role: str, content: str) -> dict[str, str]:
    return {"role": role, "content": content}


@pytest.mark.parametrize("winner", ["A", "model_b", "tie", "tie (bothbad)", "both_bad", None])
def test_pairs_and_judgements_read_a_battle_alike(winner: Any, tmp_path: Path) -> None:
    models = {"model_a": "m", "model_b": "n"}
    rows = [
        {f"conversation_{side}": [said("user", asked), said("assistant", side)] for side in "ab"} | models | verdict
        for asked, verdict in (("Hi", {"winner": winner}), ("Ho", {"winner": "model_a"}))
    ]
    path = tmp_path / "a.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    reader = RowReader(path, ReadOptions())
    records: list[Any] = list(reader)
    meant = of(winner)
    assert [each.preference for each in judgement_files.read(path)[0]] == [meant, 0.0]
    assert len(records) == 2 - (meant in (None, 0.5))


def test_a_judgement_with_an_unknown_verdict_is_refused_by_line(tmp_path: Path) -> None:
    path = tmp_path / "b.jsonl"
    path.write_text(json.dumps({"model_a": "x", "model_b": "y", "winner": "x"}), encoding="utf-8")
    with pytest.raises(DataError, match=r"b\.jsonl:1 · winner is 'x' · expected no number; A, model_a"):
        judgement_files.read(path)
