"""What a training command is told, and what makes it itself; the same for all who start a session."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from headwater.data import reading
from headwater.data.tokens import PairTokens
from headwater.data.truncation_options import TruncationOptions
from headwater.forward.packing import UNIFORM
from headwater.forward.scores import ScoreFunction
from headwater.losses import Loss
from headwater.losses.token_weights import Weights
from headwater.models.heads import Head
from headwater.training.options import TrainingOptions

Choose = Callable[[list[PairTokens], int], tuple[list[PairTokens], reading.RowCounts]]
"""Training pairs and a seed to those that are trained on, with their account."""


class TrainConfig(Protocol):
    """What the configs of the training commands have in common."""

    @property
    def data(self) -> Path: ...  # noqa: D102
    @property
    def output(self) -> Path: ...  # noqa: D102
    @property
    def model(self) -> str: ...  # noqa: D102
    @property
    def loss(self) -> str: ...  # noqa: D102
    @property
    def read_options(self) -> reading.ReadOptions: ...  # noqa: D102
    @property
    def truncation(self) -> TruncationOptions: ...  # noqa: D102
    @property
    def overwrite(self) -> bool: ...  # noqa: D102
    @property
    def training(self) -> TrainingOptions: ...  # noqa: D102


@dataclass(frozen=True)
class TrainingTask:
    """What makes a training command itself."""

    command: str
    kind: str
    """What the report calls the trained model: reward model, dpo, sft."""
    head: Head
    losses: Mapping[str, Callable[..., Loss]]
    score: ScoreFunction
    learning_rate: float
    """Default peak learning rate for a pretrained model."""
    weights: Weights = UNIFORM
    choose: Choose | None = None
    """Which of the training pairs to train on, by the seed; None for all of them."""
    reward_head: int | None = None
    """Which output of a reward model with several is trained on as the reward."""
    watched: str = "eval_rewards/accuracies"
    """The held-out figure by which early stopping keeps weights."""
