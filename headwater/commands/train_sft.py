"""Fine-tune a policy on chosen responses, or on demonstrations, the usual first step before DPO."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from headwater.commands._flags import TRAINING_HELP
from headwater.config import POSITIONAL
from headwater.training.options import TrainingConfig

EXAMPLE = 'headwater train-sft pairs.jsonl --output runs/sft --model "scratch(hidden=256, layers=4)"'
HELP = TRAINING_HELP


@dataclass(frozen=True, kw_only=True)
class Config(TrainingConfig):
    """Flags of `headwater train-sft`."""

    data: Annotated[Path, POSITIONAL]
    """Preference pairs, of which the chosen responses are trained on: a file, directory, pattern, run, or name on
    the hub."""
    loss: str = "sft()"
    """Loss function: sft(), the mean negative log-likelihood of a token."""


def run(config: Config) -> Path:
    """Fine-tune a policy and return its run directory."""
    from headwater.forward.scores import policy_scores
    from headwater.losses import SFT
    from headwater.training.run import train
    from headwater.training.task import TrainingTask

    return train(
        config, TrainingTask("train-sft", "sft", "policy", {"sft": SFT}, policy_scores, 2e-5, watched="eval_loss")
    )
