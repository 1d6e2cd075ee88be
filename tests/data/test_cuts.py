"""Units to count, lengths to cut by, parts to keep, boundaries to respect."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headwater.data import preparation, segmentation
from headwater.data.preference import Message, Preference, Response
from headwater.data.preparation import PrepLog, prepare
from headwater.data.tokenizers import Tokenizer
from headwater.data.tokens import EncodeOptions, token_ends
from headwater.data.truncation import Boundary, Keep, Part, Truncation, parse_keep, span, truncate
from headwater.data.truncation_effect import flops_saved
from headwater.errors import UsageError

HALF = Keep(Fraction(1, 2))
PARTS: list[Part] = ["prefix", "suffix", "middle", "random-span"]
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=40)


def letters(texts: Sequence[str]) -> list[list[int]]:
    """Every character is a token."""
    return [list(range(1, len(text) + 1)) for text in texts]


def pair(chosen: str, rejected: str, name: str = "x") -> Preference:
    return Preference(prompt=(Message("user", "q"),), chosen=Response(chosen), rejected=Response(rejected), id=name)


def kept(chosen: str, rejected: str, truncation: Truncation) -> tuple[str, str]:
    (cut,) = truncate([pair(chosen, rejected)], truncation, letters).preferences
    return cut.chosen.text, cut.rejected.text


# --- how much ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("128tok", Keep(Fraction(128), "tok")),
        ("3sent", Keep(Fraction(3), "sent")),
        ("50words", Keep(Fraction(50), "words")),
        ("200chars", Keep(Fraction(200), "chars")),
        (" 5 words ", Keep(Fraction(5), "words")),
    ],
)
def test_amounts_can_be_counted_in_units(text: str, expected: Keep) -> None:
    assert parse_keep(text) == expected


@pytest.mark.parametrize("text", ["0tok", "1.5words", "-3sent", "tok", "3 apples", "10%tok"])
def test_amounts_that_are_no_whole_number_of_units_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="128tok"):
        parse_keep(text)


@pytest.mark.parametrize(
    ("keep", "expected"),
    [
        ("3tok", ("One", "Yes")),
        ("1sent", ("One two.", "Yes!")),
        ("2words", ("One two.", "Yes! No")),
        ("5chars", ("One t", "Yes! ")),
        ("99words", ("One two. Three four?", "Yes! No more.")),
    ],
)
def test_units_are_counted_in_the_text(keep: str, expected: tuple[str, str]) -> None:
    assert kept("One two. Three four?", "Yes! No more.", Truncation(parse_keep(keep))) == expected


def test_an_absolute_amount_is_idempotent(corpus: list[Preference], tokenizer: Tokenizer) -> None:
    for keep in ("7words", "1sent", "31chars"):
        truncation = Truncation(parse_keep(keep))
        once = truncate(corpus, truncation, token_ends(tokenizer)).preferences
        assert truncate(once, truncation, token_ends(tokenizer)).preferences == once


# --- by whose length -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cut", "keep", "expected"),
    [
        ("own", HALF, ("abcd", "p")),
        ("equal", HALF, ("a", "p")),
        ("shared", HALF, ("abcd", "pq")),
        ("own", Keep(Fraction(1)), ("abcdefgh", "pq")),
        ("equal", Keep(Fraction(1)), ("ab", "pq")),
        ("shared", Keep(Fraction(1)), ("abcdefgh", "pq")),
        ("equal", Keep(Fraction(5), "tok"), ("ab", "pq")),
        ("shared", Keep(Fraction(5), "tok"), ("abcde", "pq")),
    ],
)
def test_lengths_to_cut_by(cut: str, keep: Keep, expected: tuple[str, str]) -> None:
    assert kept("abcdefgh", "pq", Truncation(keep, cut)) == expected  # type: ignore[arg-type]


def test_equal_cuts_leave_no_length_to_learn(corpus: list[Preference], tokenizer: Tokenizer) -> None:
    """POET: after an equal cut, the longer response wins exactly half of the pairs."""
    figures = truncate(corpus, Truncation(HALF, "equal"), token_ends(tokenizer)).figures()
    assert figures["longer_won_after"] == 0.5
    assert figures["length_difference_after"] == 0
    assert figures["tokens_after"] < figures["tokens_before"] / 2 + len(corpus)


def test_figures_by_hand() -> None:
    result = truncate([pair("abcdefgh", "pq"), pair("ab", "pqrs")], Truncation(HALF), letters)
    assert result.figures() == {
        "pairs": 2,
        "tokens_before": 16,
        "tokens_after": 8,
        "length_difference_before": (6 - 2) / 2,
        "length_difference_after": (3 - 1) / 2,
        "longer_won_before": 0.5,
        "longer_won_after": 0.5,
        "flops_saved": 8 / 18,  # the prompts are "q" and "q": a token each
    }


# --- which part ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("part", "expected"), [("prefix", "abcd"), ("suffix", "efgh"), ("middle", "cdef")])
def test_parts(part: Part, expected: str) -> None:
    assert kept("abcdefgh", "pqrstuvw", Truncation(HALF, part=part))[0] == expected


def test_only_a_part_that_holds_the_end_is_complete() -> None:
    rows = [pair("abcdefgh", "pqrstuvw")]
    complete = {p: truncate(rows, Truncation(HALF, part=p), letters).preferences[0].chosen.complete for p in PARTS[:3]}
    assert complete == {"prefix": False, "suffix": True, "middle": False}


def test_random_spans_are_seeded_by_the_texts_and_lie_everywhere() -> None:
    rows = [pair(f"abcdefghij{n:03}", f"0123456789{n:03}", "one id for all") for n in range(200)]
    truncation = Truncation(Keep(Fraction(5), "tok"), part="random-span", seed=1)
    cut = truncate(rows, truncation, letters).preferences
    named = [dataclasses.replace(row, id=str(n)) for n, row in enumerate(rows)]
    assert [one.chosen for one in truncate(named, truncation, letters).preferences] == [one.chosen for one in cut]
    assert cut == truncate(rows, truncation, letters).preferences
    assert cut[::-1] == truncate(rows[::-1], truncation, letters).preferences
    assert cut != truncate(rows, Truncation(HALF, part="random-span", seed=2), letters).preferences
    assert {p.chosen.text[0] for p in cut} == set("abcdefghi")
    assert any(p.chosen.text[0] != "abcdefghi"["012345678".index(p.rejected.text[0])] for p in cut)


@given(text=TEXTS, other=TEXTS, numerator=st.integers(1, 20), part=st.sampled_from(PARTS))
def test_every_part_is_a_piece_of_the_text_of_the_same_size(
    text: str, other: str, numerator: int, part: Part, tokenizer: Tokenizer
) -> None:
    keep = Keep(Fraction(numerator, 20))
    (ends,) = token_ends(tokenizer)([text])
    count = keep.count(len(ends))
    start, end = span(text, ends, Truncation(keep, part=part).first(len(ends), count, other), count)
    assert 0 <= start < end <= len(text)
    assert (start, end) == (0, len(text)) or part != "prefix" or start == 0


# --- what is never divided -----------------------------------------------------------------------------------------

FAMILY = "👨\u200d👩\u200d👧\u200d👦"
FLAG = "🇳🇿"
UNICODE = {
    "joined emoji": f"My family: {FAMILY}{FAMILY} and {FLAG}{FLAG} are here.",
    "combining marks": "e\u0301te\u0301 a\u0300 la plage, de\u0301ja\u0300 vu",
    "CJK": "他说：你好。我很好！再见。",
    "right to left": "שלום עולם. מה שלומך היום? טוב",
    "Devanagari": "नमस्ते दुनिया। आप कैसे हैं?",
}


@pytest.mark.parametrize("name", UNICODE)
@pytest.mark.parametrize("boundary", ["grapheme", "word", "sentence"])
@pytest.mark.parametrize("part", PARTS)
def test_a_cut_never_divides_its_boundary(name: str, boundary: Boundary, part: Part, tokenizer: Tokenizer) -> None:
    text = UNICODE[name]
    (ends,) = token_ends(tokenizer)([text])
    whole = {0, *segmentation.ends(text, boundary)}
    for count in range(1, len(ends) + 1):
        keep = Truncation(Keep(Fraction(count), "tok"), part=part, boundary=boundary)
        start, end = span(text, ends, keep.first(len(ends), count, "r"), count, boundary)
        assert start < end, "something is always left"
        assert {start, end} <= whole


@pytest.mark.parametrize(
    ("text", "unit", "expected"),
    [
        ("Hello there. How are you?", "sentence", ["Hello there.", " How are you?"]),
        ('He said "Stop!" and left. Ok', "sentence", ['He said "Stop!"', " and left.", " Ok"]),
        ("3.5 is a number... right?", "sentence", ["3.5 is a number...", " right?"]),
        ("A line\n\nAnother", "sentence", ["A line\n\n", "Another"]),
        ("他说：你好。我很好！", "sentence", ["他说：你好。", "我很好！"]),
        ("No end", "sentence", ["No end"]),
        ("don't stop  now ", "word", ["don't", " stop", "  now "]),
        ("你好 world", "word", ["你", "好", " world"]),
        (f"a{FAMILY}e\u0301", "grapheme", ["a", FAMILY, "e\u0301"]),
        ("   ", "word", []),
        ("", "sentence", []),
    ],
)
def test_units_by_hand(text: str, unit: segmentation.Unit, expected: list[str]) -> None:
    ends = segmentation.ends(text, unit)
    assert [text[start:end] for start, end in zip([0, *ends], ends, strict=False)] == expected


@given(text=TEXTS, unit=st.sampled_from(["grapheme", "word", "sentence"]))
def test_units_cover_the_text(text: str, unit: segmentation.Unit) -> None:
    ends = segmentation.ends(text, unit)
    assert ends == sorted(set(ends))
    assert not ends or ends[-1] == len(text)
    assert ends or not text.strip()


def test_sentences_of_a_long_run_of_punctuation_end_in_time() -> None:
    assert segmentation.ends("!" * 20_000 + "x" + "?." * 10_000, "sentence")[-1] == 40_001


# --- what it saves -------------------------------------------------------------------------------------------------


def test_flops_saved_by_hand() -> None:
    assert flops_saved(10, 20, 40) == 20 / 50
    assert flops_saved(10, 40, 40) == 0
    assert flops_saved(0, 0, 0) == 0
    result = truncate([pair("abcdefgh", "pq"), pair("ab", "pqrs")], Truncation(HALF), letters)
    assert result.kept == 8 / 16
    assert truncate([pair("ab", "pq")], Truncation(), letters).kept == 1


def test_flops_saved_by_a_view_are_those_of_the_tokens(corpus: list[Preference], tokenizer: Tokenizer) -> None:
    """What a ledger says of a cut comes to the tokens of the same pairs, whole (but for end tokens, which it keeps)."""
    views = [EncodeOptions(Truncation(keep), "never", 10_000) for keep in (Keep(Fraction(1)), Keep(Fraction(2, 5)))]
    prep_log = PrepLog()
    whole, cut = (
        prepare(str(n), corpus, encode_options, tokenizer, prep_log) for n, encode_options in enumerate(views)
    )
    assert len(whole) == len(cut)
    saved = 1 - sum(p.length for p in cut) / sum(p.length for p in whole)
    assert saved > 0.2
    assert preparation.flops_saved(cut, prep_log.kept["1"]) == pytest.approx(saved, abs=0.01)
    assert preparation.flops_saved(whole, prep_log.kept["0"]) == 0
    prepare("again", corpus, views[1], tokenizer, prep_log)
    assert prep_log.kept["again"] == prep_log.kept["1"], "the cache forgets what was kept"
