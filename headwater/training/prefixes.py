"""Every-prefix training: the loss at several cuts of a response, from one forward pass.

A token of a causal model does not see what follows it, so the reward at token k is that of the response cut there: one
pass over whole responses holds the rewards of all their beginnings. The loss of a pair is the mean of its losses at
every cut, and one model then judges beginnings as well as whole responses.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import torch

from headwater.data.truncation import parse_keep
from headwater.errors import UsageError
from headwater.forward.packing import SIDES, PairBatch
from headwater.forward.scores import token_rewards
from headwater.losses import REWARD_LOSSES, LossBase, PairLoss, PairScores, Score


def parse_cuts(text: str) -> tuple[Fraction, ...]:
    """Read `0.25,0.5,1.0`: shares of a response, at least two, rising. Errors: `UsageError`."""
    keeps = [parse_keep(part) for part in text.split(",")]
    cuts = tuple(keep.amount for keep in keeps)
    if any(keep.unit != "ratio" for keep in keeps) or list(cuts) != sorted(set(cuts)):
        raise UsageError(f"--at {text}", "expected rising shares of a response", "such as 0.25,0.5,1.0")
    if len(cuts) < 2:
        raise UsageError(f"--at {text}", "is one cut", "cut the responses with --keep instead")
    return cuts


@dataclass(frozen=True)
class PrefixScores:
    """Rewards at several cuts: like `reward_scores`, but values and numbers of tokens are [pairs, cuts].

    A response of n tokens, the one that closes it included, is cut after ⌊share · n⌋ tokens, and after one at least.
    """

    cuts: Sequence[Fraction]

    def __call__(self, model: torch.nn.Module, batch: PairBatch) -> PairScores:
        """Return the rewards of every cut of every response."""
        lengths = batch["lengths"]
        starts = lengths.cumsum(0) - lengths
        kept = [(lengths * cut.numerator // cut.denominator).clamp(min=1) for cut in self.cuts]
        ends = starts[:, None] + torch.stack(kept, dim=1) - 1
        values, tokens = token_rewards(model, batch)[ends], torch.stack(kept, dim=1)
        values, tokens = (column.view(-1, SIDES, len(self.cuts)) for column in (values, tokens))
        chosen, rejected = (Score(values[:, side], tokens[:, side]) for side in range(SIDES))
        return PairScores(chosen, rejected, {name: column[:, None] for name, column in batch["columns"].items()})


class _MeanOverCuts:
    """Averages a loss of values [pairs, cuts] over the cuts; rewards are those of the longest cut."""

    __slots__ = ()

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        loss, chosen, rejected = super().__call__(policy, reference)  # type: ignore[misc]
        return PairLoss(loss.mean(dim=1), chosen[:, -1], rejected[:, -1])


PREFIX_LOSSES: dict[str, type[LossBase]] = {
    name: type(loss.__name__, (_MeanOverCuts, loss), {"__slots__": ()}) for name, loss in REWARD_LOSSES.items()
}
"""Losses of reward models, averaged over several cuts."""
