"""Losses on the log-ratios of a pair against a reference model.

In every formula Δ(y) = log π(y) − log π_ref(y), h = Δ(y_w) − Δ(y_l), y_w is the chosen response, y_l the rejected one
and |y| a number of tokens. log π is a sum over tokens, weighted where there are token weights
(losses/token_weights.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, NamedTuple

import torch
import torch.nn.functional as F

from headwater.losses.types import LossBase, PairLoss, PairScores


class LogRatios(NamedTuple):
    """Δ of either response, each [pairs]."""

    chosen: torch.Tensor
    rejected: torch.Tensor

    @property
    def margin(self) -> torch.Tensor:
        """Return h."""
        return self.chosen - self.rejected

    def rewarded(self, beta: float, loss: torch.Tensor) -> PairLoss:
        """Return a loss with the implicit rewards β Δ."""
        return PairLoss(loss, (beta * self.chosen).detach(), (beta * self.rejected).detach())


def log_ratios(policy: PairScores, reference: PairScores | None) -> LogRatios:
    """Return Δ of either response."""
    assert reference is not None
    return LogRatios(
        policy.chosen.value - reference.chosen.value,
        policy.rejected.value - reference.rejected.value,
    )


def logistic(margin: torch.Tensor, flipped: float = 0.0) -> torch.Tensor:
    """Return −(1 − ε) log σ(margin) − ε log σ(−margin), with ε = `flipped`."""
    loss = -(1 - flipped) * F.logsigmoid(margin)
    return loss - flipped * F.logsigmoid(-margin) if flipped else loss


def coins_kl(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the KL divergence of two Bernoulli distributions with log-odds `a` and `b`."""
    heads = a.sigmoid() * (F.logsigmoid(a) - F.logsigmoid(b))
    return heads + (-a).sigmoid() * (F.logsigmoid(-a) - F.logsigmoid(-b))


@dataclass(frozen=True, slots=True, repr=False)
class DPO(LossBase):
    """Direct preference optimisation, arXiv:2305.18290, eq. 7; smoothed cDPO (Mitchell's note of 2023, eq. 3).

    loss = −(1 − ε) log σ(β h) − ε log σ(−β h),  ε = label_smoothing: the assumed share of wrong labels.

    >>> worked(DPO(beta=0.5))  # −log σ(0.5 · 2)
    0.3133
    """

    name: ClassVar[str] = "dpo"
    beta: float = 0.1
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        self._above_zero("beta")
        self._below_half("label_smoothing")

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        """Return the loss and β Δ of either response as its reward."""
        ratios = log_ratios(policy, reference)
        return ratios.rewarded(self.beta, logistic(self.beta * ratios.margin, self.label_smoothing))


@dataclass(frozen=True, slots=True, repr=False)
class RobustDPO(LossBase):
    """DPO whose expectation over labels flipped at rate ε is that on clean labels: rDPO, arXiv:2403.00409.

    loss = [−(1 − ε) log σ(β h) + ε log σ(−β h)] / (1 − 2ε),  ε = label_smoothing. It has no lower bound.

    >>> worked(RobustDPO(beta=0.5, label_smoothing=0.1))  # [−0.9 log σ(1) + 0.1 log σ(−1)] / 0.8
    0.1883
    """

    name: ClassVar[str] = "robust"
    beta: float = 0.1
    label_smoothing: float = 0.1

    def __post_init__(self) -> None:
        self._above_zero("beta")
        self._below_half("label_smoothing")

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        """Return the loss and β Δ of either response as its reward."""
        ratios = log_ratios(policy, reference)
        margin, flipped = self.beta * ratios.margin, self.label_smoothing
        loss = (flipped * F.logsigmoid(-margin) - (1 - flipped) * F.logsigmoid(margin)) / (1 - 2 * flipped)
        return ratios.rewarded(self.beta, loss)


