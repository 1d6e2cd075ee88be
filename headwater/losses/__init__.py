"""Losses: pure functions from the scores of a pair to a loss. ★ A newcomer adds a loss here.

A loss is a frozen dataclass and a pure function of typed scores; its constructor call is its configuration
(`dpo(beta=0.1)`). It depends on no model, batch or device. Every loss returns one value a pair; the trainer averages
over pairs. In a notebook, any callable of this shape is a loss (`Loss`):

    class Linear:
        needs_reference = True
        def __call__(self, policy, reference):
            chosen = policy.chosen.value - reference.chosen.value
            rejected = policy.rejected.value - reference.rejected.value
            return PairLoss(rejected - chosen, chosen.detach(), rejected.detach())

`mix(dpo()*0.8 + sft()*0.2)` is a weighted sum of losses (mixture.py); `loss_of` reads a loss from its text.

Every docstring computes its loss by hand for the pair of `worked.py`; `docs/losses.md` compares the losses.
Length-normalised DPO, D²PO, LD-DPO and SamPO are DPO with token weights (losses/token_weights.py), which combine with
every loss on log-probabilities.
"""

from __future__ import annotations

from headwater.losses.divergences import FDPO, EXOPair
from headwater.losses.live_reference import KTO, TDPO1, TDPO2
from headwater.losses.mixture import Mix
from headwater.losses.naming import loss_of
from headwater.losses.pairwise import DPO, DPOP, IPO, RDPO, RPO, WPO, DiscoPOP, Hinge, IPOSum, RobustDPO, RPOSum
from headwater.losses.per_response import APODown, APOZero, BCOPair, NCAPair, SPPOHard
from headwater.losses.reference_free import CPO, ORPO, SFT, SimPO, SLiC
from headwater.losses.rewards import BradleyTerry, LengthBradleyTerry, MarginBradleyTerry
from headwater.losses.score_aware import BeeS, RPOBackwardKL, RPOForwardKL, RPOSquared
from headwater.losses.sorted_batch import AOT, AOTUnpaired, SortedBatch
from headwater.losses.types import COMPUTED, MEANINGS, Loss, LossBase, PairLoss, PairScores, Score

__all__ = [
    "AOT",
    "COMPUTED",
    "CPO",
    "DPO",
    "DPOP",
    "FDPO",
    "IPO",
    "KTO",
    "LIVE_REFERENCE_LOSSES",
    "MEANINGS",
    "ORPO",
    "POLICY_LOSSES",
    "RDPO",
    "REWARD_LOSSES",
    "RPO",
    "SFT",
    "TDPO1",
    "TDPO2",
    "WPO",
    "AOTUnpaired",
    "APODown",
    "APOZero",
    "BCOPair",
    "BeeS",
    "BradleyTerry",
    "DiscoPOP",
    "EXOPair",
    "Hinge",
    "IPOSum",
    "LengthBradleyTerry",
    "Loss",
    "LossBase",
    "MarginBradleyTerry",
    "Mix",
    "NCAPair",
    "PairLoss",
    "PairScores",
    "RPOBackwardKL",
    "RPOForwardKL",
    "RPOSquared",
    "RPOSum",
    "RobustDPO",
    "SLiC",
    "SPPOHard",
    "Score",
    "SimPO",
    "SortedBatch",
    "loss_of",
]

POLICY_LOSSES: dict[str, type[LossBase]] = {
    loss.name: loss
    for loss in (
        *(DPO, RobustDPO, IPO, IPOSum, Hinge, RDPO, DPOP, RPO, RPOSum, WPO),
        *(FDPO, EXOPair, DiscoPOP, NCAPair, BCOPair, SPPOHard, APOZero, APODown, AOT, AOTUnpaired),
        *(RPOSquared, RPOBackwardKL, RPOForwardKL, BeeS),
        *(SimPO, ORPO, CPO, SLiC),
    )
}
"""Losses on the log-probabilities of a pair under a policy."""

LIVE_REFERENCE_LOSSES: dict[str, type[LossBase]] = {loss.name: loss for loss in (TDPO1, TDPO2, KTO)}
"""Losses that evaluate the reference model at every step."""

REWARD_LOSSES: dict[str, type[LossBase]] = {
    loss.name: loss for loss in (BradleyTerry, MarginBradleyTerry, LengthBradleyTerry)
}
"""Losses on the scores of a reward model."""
