"""Losses that evaluate the reference model at every step, not only its stored log-probabilities.

TDPO compares whole next-token distributions; KTO needs both models' log-probabilities of responses to other prompts.
The notation is that of pairwise.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from headwater.losses.pairwise import LogRatios, log_ratios, logistic
from headwater.losses.types import LossBase, PairLoss, PairScores

BALANCED = (1.0, 4 / 3)
"""Recommended range of λ_D n_D / (λ_U n_U), the relative weight of all desirable responses: arXiv:2402.01306, eq. 8."""
DIVERGENCE: frozenset[str] = frozenset({"divergence"})


def _divergences(policy: PairScores) -> LogRatios:
    assert policy.chosen.divergence is not None
    assert policy.rejected.divergence is not None
    return LogRatios(policy.chosen.divergence, policy.rejected.divergence)


def _rewarded(beta: float, ratios: LogRatios, kl: LogRatios, loss: torch.Tensor) -> PairLoss:
    """Return a loss with TDPO's rewards, β (Δ + D)."""
    return LogRatios(ratios.chosen + kl.chosen, ratios.rejected + kl.rejected).rewarded(beta, loss)


@dataclass(frozen=True, slots=True, repr=False)
class TDPO1(LossBase):
    """Token-level DPO, arXiv:2404.11999: DPO with the divergence along either response.

    loss = −log σ(β h − β [D(y_l) − D(y_w)]),  D(y) = Σ_t KL(π_ref(·|x, y_<t) ‖ π(·|x, y_<t)).

    >>> worked(TDPO1(beta=0.5))  # −log σ(1 − 0.5 (0.5 − 0.3))
    0.3412
    """

    name: ClassVar[str] = "tdpo1"
    needs: ClassVar[frozenset[str]] = DIVERGENCE
    beta: float = 0.1

    def __post_init__(self) -> None:
        self._above_zero("beta")

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        """Return the loss and β (Δ + D) of either response as its reward."""
        ratios, kl = log_ratios(policy, reference), _divergences(policy)
        return _rewarded(self.beta, ratios, kl, logistic(self.beta * (ratios.margin + kl.margin)))


@dataclass(frozen=True, slots=True, repr=False)
class TDPO2(LossBase):
    """Token-level DPO, arXiv:2404.11999, with the chosen response's divergence as a constant, and a weight.

    loss = −log σ(β h − α β [D(y_l) − sg D(y_w)]),  sg: no gradient.

    >>> worked(TDPO2(beta=0.5, alpha=0.25))  # −log σ(1 − 0.25 · 0.5 (0.5 − 0.3))
    0.32
    """

    name: ClassVar[str] = "tdpo2"
    needs: ClassVar[frozenset[str]] = DIVERGENCE
    beta: float = 0.1
    alpha: float = 0.5

    def __post_init__(self) -> None:
        self._above_zero("beta")
        self._not_negative("alpha")

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        """Return the loss and β (Δ + D) of either response as its reward."""
        ratios, kl = log_ratios(policy, reference), _divergences(policy)
        excess = self.alpha * (kl.rejected - kl.chosen.detach())
        return _rewarded(self.beta, ratios, kl, logistic(self.beta * (ratios.margin - excess)))


@dataclass(frozen=True, slots=True, repr=False)
class KTO(LossBase):
    """Kahneman–Tversky optimisation, arXiv:2402.01306, eq. 7: a loss on single responses labelled desirable or not.

    Loss of a desirable response: λ_D (1 − σ(β [Δ − z])); of an undesirable one: λ_U (1 − σ(β [z − Δ])). The reference
    point is z = max(0, kl_estimate), detached, from responses to other prompts. λ_D = desirable_weight,
    λ_U = undesirable_weight. A row holds a desirable response, an undesirable one, or both (then the mean of the two).

    >>> worked(KTO(beta=0.5, desirable_weight=2, undesirable_weight=3))  # [2 σ(−0.15) + 3 σ(−0.85)] / 2
    0.9117
    """

    name: ClassVar[str] = "kto"
    needs: ClassVar[frozenset[str]] = frozenset({"kl_estimate"})
    takes_unpaired: ClassVar[bool] = True
    beta: float = 0.1
    desirable_weight: float = 1.0
    undesirable_weight: float = 1.0

    def __post_init__(self) -> None:
        self._above_zero("beta", "desirable_weight", "undesirable_weight")

    def balance(self, desirable: int, undesirable: int) -> float:
        """Return λ_D n_D / (λ_U n_U) for the numbers of responses of either label: eq. 8."""
        return self.desirable_weight * desirable / (self.undesirable_weight * undesirable)

    def advice(self, desirable: int, undesirable: int) -> str:
        """Describe how the two labels are weighted, and which weights would balance them."""
        balance = self.balance(desirable, undesirable)
        said = f"together, the desirable ones weigh {balance:.3g} times as much"
        if BALANCED[0] <= balance <= BALANCED[1]:
            return said
        rarer = "undesirable_weight" if balance > 1 else "desirable_weight"
        weight = getattr(self, rarer) * (balance if balance > 1 else 1 / balance)
        return f"{said} ({BALANCED[0]:g} to {BALANCED[1]:.3g} is advised: {rarer}={weight:.3g} makes it 1)"

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        """Return the loss and β Δ of either response as its reward; 0 for a response that a row does not have."""
        ratios = log_ratios(policy, reference)
        z = self._column("kl_estimate", policy).detach().clamp(min=0)
        # 1 − σ(x) = σ(−x), without the rounding of the difference.
        good = self.desirable_weight * torch.sigmoid(-self.beta * (ratios.chosen - z))
        bad = self.undesirable_weight * torch.sigmoid(-self.beta * (z - ratios.rejected))
        has_good, has_bad = policy.chosen.tokens > 0, policy.rejected.tokens > 0
        loss = (good * has_good + bad * has_bad) / (has_good.int() + has_bad.int())
        return ratios.rewarded(self.beta, loss)
