"""Drafted by the reference, checked by the policy: many tokens for two readings, drawn exactly as one by one.

The target is the strategy's own distribution, whatever it is (speculative sampling, arXiv:2211.17192, with another
target). Alignment moves the first tokens most, so that later drafts are almost always taken.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

import torch

from headwater.decoding.draws import REPLACE, TAKE, Shaping, replaced, taken
from headwater.decoding.strategies import Strategy

LOGITS = 2**20
"""Logits judged at a time: 8 MB in float64. More take longer, in memory that is fetched anew for each step."""


class Draft(NamedTuple):
    """What the reference says next in one row, and what both say of it."""

    tokens: list[int]
    u: torch.Tensor
    """[3, tokens]: what decides them."""
    reference: torch.Tensor
    """Logits of the reference before each, [tokens, vocabulary]."""
    policy: torch.Tensor
    """Logits of the policy before each, [tokens, vocabulary]."""


class DraftLength:
    """How many tokens to draft next in one row, 1 to `longest`.

    It begins with one token, since alignment moves the first ones most, and grows fast as long as what it drafts is
    taken: a check of many tokens costs hardly more than one of few, and each puts the reference's weights out of the
    processor's cache. Once a longer draft was refused it grows slowly: a token drafted in vain cost a reading.
    """

    def __init__(self, longest: int) -> None:
        self._longest, self._growth = longest, 3.0
        self.length = 1

    def learn(self, drafted: int, kept: int) -> None:
        """Take note of how many tokens were drafted and how many of them taken."""
        if kept < drafted:
            self._growth = 1.5 if drafted > 1 else self._growth
            self.length = min(self._longest, 1 + kept)
        else:
            # What was drafted may be less than the length, where another row had little room.
            self.length = min(self._longest, max(self.length, ceil(self._growth * drafted)))


def check(drafts: Sequence[Draft], strategy: Strategy, shaping: Shaping) -> list[tuple[list[int], int]]:
    """Return the tokens that stand in every row, and how many of them were drafted.

    A row keeps its drafts up to the first that is not taken, which another token replaces.
    """
    policy, reference = torch.cat([draft.policy for draft in drafts]), torch.cat([draft.reference for draft in drafts])
    u = torch.cat([draft.u for draft in drafts], dim=1).to(policy.device)
    tokens = torch.tensor([token for draft in drafts for token in draft.tokens], device=policy.device)
    said: list[int] = []
    for start in range(0, len(tokens), size := max(1, LOGITS // policy.shape[1])):
        part = slice(start, start + size)
        said += _judged(tokens[part], policy[part], reference[part], u[:, part], strategy, shaping)
    places = iter(said)
    return [_standing(draft.tokens, [next(places) for _ in draft.tokens]) for draft in drafts]


def _standing(drafted: list[int], said: list[int]) -> tuple[list[int], int]:
    kept = next((place for place, token in enumerate(drafted) if token != said[place]), len(drafted))
    return said[: kept + 1], kept


def _judged(
    drafted: torch.Tensor,
    policy: torch.Tensor,
    reference: torch.Tensor,
    u: torch.Tensor,
    strategy: Strategy,
    shaping: Shaping,
) -> list[int]:
    """Return what is said in the place of each drafted token [n], as if those before it stood.

    That is the token itself or another one: what replaces it is never what was not taken.
    """
    policy, reference = policy.log_softmax(1), reference.log_softmax(1)
    wanted, proposal = shaping(strategy.mix(policy, reference).log_probs), shaping(reference)
    broken = ~taken(drafted, wanted, proposal, u[TAKE])
    said = drafted.clone()
    said[broken] = replaced(wanted[broken], proposal[broken], u[REPLACE, broken])
    tokens: list[int] = said.tolist()
    return tokens
