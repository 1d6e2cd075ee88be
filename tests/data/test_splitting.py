from __future__ import annotations

import dataclasses
from fractions import Fraction

import pytest

from headwater.data.corpus import Corpus, generate
from headwater.data.preference import Message, Preference, Response, held_out
from headwater.data.splitting import GRAM, LEAKS, Match, overlap, split, unseen, without_leakage
from headwater.data.tokenizers import Tokenizer
from headwater.data.tokens import token_ends
from headwater.data.truncation import Keep, Truncation, truncate
from headwater.errors import DataError


@pytest.fixture(scope="module")
def rows() -> list[Preference]:
    return generate(Corpus(pairs=1000, seed=3))


def asked(*turns: str, system: str = "") -> Preference:
    """A preference after a conversation of user and assistant turns."""
    first = (Message("system", system),) if system else ()
    speakers = ("user", "assistant") * len(turns)
    talk = tuple(Message(speaker, text) for speaker, text in zip(speakers, turns, strict=False))  # type: ignore[arg-type]
    return Preference(prompt=first + talk, chosen=Response("a"), rejected=Response("b"))


def test_no_opening_is_on_both_sides(rows: list[Preference]) -> None:
    train, rest = split(rows, 0.2, seed=0)
    assert len({p.conversation_id for p in rows}) < len(rows), "the corpus repeats no opening, so this shows nothing"
    assert {p.conversation_id for p in train}.isdisjoint(p.conversation_id for p in rest)


def test_every_row_is_on_one_side_and_in_order(rows: list[Preference]) -> None:
    train, rest = split(rows, 0.2, seed=0)
    place = {p.id: number for number, p in enumerate(rows)}
    assert sorted([*train, *rest], key=lambda p: place[p.id]) == rows
    for side in (train, rest):
        assert [place[p.id] for p in side] == sorted(place[p.id] for p in side)


def test_the_same_seed_gives_the_same_split_and_another_another(rows: list[Preference]) -> None:
    assert split(rows, 0.2, seed=0) == split(rows, 0.2, seed=0)
    assert split(rows, 0.2, seed=0) != split(rows, 0.2, seed=1)


def test_an_opening_falls_on_the_same_side_in_any_file(rows: list[Preference]) -> None:
    _, rest = split(rows, 0.2, seed=0)
    _, rest_of_half = split(rows[::-2], 0.2, seed=0)
    assert {p.id for p in rest_of_half} == {p.id for p in rest} & {p.id for p in rows[::-2]}


def test_a_larger_fraction_holds_out_the_same_and_more(rows: list[Preference]) -> None:
    _, fewer = split(rows, 0.1, seed=0)
    _, more = split(rows, 0.3, seed=0)
    assert {p.id for p in fewer} < {p.id for p in more}


def test_truncated_data_splits_like_full_data(rows: list[Preference], tokenizer: Tokenizer) -> None:
    cut = truncate(rows, Truncation(Keep(Fraction(1, 2))), token_ends(tokenizer)).preferences
    assert len(cut) == len(rows)
    for full, short in zip(split(rows, 0.2, seed=0), split(cut, 0.2, seed=0), strict=True):
        assert [p.id for p in full] == [p.id for p in short]


@pytest.mark.parametrize("fraction", [0.1, 0.3, 0.5])
def test_the_fraction_is_held_out(fraction: float) -> None:
    # 4000 draws: three standard errors are at most 0.024.
    conversation_ids = [asked(f"question {n}") for n in range(4000)]
    assert len(split(conversation_ids, fraction, seed=0)[1]) / 4000 == pytest.approx(fraction, abs=0.024)


def test_fraction_0_holds_out_nothing(rows: list[Preference]) -> None:
    assert split(rows, 0, seed=0) == (rows, [])


