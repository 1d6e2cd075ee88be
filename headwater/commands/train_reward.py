"""Train a reward model on preference pairs: a model that gives the preferred response the higher reward."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from headwater.commands._flags import TRAINING_HELP
from headwater.errors import UsageError
from headwater.training.options import TrainingConfig

EXAMPLE = "headwater train-reward cut.jsonl --output runs/reward --model Qwen/Qwen2.5-0.5B-Instruct"
HELP = TRAINING_HELP


@dataclass(frozen=True, kw_only=True)
class Config(TrainingConfig):
    """Flags of `headwater train-reward`."""

    model: str = "scratch(hidden=256, layers=4)"
    """Model to train, causal or encoder: Hugging Face name or path; or scratch(hidden=…, layers=…, vocab=…),
    scratch_encoder(…) for random weights."""
    loss: str = "bradley_terry()"
    """Loss function, such as bradley_terry(center=0.0, label_smoothing=0.0); center keeps rewards near 0.

    For data with scores: margin_bradley_terry(scale=1.0, center=0.0). Against length bias:
    length_bradley_terry(alpha=0.01, center=0.0)."""
    length_balanced: bool = False
    """Drop training pairs until the preferred response is as often the longer one as the shorter one."""
    at: str | None = None
    """Train on several prefixes of every response at once, such as 0.25,0.5,1.0: the loss is the mean over them,
    from one forward pass of a causal model. Default: the response as --keep leaves it."""
    seeds: int = 1
    """Number of models in an ensemble, whose seeds count up from --seed. The same command, repeated, trains those
    that are missing."""
    reward_head: int | None = None
    """Output, from 0, that is trained as the reward in a model with several. Default: its only one."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work. Errors: `UsageError`."""
        if self.seeds < 1:
            raise UsageError(f"--seeds {self.seeds}", "expected 1 or more models")


def run(config: Config) -> Path:
    """Train a reward model, or an ensemble of them, and return its run directory."""
    from headwater.data.balancing import balanced_by_length
    from headwater.forward.scores import reward_scores
    from headwater.losses import REWARD_LOSSES
    from headwater.losses.custom import is_custom
    from headwater.training.ensembles import train_ensemble
    from headwater.training.prefixes import PREFIX_LOSSES, PrefixScores, parse_cuts
    from headwater.training.run import train
    from headwater.training.task import TrainingTask

    task = TrainingTask(
        "train-reward", "reward model", "reward", REWARD_LOSSES, reward_scores, 1e-5, reward_head=config.reward_head
    )
    if config.length_balanced:
        task = dataclasses.replace(task, choose=balanced_by_length)
    if config.at is not None:
        if is_custom(config.loss):
            raise UsageError(f"--loss {config.loss}", "is not averaged over the cuts of --at", "leave out one of them")
        task = dataclasses.replace(task, losses=PREFIX_LOSSES, score=PrefixScores(parse_cuts(config.at)))
    return train(config, task) if config.seeds == 1 else train_ensemble(config, task, config.seeds)
