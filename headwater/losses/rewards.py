"""Losses on the scores of a reward model: r_w of the chosen response, r_l of the rejected one."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from headwater.losses.pairwise import logistic
from headwater.losses.types import LossBase, PairLoss, PairScores


@dataclass(frozen=True, slots=True, repr=False)
class BradleyTerry(LossBase):
    """Maximum likelihood under Bradley–Terry, arXiv:2203.02155, eq. 1, with a penalty that keeps rewards near 0.

    loss = −(1 − ε) log σ(r_w − r_l) − ε log σ(r_l − r_w) + center (r_w² + r_l²) / 2,  ε = label_smoothing. The
    difference alone does not determine the level of rewards. TRL's `center_rewards_coefficient` penalises
    (r_w + r_l)² instead (arXiv:2312.09244, eq. 2), under which opposite rewards may still grow.

    >>> worked(BradleyTerry(center=0.1))  # −log σ(−1 + 3) + 0.1 (1 + 9) / 2
    0.6269
    """

    name: ClassVar[str] = "bradley_terry"
    needs_reference: ClassVar[bool] = False
    center: float = 0.0
    label_smoothing: float = 0.0

    def __post_init__(self) -> None:
        self._not_negative("center")
        self._below_half("label_smoothing")

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        """Return the loss and the rewards themselves."""
        chosen, rejected = policy.chosen.value, policy.rejected.value
        loss = logistic(chosen - rejected, self.label_smoothing)
        return PairLoss(loss + _centred(self.center, policy), chosen.detach(), rejected.detach())


@dataclass(frozen=True, slots=True, repr=False)
class MarginBradleyTerry(LossBase):
    """Bradley–Terry with a margin from the data's score gap, arXiv:2307.09288, eq. 2.

    loss = −log σ(r_w − r_l − scale · δ) + center (r_w² + r_l²) / 2,  δ = score(y_w) − score(y_l) of the data.

    >>> worked(MarginBradleyTerry(scale=0.5, center=0.1))  # −log σ(2 − 0.5 · 0.8) + 0.1 (1 + 9) / 2
    0.6839
    """

    name: ClassVar[str] = "margin_bradley_terry"
    needs_reference: ClassVar[bool] = False
    needs: ClassVar[frozenset[str]] = frozenset({"score_gap"})
    scale: float = 1.0
    center: float = 0.0

    def __post_init__(self) -> None:
        self._above_zero("scale")
        self._not_negative("center")

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        """Return the loss and the rewards themselves."""
        chosen, rejected = policy.chosen.value, policy.rejected.value
        loss = logistic(chosen - rejected - self.scale * self._column("score_gap", policy))
        return PairLoss(loss + _centred(self.center, policy), chosen.detach(), rejected.detach())


@dataclass(frozen=True, slots=True, repr=False)
class LengthBradleyTerry(LossBase):
    """Bradley–Terry with a length term, so that the reward need not learn length: R-DPO (arXiv:2403.19159) for rewards.

    loss = −log σ(r_w − r_l + α (|y_w| − |y_l|)) + center (r_w² + r_l²) / 2, lengths in tokens. What the length term
    explains is not part of r, the model's output. α < 0 where shorter responses are preferred.

    >>> worked(LengthBradleyTerry(alpha=-0.2, center=0.1))  # −log σ(2 − 0.2 (4 − 2)) + 0.1 (1 + 9) / 2
    0.6839
    """

    name: ClassVar[str] = "length_bradley_terry"
    needs_reference: ClassVar[bool] = False
    alpha: float = 0.01
    center: float = 0.0

    def __post_init__(self) -> None:
        self._require("alpha", True, "finite")
        self._not_negative("center")

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        """Return the loss and the rewards themselves, without the length."""
        chosen, rejected = policy.chosen.value, policy.rejected.value
        longer = (policy.chosen.tokens - policy.rejected.tokens).to(chosen.dtype)
        loss = logistic(chosen - rejected + self.alpha * longer)
        return PairLoss(loss + _centred(self.center, policy), chosen.detach(), rejected.detach())


def _centred(center: float, scores: PairScores) -> torch.Tensor | float:
    return center * (scores.chosen.value.square() + scores.rejected.value.square()) / 2 if center else 0.0
