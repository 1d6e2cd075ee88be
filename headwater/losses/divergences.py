"""DPO with another divergence: from the reference (f-DPO), or between the two preference distributions (EXO).

The notation is that of pairwise.py; t = π/π_ref of a response, so that Δ = log t.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from headwater.errors import UsageError
from headwater.losses.pairwise import LogRatios, coins_kl, log_ratios, logistic
from headwater.losses.types import LossBase, PairLoss, PairScores

DIVERGENCES = ("reverse_kl", "forward_kl", "js", "alpha")
LARGEST_EXPONENT = 60.0
"""Beyond it, exp continues as its tangent: float32 ends at exp(88), and a sum of gradients before."""


@dataclass(frozen=True, slots=True, repr=False)
class FDPO(LossBase):
    """DPO under another f-divergence from the reference: f-DPO, arXiv:2309.16240, eq. 9 and table 1.

    loss = −log σ(β f′(t_w) − β f′(t_l)), f′(t) = log t (reverse_kl: DPO), −1/t (forward_kl), log 2t/(1 + t) (js), or
    (1 − t^−α)/α (alpha, 0 < α < 1; towards 0 it is reverse_kl, towards 1 forward_kl). TRL's `f_alpha_divergence_coef`
    is 1 − α.

    >>> worked(FDPO(beta=0.5, divergence="forward_kl"))  # −log σ(0.5 (e^1.5 − e^−0.5))
    0.1346
    """

    name: ClassVar[str] = "f_dpo"
    beta: float = 0.1
    divergence: str = "js"
    alpha: float = 0.5

    def __post_init__(self) -> None:
        self._above_zero("beta")
        self._require("alpha", 0 < self.alpha < 1, "between 0 and 1 (reverse_kl and forward_kl)")
        if self.divergence not in DIVERGENCES:
            raise UsageError(f"{self.name}(divergence={self.divergence!r})", f"expected {', '.join(DIVERGENCES)}")

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        """Return the loss and β f′(t) of either response as its reward."""
        ratios = log_ratios(policy, reference)
        slopes = LogRatios(self._slope(ratios.chosen), self._slope(ratios.rejected))
        return slopes.rewarded(self.beta, logistic(self.beta * slopes.margin))

    def _slope(self, log_t: torch.Tensor) -> torch.Tensor:
        """Return f′(t), without its constant."""
        if self.divergence == "forward_kl":
            return -_exp(-log_t)
        if self.divergence == "js":
            return math.log(2) + F.logsigmoid(log_t)
        if self.divergence == "alpha":
            return (1 - _exp(-self.alpha * log_t)) / self.alpha
        return log_t


def _exp(x: torch.Tensor) -> torch.Tensor:
    """Return exp(x), beyond `LARGEST_EXPONENT` its tangent there."""
    inside = x.clamp(max=LARGEST_EXPONENT)
    return inside.exp() + math.exp(LARGEST_EXPONENT) * (x - inside)


@dataclass(frozen=True, slots=True, repr=False)
class EXOPair(LossBase):
    """Efficient exact optimisation of a pair, arXiv:2402.00856, eq. 16: KL from the policy's preference to the data's.

    loss = KL(σ(β h) ‖ 1 − ε) of Bernoulli distributions, ε = label_smoothing above 0: the data prefers the chosen
    response with probability 1 − ε.

    >>> worked(EXOPair(beta=0.5, label_smoothing=0.1))  # KL(σ(1) ‖ 0.9)
    0.1141
    """

    name: ClassVar[str] = "exo_pair"
    beta: float = 0.1
    label_smoothing: float = 0.001

    def __post_init__(self) -> None:
        self._above_zero("beta", "label_smoothing")
        self._below_half("label_smoothing")

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        """Return the loss and β Δ of either response as its reward."""
        ratios = log_ratios(policy, reference)
        wanted = ratios.margin.new_tensor(math.log1p(-self.label_smoothing) - math.log(self.label_smoothing))
        return ratios.rewarded(self.beta, coins_kl(self.beta * ratios.margin, wanted))
