"""Labelled responses go the way of pairs: cut, encoded, cached, split; one side of their tokens stays empty."""

from __future__ import annotations

import dataclasses
from fractions import Fraction

import numpy as np
import pytest

from headwater.data.preference import Preference, Response, Unpaired
from headwater.data.preparation import PrepLog, prepare
from headwater.data.splitting import split, without_leakage
from headwater.data.tokenizers import Tokenizer
from headwater.data.tokens import EncodeOptions, PairTokens, tokenize
from headwater.data.truncation import Keep, Part, Truncation, truncate
from headwater.errors import UsageError

HALF = Keep(Fraction(1, 2))


def labelled(pairs: list[Preference]) -> list[Unpaired]:
    """Both responses of every pair as rows of their own, the good ones first."""
    return [
        Unpaired(prompt=p.prompt, id=f"{p.id} {side}", source=p.source, response=response, label=side == "chosen")
        for side in ("chosen", "rejected")
        for p in pairs
        for response in [p.chosen if side == "chosen" else p.rejected]
    ]


def response_of(row: PairTokens) -> list[int]:
    assert not len(row.chosen) or not len(row.rejected)
    return [*row.chosen, *row.rejected]


@pytest.mark.parametrize("part", ["prefix", "suffix", "middle"])
def test_a_response_is_cut_and_encoded_as_in_a_pair(part: Part, corpus: list[Preference], tokenizer: Tokenizer) -> None:
    encode_options = EncodeOptions(Truncation(HALF, part=part), "complete", 512)
    pairs = prepare("pairs", corpus, encode_options, tokenizer, PrepLog())
    rows = prepare("rows", labelled(corpus), encode_options, tokenizer, PrepLog())
    assert len(rows) == 2 * len(pairs) == 2 * len(corpus)
    for pair, good, bad in zip(pairs, rows[: len(corpus)], rows[len(corpus) :], strict=True):
        # What both responses begin with may be prompt in a pair, where a token spans the boundary: not in this corpus.
        assert np.array_equal(good.prompt, pair.prompt)
        assert np.array_equal(good.chosen, pair.chosen)
        assert np.array_equal(bad.rejected, pair.rejected)
        assert len(good.rejected) == len(bad.chosen) == 0
        assert good.conversation_id == bad.conversation_id == pair.conversation_id


def test_the_cache_gives_back_labelled_rows(corpus: list[Preference], tokenizer: Tokenizer) -> None:
    encode_options = EncodeOptions(Truncation(HALF), "complete", 300)
    rows = labelled(corpus)
    turned = [dataclasses.replace(row, label=not row.label) for row in rows]
    for _ in range(2):
        prep_log = PrepLog()
        first, other = (prepare("part", given, encode_options, tokenizer, prep_log) for given in (rows, turned))
        assert [response_of(row) for row in first] == [response_of(row) for row in other]
        assert all(bool(len(a.chosen)) != bool(len(b.chosen)) for a, b in zip(first, other, strict=True))
        assert {array.dtype for row in first for array in row[:3]} == {np.dtype(np.int32)}
        assert prep_log.stages["truncate, part"].kept == len(rows)


def test_figures_of_a_cut_by_hand() -> None:
    """Two desirable responses of 4 and 8 letters, an undesirable one of 2; no pair, so that none was longer."""

    def row(text: str, label: bool) -> Unpaired:
        return Unpaired(prompt=(), id=text, response=Response(text), label=label)

    rows = [row("abcd", True), row("abcdefgh", True), row("pq", False)]
    result = truncate(rows, Truncation(HALF), lambda texts: [range(1, len(text) + 1) for text in texts])
    assert [each.response.text for each in result.preferences] == ["ab", "abcd", "p"]
    assert [each.response.complete for each in result.preferences] == [False] * 3
    assert [each.label for each in result.preferences] == [True, True, False]
    assert result.figures() == {
        "desirable": 2,
        "undesirable": 1,
        "tokens_before": 14,
        "tokens_after": 7,
        "length_difference_before": 6 - 2,
        "length_difference_after": 3 - 1,
        "flops_saved": 0.5,
    }


def test_a_response_of_which_nothing_is_kept_is_dropped() -> None:
    rows = [Unpaired(prompt=(), id="x", response=Response("  abc"), label=True)]
    result = truncate(rows, Truncation(Keep(Fraction(1, 5))), lambda texts: [range(1, len(text) + 1) for text in texts])
    assert (result.preferences, result.row_counts.dropped) == ([], {"empty_response": 1})


@pytest.mark.parametrize("cut", ["equal", "shared"])
def test_a_cut_by_the_other_response_is_refused(cut: str, corpus: list[Preference]) -> None:
    truncation = Truncation(HALF, cut)  # type: ignore[arg-type]
    truncation.check_rows(corpus[0])
    with pytest.raises(UsageError, match=f"--cut {cut} · labelled rows have one response"):
        truncation.check_rows(labelled(corpus)[0])


def test_rows_of_one_opening_stay_on_one_side(corpus: list[Preference]) -> None:
    train, held_out = split(labelled(corpus), 0.3, seed=1)
    pairs, _ = split(corpus, 0.3, seed=1)
    assert {row.conversation_id for row in train}.isdisjoint(row.conversation_id for row in held_out)
    assert {row.conversation_id for row in train} == {pair.conversation_id for pair in pairs}, (
        "pairs and labelled rows split alike"
    )
    kept, row_counts, _ = without_leakage(labelled(corpus), held_out, "drop")
    assert kept == train
    assert row_counts.dropped == {"seen_in_evaluation": len(held_out)}


def test_rows_that_are_too_long_or_say_nothing_are_counted(corpus: list[Preference], tokenizer: Tokenizer) -> None:
    rows = labelled(corpus)
    lengths = sorted(row.length for row in tokenize(rows, tokenizer, 512).pairs)
    found = tokenize(rows, tokenizer, lengths[-2])
    assert dict(found.row_counts.dropped) == {"too_long": sum(length > lengths[-2] for length in lengths)} != {}
    assert (found.row_counts.rows_in, found.row_counts.kept) == (len(rows), len(found.pairs))
