"""Speculative decoding: the reference drafts tokens, the policy checks them in one pass; samples stay exact.

The target is the strategy's distribution (speculative sampling, arXiv:2211.17192, with another target than the larger
model). Alignment changes the first tokens most, so later drafts are almost always accepted.

    drafts of the reference      t1  t2  t3  t4
    checked by the policy        ok  ok  no  –       t3 is replaced by a draw from max(0, target − reference)
    appended to the row          t1  t2  t3'         two accepted tokens and one replacement from one policy pass
"""

from __future__ import annotations

from collections.abc import Sequence
from math import ceil
from typing import NamedTuple

import torch

from headwater.decoding.draws import REPLACE, TAKE, Shaping, replaced, taken
from headwater.decoding.strategies import Strategy

LOGITS = 2**20
"""Maximum number of logits checked at a time: 8 MB in float64, as larger temporaries are slower to allocate."""


class Draft(NamedTuple):
    """Drafted tokens of one row, with the logits of both models."""

    tokens: list[int]
    u: torch.Tensor
    """[3, tokens]: their random numbers."""
    reference: torch.Tensor
    """Logits of the reference before each, [tokens, vocabulary]."""
    policy: torch.Tensor
    """Logits of the policy before each, [tokens, vocabulary]."""


class DraftLength:
    """Adapts how many tokens to draft next in one row, 1 to `longest`.

    Drafts start with one token, since alignment changes the first tokens most, and grow fast while they are accepted:
    checking many tokens costs little more than checking few, and every check evicts the reference's weights from the
    processor's cache. After a longer draft was rejected the length grows slowly, since each rejected token cost a
    forward pass of the reference.
    """

    def __init__(self, longest: int) -> None:
        self._longest, self._growth = longest, 3.0
        self.length = 1

    def learn(self, drafted: int, kept: int) -> None:
        """Update the length from the numbers of drafted and accepted tokens."""
        if kept < drafted:
            self._growth = 1.5 if drafted > 1 else self._growth
            self.length = min(self._longest, 1 + kept)
        else:
            # Fewer tokens than the length may have been drafted, where another row was near its end.
            self.length = min(self._longest, max(self.length, ceil(self._growth * drafted)))


def check(drafts: Sequence[Draft], strategy: Strategy, shaping: Shaping) -> list[tuple[list[int], int]]:
    """Return the tokens to append to every row, and how many of them are accepted drafts.

    Drafts are accepted up to the first rejected one, which is replaced by another token.
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
    """Return the token at the place of each drafted one [n], as if all drafts before it were accepted.

    It is the draft if accepted, else a replacement, which always differs from the rejected draft.
    """
    policy, reference = policy.log_softmax(1), reference.log_softmax(1)
    wanted, proposal = shaping(strategy.mix(policy, reference).log_probs), shaping(reference)
    # All drafts are judged at once, as if accepted up to there; `_standing` then cuts each row at its first rejection.
    broken = ~taken(drafted, wanted, proposal, u[TAKE])
    said = drafted.clone()
    said[broken] = replaced(wanted[broken], proposal[broken], u[REPLACE, broken])
    tokens: list[int] = said.tolist()
    return tokens