def test_a_split_that_leaves_a_side_empty_is_refused(rows: list[Preference]) -> None:
    one = [rows[0], dataclasses.replace(rows[0], id="again")]
    trains = not held_out(rows[0].conversation_id, 0.5, seed=0)
    side = "held-out" if trains else "training"
    with pytest.raises(DataError) as error:
        split(one, 0.5, seed=0)
    assert str(error.value).startswith(
        f"2 rows with 1 conversations · leave the {side} part empty at --eval-fraction 0.5"
    )
    with pytest.raises(DataError, match="leave the training part empty at --eval-fraction 1 "):
        split(rows, 1, seed=0)
    with pytest.raises(DataError, match="leave the held-out part empty at --eval-fraction 1e-09 "):
        split(rows, 1e-9, seed=0)
    with pytest.raises(DataError, match="0 rows with 0 conversations"):
        split([], 0, seed=0)


def test_what_was_seen_in_training_is_dropped_and_counted(rows: list[Preference]) -> None:
    train, rest = split(rows, 0.2, seed=0)
    kept, row_counts = unseen(rows, {p.conversation_id for p in train})
    assert kept == rest
    assert (row_counts.rows_in, row_counts.kept) == (1000, len(rest))
    assert row_counts.dropped == {"seen_in_training": len(train)}


def test_where_nothing_was_seen_nothing_is_dropped(rows: list[Preference]) -> None:
    kept, row_counts = unseen(rows, {"another"})
    assert kept == rows
    assert (row_counts.rows_in, row_counts.kept, row_counts.dropped) == (1000, 1000, {})


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (asked("Why is it?"), asked(" why  IS\n\tit? ")),
        (asked("Straße"), asked("STRASSE")),
        (asked("Why?"), asked("Why?", "Because.", "And then?")),
        (asked("Why?", system="Be brief."), asked("Why?", "No.", "Why?", system="be brief.")),
        (asked("Why?"), dataclasses.replace(asked("Why?"), chosen=Response("x", complete=False), id="7", source="s")),
    ],
)
def test_an_opening_ignores_case_white_space_later_turns_and_answers(one: Preference, other: Preference) -> None:
    assert one.conversation_id == other.conversation_id


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (asked("Why?"), asked("How?")),
        (asked("Why is it?"), asked("Why isit?")),
        (asked("Why?"), asked("Why?", system="Be brief.")),
        (asked("Why?", system="Be brief."), asked("Why?", system="Be kind.")),
        (asked("a user:b"), asked("b", system="a")),
        (asked("system:a\nuser:b"), asked("b", system="a")),
    ],
)
def test_another_question_or_system_turn_is_another_opening(one: Preference, other: Preference) -> None:
    assert one.conversation_id != other.conversation_id


# --- the overlap of two sets --------------------------------------------------------------------------------------

LONG = "one two three four five six seven eight nine ten eleven twelve thirteen"


def named(name: str, *turns: str, system: str = "") -> Preference:
    return dataclasses.replace(asked(*turns, system=system), id=name)


@pytest.mark.parametrize(
    ("trained", "judged", "kind"),
    [
        (named("t", "Why is it?"), named("e", "Why is it?"), "exact"),
        (named("t", "Why is it?"), named("e", " why, IS it"), "normalised"),
        (named("t", "Why?", "So.", "And?"), named("e", "why? "), "opening"),
        (named("t", "Why?", "So.", "And?"), named("e", "why? ", "No.", "So?"), "opening"),
        (named("t", f"Say: {LONG}. Now!"), named("e", f"And then {LONG.upper()}?"), "13-gram"),
        (named("t", "Hm?", "No.", LONG), named("e", f"x {LONG}"), "13-gram"),
    ],
)
def test_a_prompt_in_the_training_data_is_found_with_ids(trained: Preference, judged: Preference, kind: str) -> None:
    others = [named("a", "What?"), named("b", "...")]
    found = overlap([*others, trained], [named("c", "Who?"), judged])
    assert found.matches == (Match(kind, "e", "t"),)
    assert found.rows == 2
    assert found.ids(kind) == ["e"]
    assert found.summary() == f"1 of 2 evaluation prompts overlap with training data: {kind} 1"


@pytest.mark.parametrize(
    ("trained", "judged"),
    [
        (named("t", "Why?"), named("e", "How?")),
        (named("t", "Why?"), named("e", "Why?", system="Be brief.")),
        (named("t", "..."), named("e", "?!")),
        (named("t", " ".join(LONG.split()[: GRAM - 1])), named("e", f"{' '.join(LONG.split()[: GRAM - 1])} x")),
        (named("t", "Why?", LONG, "So?"), named("e", "How?", LONG, "And?")),
        (named("t", "Why?", "So.", "And?"), named("e", "And?")),
    ],
)
def test_other_prompts_are_not_found(trained: Preference, judged: Preference) -> None:
    found = overlap([trained], [judged])
    assert found.matches == ()
    assert found.summary() == "0 of 1 evaluation prompts overlap with training data"


