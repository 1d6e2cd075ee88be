"""Losses on the sorted values of a whole batch: alignment by optimal transport (AOT), arXiv:2406.05882.

AOT asks that a *distribution* of values dominates another one: value k of a batch meets value k of the other, both in
rising order, whichever pair they come from. A batch is computed in several passes, so what meets the value of a pair
reaches the loss as a column (`batch_columns`), computed before from the whole batch. Sums of losses and of gradients
are then those of the sorted batch.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch

from headwater.losses.pairwise import log_ratios, logistic
from headwater.losses.types import LossBase, PairLoss, PairScores

SORTED: frozenset[str] = frozenset({"sorted_batch"})


@dataclass(frozen=True, slots=True, repr=False)
class SortedBatch(LossBase):
    """Base of the losses here; `batch_columns` gives what the loss reads beside the scores of a pair."""

    needs: ClassVar[frozenset[str]] = SORTED
    beta: float = 0.1
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        self._above_zero("beta")
        self._below_half("label_smoothing")

    def batch_columns(self, policy: PairScores, reference: PairScores) -> Mapping[str, torch.Tensor]:
        """Return columns of the pairs of a whole batch, each [pairs] and detached."""
        raise NotImplementedError

    def _logistic(self, difference: torch.Tensor) -> torch.Tensor:
        return logistic(self.beta * difference, self.label_smoothing)


@dataclass(frozen=True, slots=True, repr=False)
class AOT(SortedBatch):
    """AOT on pairs: the margins of a batch under the policy dominate those under the reference, arXiv:2406.05882.

    loss = −(1 − ε) log σ(β [m_(k) − n_(k)]) − ε log σ(−β [m_(k) − n_(k)]) with m = log π(y_w) − log π(y_l), n the same
    under the reference, and (k) the k-th smallest of the batch. With a batch of one pair it is DPO.

    >>> worked(AOT(beta=0.5))  # −log σ(0.5 · 2), a batch of one pair
    0.3133
    """

    name: ClassVar[str] = "aot"

    def batch_columns(self, policy: PairScores, reference: PairScores) -> Mapping[str, torch.Tensor]:
        """Return `reference_margin`: of the reference's margins, the one with the rank of the pair's own."""
        margins, wanted = (_margin(scores).detach() for scores in (policy, reference))
        return {"reference_margin": _at_rank(margins, wanted)}

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        """Return the loss and β Δ of either response as its reward."""
        ratios = log_ratios(policy, reference)
        return ratios.rewarded(self.beta, self._logistic(_margin(policy) - self._column("reference_margin", policy)))


@dataclass(frozen=True, slots=True, repr=False)
class AOTUnpaired(SortedBatch):
    """AOT on the two sides: log-ratios of chosen responses dominate those of rejected ones, arXiv:2406.05882.

    loss = −(1 − ε) log σ(β d_k) − ε log σ(−β d_k), d_k = Δ(y_w)_(k) − Δ(y_l)_(k), the k-th smallest of either side. A
    pair's loss is half that of the rank of its chosen response and half that of the rank of its rejected one.

    >>> worked(AOTUnpaired(beta=0.5))  # −log σ(0.5 · 2), a batch of one pair
    0.3133
    """

    name: ClassVar[str] = "aot_unpaired"

    def batch_columns(self, policy: PairScores, reference: PairScores) -> Mapping[str, torch.Tensor]:
        """Return the Δ of the other side with the rank of the chosen response's, and of the rejected one's."""
        chosen, rejected = (ratio.detach() for ratio in log_ratios(policy, reference))
        return {"rejected_at_rank": _at_rank(chosen, rejected), "chosen_at_rank": _at_rank(rejected, chosen)}

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        """Return the loss and β Δ of either response as its reward."""
        ratios = log_ratios(policy, reference)
        by_chosen = self._logistic(ratios.chosen - self._column("rejected_at_rank", policy))
        by_rejected = self._logistic(self._column("chosen_at_rank", policy) - ratios.rejected)
        both = by_chosen + by_rejected
        # Each term has the gradient of one side of its rank: the value is halved, the gradient is not.
        return ratios.rewarded(self.beta, both - both.detach() / 2)


def _margin(scores: PairScores) -> torch.Tensor:
    return scores.chosen.value - scores.rejected.value


def _at_rank(values: torch.Tensor, others: torch.Tensor) -> torch.Tensor:
    """Return for each of `values` the one of `others` with the same rank, [pairs]."""
    ranks = values.argsort(stable=True).argsort()
    return others.sort().values[ranks]
