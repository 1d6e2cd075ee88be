"""Losses that use the data's score gap δ = score(y_w) − score(y_l), the strength of a preference.

The rest of the notation is that of pairwise.py. Data without scores of both responses is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from headwater.losses.pairwise import coins_kl, log_ratios, logistic
from headwater.losses.types import LossBase, PairLoss, PairScores

SCORE_GAP: frozenset[str] = frozenset({"score_gap"})


@dataclass(frozen=True, slots=True, repr=False)
class RewardAware(LossBase):
    """Base of reward-aware preference optimisation (RPO, Nemotron-4, arXiv:2406.11704): a distance of β h and η δ."""

    needs: ClassVar[frozenset[str]] = SCORE_GAP
    beta: float = 0.1
    eta: float = 1.0

    def __post_init__(self) -> None:
        self._above_zero("beta", "eta")

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        """Return the loss and β Δ of either response as its reward."""
        ratios = log_ratios(policy, reference)
        gap = self.eta * self._column("score_gap", policy)
        return ratios.rewarded(self.beta, self._distance(self.beta * ratios.margin, gap))

    def _distance(self, margin: torch.Tensor, gap: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


@dataclass(frozen=True, slots=True, repr=False)
class RPOSquared(RewardAware):
    """Reward-aware PO by squares: loss = (β h − η δ)², arXiv:2406.11704.

    >>> worked(RPOSquared(beta=0.5))  # (0.5 · 2 − 0.8)²
    0.04
    """

    name: ClassVar[str] = "rpo_sq"

    def _distance(self, margin: torch.Tensor, gap: torch.Tensor) -> torch.Tensor:
        return (margin - gap).square()


@dataclass(frozen=True, slots=True, repr=False)
class RPOBackwardKL(RewardAware):
    """Reward-aware preference optimisation by backward KL, arXiv:2406.11704.

    loss = KL(σ(η δ) ‖ σ(β h)) of Bernoulli distributions:
    σ(η δ) log [σ(η δ)/σ(β h)] + σ(−η δ) log [σ(−η δ)/σ(−β h)].

    >>> worked(RPOBackwardKL(beta=0.5))  # KL(σ(0.8) ‖ σ(1))
    0.0042
    """

    name: ClassVar[str] = "rpo_bwd_kl"

    def _distance(self, margin: torch.Tensor, gap: torch.Tensor) -> torch.Tensor:
        return coins_kl(gap, margin)


@dataclass(frozen=True, slots=True, repr=False)
class RPOForwardKL(RewardAware):
    """Reward-aware preference optimisation by forward KL, arXiv:2406.11704: loss = KL(σ(β h) ‖ σ(η δ)).

    Where the two are far apart its gradient vanishes, as σ(β h) saturates.

    >>> worked(RPOForwardKL(beta=0.5))  # KL(σ(1) ‖ σ(0.8))
    0.0041
    """

    name: ClassVar[str] = "rpo_fwd_kl"

    def _distance(self, margin: torch.Tensor, gap: torch.Tensor) -> torch.Tensor:
        return coins_kl(margin, gap)


@dataclass(frozen=True, slots=True, repr=False)
class BeeS(LossBase):
    """DPO weighted by the score gap: the selection probability of arXiv:2502.14560, used as a weight.

    loss = −p log σ(β h),  p = (clip(δ, L, U) − L) / (U − L),  L = low, U = high. Only the external margin is used; the
    paper multiplies its odds with those of an implicit margin.

    >>> worked(BeeS(beta=0.5, low=-1, high=1))  # −0.9 log σ(1), as (0.8 + 1) / 2 = 0.9
    0.2819
    """

    name: ClassVar[str] = "bees"
    needs: ClassVar[frozenset[str]] = SCORE_GAP
    beta: float = 0.1
    low: float = -2.0
    high: float = 2.0

    def __post_init__(self) -> None:
        self._above_zero("beta")
        self._require("low", True, "finite")
        self._require("high", self.high > self.low, "above low")

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        """Return the loss and β Δ of either response as its reward."""
        ratios = log_ratios(policy, reference)
        weight = (self._column("score_gap", policy).clamp(self.low, self.high) - self.low) / (self.high - self.low)
        return ratios.rewarded(self.beta, weight * logistic(self.beta * ratios.margin))
