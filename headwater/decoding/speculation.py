"""Drafted by the reference, checked by the policy: many tokens for two readings, drawn exactly as one by one.

The target is the strategy's own distribution, whatever it is (speculative sampling, arXiv:2211.17192, with another
target). Alignment moves the first tokens most, so that later drafts are almost always taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch

from headwater.decoding.draws import REPLACE, TAKE, Shaping, replaced, taken
from headwater.decoding.strategies import Strategy


class Draft(NamedTuple):
    """What the reference says next in one row, and what both say of it."""

    tokens: list[int]
    u: torch.Tensor
    """[3, tokens]: what decides them."""
    reference: torch.Tensor
    """Logits of the reference before each, [tokens, vocabulary]."""
    policy: torch.Tensor
    """Logits of the policy before each, [tokens, vocabulary]."""


class Pace:
    """How many tokens to draft: twice as many after a round in which all were taken, else what would have done.

    It begins with one: alignment moves the first tokens most.
    """

    def __init__(self, longest: int) -> None:
        self._longest = longest
        self.length = 1

    def learn(self, drafted: Sequence[int], kept: Sequence[int]) -> None:
        """Take note of how many tokens were drafted and how many taken, row by row."""
        if all(a == b for a, b in zip(drafted, kept, strict=True)):
            self.length = min(self._longest, 2 * self.length)
        else:
            self.length = min(self._longest, 1 + round(sum(kept) / len(kept)))


def check(drafts: Sequence[Draft], strategy: Strategy, shaping: Shaping) -> list[tuple[list[int], int]]:
    """Return the tokens that stand in every row, and how many of them were drafted.

    A row keeps its drafts up to the first that is not taken, which another token replaces.
    """
    policy = torch.cat([draft.policy for draft in drafts]).log_softmax(1)
    reference = torch.cat([draft.reference for draft in drafts]).log_softmax(1)
    wanted, proposal = shaping(strategy.mix(policy, reference).log_probs), shaping(reference)
    u = torch.cat([draft.u for draft in drafts], dim=1).to(wanted.device)
    tokens = torch.tensor([token for draft in drafts for token in draft.tokens], device=wanted.device)
    stands = taken(tokens, wanted, proposal, u[TAKE]).tolist()
    kept, start = [], 0
    for draft in drafts:
        end = start + len(draft.tokens)
        kept.append(next((place for place in range(start, end) if not stands[place]), end) - start)
        start = end
    return _mended(drafts, kept, wanted, proposal, u[REPLACE])


def _mended(
    drafts: Sequence[Draft], kept: Sequence[int], wanted: torch.Tensor, proposal: torch.Tensor, u: torch.Tensor
) -> list[tuple[list[int], int]]:
    """Put another token in the place of the first that was not taken."""
    starts = [sum(len(draft.tokens) for draft in drafts[:row]) for row in range(len(drafts))]
    broken = [row for row, draft in enumerate(drafts) if kept[row] < len(draft.tokens)]
    other: dict[int, int] = {}
    if broken:
        places = [starts[row] + kept[row] for row in broken]
        other = dict(zip(broken, replaced(wanted[places], proposal[places], u[places]).tolist(), strict=True))
    return [
        (draft.tokens[: kept[row]] + ([other[row]] if row in other else []), kept[row])
        for row, draft in enumerate(drafts)
    ]
