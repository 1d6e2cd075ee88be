"""Train a policy on preferences directly, against a frozen copy of itself as the reference."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from headwater.commands._flags import TRAINING_HELP
from headwater.config import build
from headwater.training.options import TrainingConfig

EXAMPLE = 'headwater train-dpo --data cut.jsonl --output runs/dpo --model runs/sft --loss "dpo(beta=0.1)"'

LEARNING_RATE = 1e-6
LEARNING_RATES = {"simpo": 5e-7, "orpo": 5e-6}
"""Where a loss wants another rate: within SimPO's range of 3e-7 to 1e-6, and ORPO's recipe for a base model."""
HELP = TRAINING_HELP


@dataclass(frozen=True, kw_only=True)
class Config(TrainingConfig):
    """Flags of `headwater train-dpo`."""

    model: str = "scratch(hidden=256, layers=4)"
    """Hugging Face name or path, or scratch(hidden=…, layers=…, vocab=…): random weights. Also the reference."""
    loss: str = "dpo(beta=0.1)"
    """dpo(beta=…): beta is how dear it is to leave the reference. All others, in docs/losses.md with their settings:
    against a reference robust, ipo, ipo_sum, hinge, r_dpo, dpop, rpo, rpo_sum, wpo;
    with scores in the data rpo_sq, rpo_bwd_kl, rpo_fwd_kl, bees; without a reference simpo, orpo, cpo, slic;
    with the reference beside the model in memory tdpo1, tdpo2, kto."""
    weights: str = "uniform()"
    """How much each token counts: uniform(), first(tokens=…), decay(gamma=…), tail(alpha=…), down_sample(), mean()."""


def run(config: Config) -> Path:
    """Train a policy and return its run directory; the reference's log-probabilities are computed once, before."""
    from headwater.forward.scores import score_for
    from headwater.losses import LIVE_REFERENCE_LOSSES, POLICY_LOSSES
    from headwater.losses.token_weights import WEIGHTS
    from headwater.training.run import train
    from headwater.training.task import TrainingTask

    weights = build(config.weights, WEIGHTS, "weights")
    losses = POLICY_LOSSES | LIVE_REFERENCE_LOSSES
    loss = build(config.loss, losses, "loss")
    rate = LEARNING_RATES.get(loss.name, LEARNING_RATE)
    return train(config, TrainingTask("train-dpo", loss.name, "policy", losses, score_for(loss), rate, weights))
