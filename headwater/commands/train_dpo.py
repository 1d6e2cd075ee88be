"""Train a policy on preference pairs by DPO or a variant, against a frozen copy of itself or another reference."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from headwater.commands._flags import TRAINING_HELP
from headwater.config import build
from headwater.errors import UsageError
from headwater.training.options import TrainingConfig

EXAMPLE = 'headwater train-dpo cut.jsonl --output runs/dpo --model runs/sft --loss "dpo(beta=0.1)"'

LEARNING_RATE = 1e-6
LEARNING_RATES = {"simpo": 5e-7, "orpo": 5e-6}
"""Default learning rates of other losses: within the 3e-7 to 1e-6 of SimPO, and that of ORPO for a base model."""
HELP = TRAINING_HELP | {"Model": ("model", "reference", "lora_r", "freeze_layers")}


@dataclass(frozen=True, kw_only=True)
class Config(TrainingConfig):
    """Flags of `headwater train-dpo`."""

    model: str = "scratch(hidden=256, layers=4)"
    """Policy to train: Hugging Face name or path, or scratch(hidden=…, layers=…, vocab=…) for random weights."""
    reference: str | None = None
    """Reference model: a training run, path or Hugging Face name, with the vocabulary of the policy. Default: the
    policy as it is before training."""
    loss: str = "dpo(beta=0.1)"
    """Loss function. beta in dpo(beta=…) is the strength of the KL penalty; larger keeps the policy closer to the
    reference. docs/losses.md describes all losses.

    With a reference: dpo, robust, ipo, ipo_sum, hinge, r_dpo, dpop, rpo, rpo_sum, wpo, f_dpo, exo_pair, discopop,
    nca_pair, bco_pair, sppo_hard, apo_zero, apo_down, aot, aot_unpaired. For data with scores: rpo_sq, rpo_bwd_kl,
    rpo_fwd_kl, bees. Without a reference: simpo, orpo, cpo, slic. With the reference in memory during
    training: tdpo1, tdpo2, kto. A weighted sum: mix(dpo()*0.8 + sft()*0.2). A function of your own: module:name."""
    weights: str = "uniform()"
    """Weight of every token in the loss: uniform(), first(tokens=…), decay(gamma=…), tail(alpha=…), down_sample() or
    mean()."""


def run(config: Config) -> Path:
    """Train a policy and return its run directory; the reference's log-probabilities are computed once, before."""
    from headwater.forward.scores import score_for
    from headwater.losses import LIVE_REFERENCE_LOSSES, POLICY_LOSSES, loss_of
    from headwater.losses.token_weights import WEIGHTS
    from headwater.training.run import train
    from headwater.training.task import TrainingTask

    weights = build(config.weights, WEIGHTS, "weights")
    losses = POLICY_LOSSES | LIVE_REFERENCE_LOSSES
    loss = loss_of(config.loss, losses)
    if config.reference is not None and not loss.needs_reference:
        raise UsageError(f"--reference {config.reference}", f"has no effect: {loss!r} has none", "leave it out")
    rate = LEARNING_RATES.get(loss.name, LEARNING_RATE)
    task = TrainingTask("train-dpo", loss.name, "policy", losses, score_for(loss), rate, weights)
    return train(config, dataclasses.replace(task, reference=config.reference))
