from __future__ import annotations

import math

import pytest

from headwater.data.terms import LEAST, PRIOR, SHOWN, Contrast, contrast, terms


def test_words_without_case_and_punctuation() -> None:
    text = "Don’t STOP, 'café' x_y 3rd — e-mail!"
    assert list(terms(text)) == ["don't", "stop", "café", "x_y", "3rd", "e", "mail"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("日本語です", ["日本", "本語", "語で", "です"]),
        ("我", ["我"]),
        ("用GPT写", ["用", "gpt", "写"]),
        ("データ", ["デー", "ータ"]),
        ("한국어 단어", ["한국어", "단어"]),  # Korean has spaces
        ("ภาษา", ["ภาษา"[0:2], "าษ", "ษา"]),
    ],
)
def test_where_no_space_parts_words_every_two_characters_are_one(text: str, expected: list[str]) -> None:
    assert list(terms(text)) == expected


def test_the_log_odds_by_hand() -> None:
    """Ten times `good` and `the` in chosen, ten times `bad` and `the` in rejected responses."""
    found = contrast([("good the", "bad the")] * 10)
    assert (found.pairs, found.words) == (10, (20, 20))
    (term,) = found.chosen
    prior = PRIOR * 10 / 40
    odds = [math.log((count + prior) / (20 + PRIOR - count - prior)) for count in (10, 0)]
    variance = 1 / (10 + prior) + 1 / prior
    assert (term.term, term.chosen, term.rejected) == ("good", 10, 0)
    assert term.log_odds == pytest.approx(odds[0] - odds[1])
    assert term.z == pytest.approx((odds[0] - odds[1]) / math.sqrt(variance))
    assert [(t.term, t.z) for t in found.rejected] == [("bad", pytest.approx(-term.z))]  # `the` tells nothing


def test_a_rare_word_does_not_look_extreme() -> None:
    often = [("yes indeed", "no indeed")] * 200
    few = [("rare", "indeed")] * LEAST
    found = contrast(often + few)
    ranked = [term.term for term in found.chosen]
    assert ranked.index("yes") < ranked.index("rare")
    assert "unseen" not in [t.term for t in contrast([*often, *[("unseen", "indeed")] * (LEAST - 1)]).chosen]


def test_turning_pairs_round_turns_the_signs() -> None:
    pairs = [(f"a{n % 7} b{n % 3} common", f"a{n % 5} b{n % 4} common") for n in range(300)]
    one, other = contrast(pairs), contrast((rejected, chosen) for chosen, rejected in pairs)
    assert {t.term: t.z for t in one.chosen} == pytest.approx({t.term: -t.z for t in other.rejected})
    assert len(one.chosen) <= SHOWN


def test_no_words_no_terms() -> None:
    assert contrast([("…", "!")]) == Contrast(pairs=1, words=(0, 0), chosen=(), rejected=(), frequent=((), ()))


def test_frequent_words_are_counted_without_those_of_any_text() -> None:
    found = contrast([("the garden the", "the attic the")] * 10 + [("the roses", "the dust")])
    assert found.frequent == ((("garden", 10), ("roses", 1)), (("attic", 10), ("dust", 1)))
