"""Losses on the log-ratio of each response by itself, not only on the difference of the two.

They say which way the likelihood of the chosen response should go, which the difference h leaves open. The notation is
that of pairwise.py; r(y) = β Δ(y).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from headwater.losses.pairwise import log_ratios
from headwater.losses.types import LossBase, PairLoss, PairScores


@dataclass(frozen=True, slots=True, repr=False)
class PerResponse(LossBase):
    """Base of the losses here: a function of r(y_w) and r(y_l)."""

    beta: float = 0.1

    def __post_init__(self) -> None:
        self._above_zero("beta")

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        """Return the loss and β Δ of either response as its reward."""
        ratios = log_ratios(policy, reference)
        return ratios.rewarded(self.beta, self._loss(self.beta * ratios.chosen, self.beta * ratios.rejected))

    def _loss(self, chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError


@dataclass(frozen=True, slots=True, repr=False)
class NCAPair(PerResponse):
    """Noise contrastive alignment of a pair, arXiv:2402.05369 (its pairwise form; TRL's `nca_pair`).

    loss = −log σ(r(y_w)) − ½ log σ(−r(y_w)) − ½ log σ(−r(y_l)). It is least where r(y_w) = log 2, so the likelihood of
    the chosen response rises, and rises no further.

    >>> worked(NCAPair(beta=0.5))  # −log σ(0.25) − ½ log σ(−0.25) − ½ log σ(0.75)
    1.1823
    """

    name: ClassVar[str] = "nca_pair"

    def _loss(self, chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
        return -F.logsigmoid(chosen) - F.logsigmoid(-chosen) / 2 - F.logsigmoid(-rejected) / 2


@dataclass(frozen=True, slots=True, repr=False)
class BCOPair(PerResponse):
    """Binary classifier optimisation, arXiv:2404.04656: either response classified by the sign of its reward.

    loss = −log σ(r(y_w)) − log σ(−r(y_l)). As in TRL 1.16, the paper's shift of both rewards by their running mean δ is
    left out (δ = 0): the loss depends on the pair alone.

    >>> worked(BCOPair(beta=0.5))  # −log σ(0.25) − log σ(0.75)
    0.9628
    """

    name: ClassVar[str] = "bco_pair"

    def _loss(self, chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
        return -F.logsigmoid(chosen) - F.logsigmoid(-rejected)


@dataclass(frozen=True, slots=True, repr=False)
class SPPOHard(LossBase):
    """Self-play preference optimisation, arXiv:2405.00675, eq. 4.7, with a win probability of 1 or 0 (TRL's name).

    loss = (Δ(y_w) − 1/(2β))² + (Δ(y_l) + 1/(2β))²; 1/β is the paper's η. The paper estimates win probabilities by a
    preference model and samples both responses from the policy.

    >>> worked(SPPOHard(beta=0.5))  # (0.5 − 1)² + (−1.5 + 1)²
    0.5
    """

    name: ClassVar[str] = "sppo_hard"
    beta: float = 0.1

    def __post_init__(self) -> None:
        self._above_zero("beta")

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        """Return the loss and β Δ of either response as its reward."""
        ratios, wanted = log_ratios(policy, reference), 1 / (2 * self.beta)
        return ratios.rewarded(self.beta, (ratios.chosen - wanted).square() + (ratios.rejected + wanted).square())


@dataclass(frozen=True, slots=True, repr=False)
class APOZero(PerResponse):
    """Anchored preference optimisation, arXiv:2408.06266, eq. 7: the chosen response rises, the rejected one falls.

    loss = [1 − σ(r(y_w))] + σ(r(y_l)). For chosen responses that are better than what the model would answer.

    >>> worked(APOZero(beta=0.5))  # 1 − σ(0.25) + σ(−0.75)
    0.7586
    """

    name: ClassVar[str] = "apo_zero"

    def _loss(self, chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
        # 1 − σ(x) = σ(−x), without the rounding of the difference.
        return torch.sigmoid(-chosen) + torch.sigmoid(rejected)


@dataclass(frozen=True, slots=True, repr=False)
class APODown(PerResponse):
    """Anchored preference optimisation, arXiv:2408.06266, eq. 8: both responses fall, the rejected one further.

    loss = σ(r(y_w)) + [1 − σ(r(y_w) − r(y_l))]. For chosen responses that are worse than what the model would answer.

    >>> worked(APODown(beta=0.5))  # σ(0.25) + 1 − σ(1)
    0.8311
    """

    name: ClassVar[str] = "apo_down"

    def _loss(self, chosen: torch.Tensor, rejected: torch.Tensor) -> torch.Tensor:
        return torch.sigmoid(chosen) + torch.sigmoid(rejected - chosen)
