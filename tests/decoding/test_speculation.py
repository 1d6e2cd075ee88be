"""Drafts: how long they are, and what is left of them."""

from __future__ import annotations

import pytest
import torch

from headwater.decoding import speculation
from headwater.decoding.draws import Shaping
from headwater.decoding.options import DecodingOptions
from headwater.decoding.speculation import Draft, DraftLength, check
from headwater.decoding.strategies import KLThreshold

TAKEN = "all"


@pytest.mark.parametrize(
    ("kept", "lengths"),
    [
        # As long as all are taken: three times as many, up to the longest.
        ([TAKEN] * 5, [1, 3, 9, 27, 32, 32]),
        # A draft of one in vain does not slow what follows: so alignment's first tokens go by.
        ([0, 0, 0, TAKEN, TAKEN], [1, 1, 1, 1, 3, 9]),
        # A longer one does: what would have done, and then half as much again.
        ([TAKEN, 2, TAKEN, TAKEN, TAKEN], [1, 3, 3, 5, 8, 12]),
        ([TAKEN, TAKEN, 0, TAKEN, TAKEN, TAKEN], [1, 3, 9, 1, 2, 3, 5]),
    ],
)
def test_the_length_of_drafts(kept: list[int | str], lengths: list[int]) -> None:
    draft_length = DraftLength(32)
    found = [draft_length.length]
    for count in kept:
        draft_length.learn(draft_length.length, draft_length.length if isinstance(count, str) else count)
        found.append(draft_length.length)
    assert found == lengths


def test_a_draft_cut_short_neither_shortens_the_next_nor_counts_for_more_than_it_was() -> None:
    draft_length = DraftLength(32)
    for drafted in (1, 3, 1):
        draft_length.learn(drafted, drafted)
    assert draft_length.length == 9


@pytest.mark.parametrize("longest", [1, 3])
def test_no_draft_is_longer_than_asked(longest: int) -> None:
    draft_length = DraftLength(longest)
    for kept in (1, 1, 0, 1):
        assert draft_length.length <= longest
        draft_length.learn(1, kept)
    assert draft_length.length == longest


def drafts(sizes: list[int], temperature: float = 1.0) -> list[Draft]:
    """Drafts of a reference with 50 tokens, and a policy beside it."""
    torch.manual_seed(0)
    found = []
    for size in sizes:
        reference = 2 * torch.randn(size, 50)
        proposal = Shaping(DecodingOptions(temperature=temperature))(reference)
        tokens = proposal.multinomial(1)[:, 0].tolist()
        u = torch.rand(3, size, dtype=torch.float64)
        found.append(Draft(tokens, u, reference, reference + 1.5 * torch.randn(size, 50)))
    return found


@pytest.mark.parametrize("temperature", [0, 1.0])
def test_rows_are_checked_each_for_itself_whatever_fits_at_a_time(
    temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    shaping = Shaping(DecodingOptions(temperature=temperature))
    rows = drafts([5, 1, 9, 16, 3, 2], temperature)
    whole = check(rows, KLThreshold(0.8), shaping)
    assert whole == [check([row], KLThreshold(0.8), shaping)[0] for row in rows]
    for logits in (1, 170):  # one position at a time, and three
        monkeypatch.setattr(speculation, "LOGITS", logits)
        assert check(rows, KLThreshold(0.8), shaping) == whole
    counts = [kept for _, kept in whole]
    assert min(counts) < max(counts), "rows that all end at once show nothing"


def test_a_row_keeps_its_drafts_up_to_the_first_that_is_not_taken() -> None:
    rows = drafts([6] * 8)
    for row, (tokens, kept) in zip(rows, check(rows, KLThreshold(0.8), Shaping(DecodingOptions())), strict=True):
        assert tokens[:kept] == row.tokens[:kept]
        assert len(tokens) == min(kept + 1, 6)
        assert kept == 6 or tokens[kept] != row.tokens[kept]
    same = [row._replace(policy=row.reference) for row in rows]
    assert check(same, KLThreshold(0.8), Shaping(DecodingOptions())) == [(row.tokens, 6) for row in rows]