@dataclass(frozen=True, slots=True, repr=False)
class IPO(LossBase):
    """Identity preference optimisation, arXiv:2310.12036, eq. 17, on log-ratios a token; β is the paper's τ.

    loss = (Δ(y_w)/|y_w| − Δ(y_l)/|y_l| − 1/(2β))². The paper does not say that Δ is averaged; its authors confirmed
    it to TRL, whose `ipo` this is.

    >>> worked(IPO(beta=0.5))  # (0.5/4 + 1.5/2 − 1)²
    0.0156
    """

    name: ClassVar[str] = "ipo"
    beta: float = 0.1

    def __post_init__(self) -> None:
        self._above_zero("beta")

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        """Return the loss and β Δ / |y| of either response as its reward."""
        assert reference is not None
        ratios = LogRatios(
            policy.chosen.mean - reference.chosen.mean,
            policy.rejected.mean - reference.rejected.mean,
        )
        return ratios.rewarded(self.beta, (ratios.margin - 1 / (2 * self.beta)).square())


@dataclass(frozen=True, slots=True, repr=False)
class IPOSum(LossBase):
    """IPO as it is written, arXiv:2310.12036, eq. 17: loss = (h − 1/(2β))², log-ratios summed; β is the paper's τ.

    The first public DPO code and OpenRLHF do this.

    >>> worked(IPOSum(beta=0.5))  # (2 − 1)²
    1.0
    """

    name: ClassVar[str] = "ipo_sum"
    beta: float = 0.1

    def __post_init__(self) -> None:
        self._above_zero("beta")

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        """Return the loss and β Δ of either response as its reward."""
        ratios = log_ratios(policy, reference)
        return ratios.rewarded(self.beta, (ratios.margin - 1 / (2 * self.beta)).square())


@dataclass(frozen=True, slots=True, repr=False)
class Hinge(LossBase):
    """The hinge of SLiC on DPO's margin: loss = max(0, 1 − β h), arXiv:2309.06657 (there with normalised SLiC).

    >>> worked(Hinge(beta=0.3))  # 1 − 0.3 · 2
    0.4
    """

    name: ClassVar[str] = "hinge"
    beta: float = 0.1

    def __post_init__(self) -> None:
        self._above_zero("beta")

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        """Return the loss and β Δ of either response as its reward."""
        ratios = log_ratios(policy, reference)
        return ratios.rewarded(self.beta, torch.relu(1 - self.beta * ratios.margin))


@dataclass(frozen=True, slots=True, repr=False)
class RDPO(LossBase):
    """DPO with a length penalty in the reward: R-DPO, arXiv:2403.19159.

    loss = −log σ(β h + α (|y_w| − |y_l|)). The reward is β Δ + α |y|, so that the policy need not learn what length
    alone explains.

    >>> worked(RDPO(beta=0.5, alpha=0.2))  # −log σ(1 + 0.2 (4 − 2))
    0.2204
    """

    name: ClassVar[str] = "r_dpo"
    beta: float = 0.1
    alpha: float = 0.01

    def __post_init__(self) -> None:
        self._above_zero("beta")
        self._not_negative("alpha")

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        """Return the loss and β Δ of either response as its reward: that of the policy, without the length."""
        ratios = log_ratios(policy, reference)
        longer = (policy.chosen.tokens - policy.rejected.tokens).to(ratios.margin.dtype)
        return ratios.rewarded(self.beta, logistic(self.beta * ratios.margin + self.alpha * longer))


@dataclass(frozen=True, slots=True, repr=False)
class DPOP(LossBase):
    """DPO-positive (Smaug), arXiv:2402.13228: penalises a chosen response less likely than under the reference.

    loss = −log σ(β (h − λ max(0, −Δ(y_w)))),  λ = penalty.

    >>> worked(DPOP(beta=0.5, penalty=3))  # −log σ(1): the chosen response did not lose
    0.3133
    """

    name: ClassVar[str] = "dpop"
    beta: float = 0.1
    penalty: float = 50.0

    def __post_init__(self) -> None:
        self._above_zero("beta")
        self._not_negative("penalty")

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        """Return the loss and β Δ of either response as its reward."""
        ratios = log_ratios(policy, reference)
        fallen = torch.relu(-ratios.chosen)
        return ratios.rewarded(self.beta, logistic(self.beta * (ratios.margin - self.penalty * fallen)))


