"""Losses without a reference model.

log p̄(y) = log π(y) / |y| is the log-probability a token; the rest of the notation is that of pairwise.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from headwater.losses.pairwise import logistic
from headwater.losses.types import LossBase, PairLoss, PairScores


@dataclass(frozen=True, slots=True, repr=False)
class SimPO(LossBase):
    """Simple preference optimisation, arXiv:2405.14734, eq. 6.

    loss = −log σ(β log p̄(y_w) − β log p̄(y_l) − γ).

    >>> worked(SimPO(beta=2, gamma=0.5))  # −log σ(2 (−1/4 + 3/2) − 0.5)
    0.1269
    """

    name: ClassVar[str] = "simpo"
    needs_reference: ClassVar[bool] = False
    beta: float = 2.0
    gamma: float = 1.0

    def __post_init__(self) -> None:
        self._above_zero("beta")
        self._not_negative("gamma")

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        """Return the loss and β log p̄ of either response as its reward."""
        chosen, rejected = self.beta * policy.chosen.mean, self.beta * policy.rejected.mean
        return PairLoss(logistic(chosen - rejected - self.gamma), chosen.detach(), rejected.detach())


@dataclass(frozen=True, slots=True, repr=False)
class ORPO(LossBase):
    """Odds-ratio preference optimisation, arXiv:2403.07691, eq. 6 and 7; β is the paper's λ.

    loss = −log p̄(y_w) − β log σ(log [odds(y_w) / odds(y_l)]),  odds = p̄ / (1 − p̄).

    >>> worked(ORPO(beta=0.1))  # 1/4 − 0.1 log σ(1.2587 + 1.2475)
    0.2578
    """

    name: ClassVar[str] = "orpo"
    needs_reference: ClassVar[bool] = False
    beta: float = 0.1

    def __post_init__(self) -> None:
        self._above_zero("beta")

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        """Return the loss and β log p̄ of either response as its reward."""
        chosen, rejected = policy.chosen.mean, policy.rejected.mean
        loss = self.beta * logistic(log_odds(chosen) - log_odds(rejected)) - chosen
        return PairLoss(loss, (self.beta * chosen).detach(), (self.beta * rejected).detach())


def log_odds(log_p: torch.Tensor) -> torch.Tensor:
    """Return log p − log(1 − p), accurate for p near 1; log p above −ε of its precision is clamped to −ε."""
    below_one = log_p.clamp(max=-torch.finfo(log_p.dtype).eps)
    return below_one - torch.log(-torch.expm1(below_one))


@dataclass(frozen=True, slots=True, repr=False)
class CPO(LossBase):
    """Contrastive preference optimisation, arXiv:2401.08417: DPO against a uniform reference, fitting the chosen one.

    loss = −log σ(β [log π(y_w) − log π(y_l)]) − α log p̄(y_w). The paper writes log π(y_w); its authors' code takes
    the mean over tokens, and so does this.

    >>> worked(CPO(beta=0.5, alpha=2))  # −log σ(0.5 · 2) + 2 · 1/4
    0.8133
    """

    name: ClassVar[str] = "cpo"
    needs_reference: ClassVar[bool] = False
    beta: float = 0.1
    alpha: float = 1.0

    def __post_init__(self) -> None:
        self._above_zero("beta")
        self._not_negative("alpha")

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        """Return the loss and β log π of either response as its reward."""
        chosen, rejected = self.beta * policy.chosen.value, self.beta * policy.rejected.value
        loss = logistic(chosen - rejected) - self.alpha * policy.chosen.mean
        return PairLoss(loss, chosen.detach(), rejected.detach())


@dataclass(frozen=True, slots=True, repr=False)
class SLiC(LossBase):
    """Sequence likelihood calibration, arXiv:2305.10425: a rank hinge, and a regulariser on the chosen response.

    loss = max(0, δ − log π(y_w) + log π(y_l)) − α log π(y_w),  δ = delta, in nats.

    >>> worked(SLiC(delta=5, alpha=0.1))  # 5 + 1 − 3 + 0.1 · 1
    3.1
    """

    name: ClassVar[str] = "slic"
    needs_reference: ClassVar[bool] = False
    delta: float = 1.0
    alpha: float = 0.1

    def __post_init__(self) -> None:
        self._above_zero("delta")
        self._not_negative("alpha")

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        """Return the loss and log π of either response as its reward."""
        chosen, rejected = policy.chosen.value, policy.rejected.value
        loss = torch.relu(self.delta - chosen + rejected) - self.alpha * chosen
        return PairLoss(loss, chosen.detach(), rejected.detach())


@dataclass(frozen=True, slots=True, repr=False)
class SFT(LossBase):
    """Supervised fine-tuning on the chosen response: loss = −log p̄(y_w). A row may hold no rejected one.

    >>> worked(SFT())  # 1/4
    0.25
    """

    name: ClassVar[str] = "sft"
    needs_reference: ClassVar[bool] = False
    takes_unpaired: ClassVar[bool] = True

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        """Return the loss and log p̄ of either response; the rejected one is only recorded."""
        chosen, rejected = policy.chosen.mean, policy.rejected.mean
        return PairLoss(-chosen, chosen.detach(), rejected.detach())