def test_the_strictest_kind_counts_whatever_comes_first() -> None:
    judged = [named("e", LONG)]
    rows = [named("gram", f"x {LONG}"), named("normal", LONG.upper()), named("exact", LONG), named("again", LONG)]
    for order in (rows, rows[:1] + rows[2:3] + rows[1:2]):
        assert overlap(iter(order), judged).matches == (Match("exact", "e", "exact"),)


def test_a_split_has_no_exact_overlap_and_a_copy_has_nothing_else(rows: list[Preference]) -> None:
    train, rest = split(rows, 0.2, seed=0)
    assert overlap(train, rest).ids("exact") == []
    assert overlap(rows, rest).ids("exact") == [p.id for p in rest]


def test_examples_name_a_few_rows_of_both_sides() -> None:
    train = [named(f"t{n}", f"Why {n}?") for n in range(5)]
    found = overlap(train, [named(f"e{n}", f"Why {n}?") for n in range(5)])
    assert found.examples(2) == "such as e0 (training row t0), e1 (training row t1)"
    assert overlap(train, [named("e", "Who?")]).examples() == ""


# --- leakage ------------------------------------------------------------------------------------------------------

TRAINED = [
    named("t1", "Why?"),
    named("t2", "who's  THERE"),
    named("t3", "How?", "So.", "Oh?"),
    named("t4", f"a {LONG}"),
]
JUDGED = [named("e1", "Why?"), named("e2", "Who, s there!"), named("e3", "How?"), named("e4", f"b {LONG}")]


def test_every_kind_of_leakage_is_refused_and_an_n_gram_is_not() -> None:
    with pytest.raises(DataError) as error:
        without_leakage(TRAINED, JUDGED, "refuse")
    assert str(error.value) == (
        "--eval-data · 3 of 4 evaluation prompts overlap with training data: exact 1, normalised 1, opening 1 · "
        "such as e1 (training row t1), e2 (training row t2), e3 (training row t3) · "
        "--leakage drop leaves those training rows out, --leakage allow trains on them"
    )
    kept, row_counts, found = without_leakage(TRAINED[3:], JUDGED, "refuse")
    assert (kept, row_counts.rows_in, row_counts.kept, row_counts.dropped) == (TRAINED[3:], 1, 1, {})
    assert found.matches == (Match("13-gram", "e4", "t4"),)


def test_drop_takes_every_leaking_training_row_and_no_other() -> None:
    rows = [*TRAINED, named("t5", "Why?"), named("t6", "Whither?")]
    kept, row_counts, found = without_leakage(rows, JUDGED, "drop")
    assert [p.id for p in kept] == ["t4", "t6"]
    assert (row_counts.rows_in, row_counts.kept, row_counts.dropped) == (6, 2, {"seen_in_evaluation": 4})
    assert found.matches == (Match("13-gram", "e4", "t4"),)
    with pytest.raises(DataError, match="3 training rows · all share a prompt with --eval-data"):
        without_leakage(TRAINED[:3], JUDGED, "drop")


def test_allow_keeps_all_and_says_what_is_shared() -> None:
    kept, row_counts, found = without_leakage(TRAINED, JUDGED, "allow")
    assert (kept, row_counts.kept, row_counts.dropped) == (TRAINED, 4, {})
    assert [match.kind for match in found.leaks.matches] == list(LEAKS)
    assert len(found.matches) == 4


def test_what_evaluate_would_leave_out_is_leakage(rows: list[Preference]) -> None:
    """After drop, `unseen` (by opening, as `evaluate` does) has nothing to leave out."""
    train, rest = split(rows, 0.2, seed=0)
    kept, _, _ = without_leakage(rows, rest, "drop")
    assert {p.id for p in kept} <= {p.id for p in train}
    assert unseen(rest, {p.conversation_id for p in kept})[0] == rest