@dataclass(frozen=True, slots=True, repr=False)
class RPO(LossBase):
    """DPO that also fits the chosen response: iterative reasoning PO, arXiv:2404.19733, eq. 1.

    loss = −log σ(β h) − α log π(y_w) / |y_w|.

    >>> worked(RPO(beta=0.5, alpha=2))  # −log σ(1) + 2 · 1/4
    0.8133
    """

    name: ClassVar[str] = "rpo"
    beta: float = 0.1
    alpha: float = 1.0

    def __post_init__(self) -> None:
        self._above_zero("beta")
        self._not_negative("alpha")

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        """Return the loss and β Δ of either response as its reward."""
        ratios = log_ratios(policy, reference)
        return ratios.rewarded(self.beta, logistic(self.beta * ratios.margin) - self.alpha * policy.chosen.mean)


@dataclass(frozen=True, slots=True, repr=False)
class RPOSum(LossBase):
    """DPO with the likelihood of the chosen response as a regulariser: regularised PO, arXiv:2405.16436.

    loss = −log σ(β h) − η log π(y_w), summed over tokens.

    >>> worked(RPOSum(beta=0.5, eta=2))  # −log σ(1) + 2 · 1
    2.3133
    """

    name: ClassVar[str] = "rpo_sum"
    beta: float = 0.01
    eta: float = 0.005

    def __post_init__(self) -> None:
        self._above_zero("beta")
        self._not_negative("eta")

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        """Return the loss and β Δ of either response as its reward."""
        ratios = log_ratios(policy, reference)
        return ratios.rewarded(self.beta, logistic(self.beta * ratios.margin) - self.eta * policy.chosen.value)


@dataclass(frozen=True, slots=True, repr=False)
class WPO(LossBase):
    """DPO weighted by how likely the policy itself is to generate the pair: WPO, arXiv:2406.11827, eq. 2.

    loss = −w(y_w) w(y_l) log σ(β h),  w(y) = exp(1/|y| Σ_t [log π(y_t) − log Σ_v π(v)²]), detached. As in TRL, the
    product is not capped at 1; the authors' code caps it.

    >>> worked(WPO(beta=0.5))  # −e^(−0.1 − 0.1) log σ(1)
    0.2565
    """

    name: ClassVar[str] = "wpo"
    needs: ClassVar[frozenset[str]] = frozenset({"self_likelihood"})
    beta: float = 0.1

    def __post_init__(self) -> None:
        self._above_zero("beta")

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        """Return the loss and β Δ of either response as its reward."""
        assert policy.chosen.self_likelihood is not None
        assert policy.rejected.self_likelihood is not None
        ratios = log_ratios(policy, reference)
        weight = (policy.chosen.self_likelihood + policy.rejected.self_likelihood).exp().detach()
        return ratios.rewarded(self.beta, weight * logistic(self.beta * ratios.margin))


@dataclass(frozen=True, slots=True, repr=False)
class DiscoPOP(LossBase):
    """The loss that a search by a language model found: DiscoPOP, arXiv:2406.08414, eq. 5.

    loss = −(1 − w) log σ(β h) + w exp(−β h),  w = σ(β h/τ). At the reference its gradient lowers the margin for small τ
    (0.05 is the paper's): it has a local minimum at β h of about −0.1.

    >>> worked(DiscoPOP(beta=0.5, tau=0.5))  # −σ(−2) log σ(1) + σ(2) e^−1
    0.3614
    """

    name: ClassVar[str] = "discopop"
    beta: float = 0.05
    tau: float = 0.05

    def __post_init__(self) -> None:
        self._above_zero("beta")
        self._require("tau", 0 < self.tau <= 1, "above 0 and at most 1, beyond which the exponential overflows")

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        """Return the loss and β Δ of either response as its reward."""
        ratios = log_ratios(policy, reference)
        margin = self.beta * ratios.margin
        # w exp(−x) as one exponential: exp(−x) alone overflows where w is 0.
        exponential = (F.logsigmoid(margin / self.tau) - margin).exp()
        return ratios.rewarded(self.beta, exponential - torch.sigmoid(-margin / self.tau) * F.logsigmoid(margin))
