"""What differs between the SFT, reward-model and DPO commands: losses, scores, head and default learning rate."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from headwater.data import reading
from headwater.data.tokens import PairTokens
from headwater.forward.packing import UNIFORM
from headwater.forward.scores import ScoreFunction
from headwater.losses import Loss
from headwater.losses.token_weights import Weights
from headwater.models.heads import Head

Choose = Callable[[list[PairTokens], int], tuple[list[PairTokens], reading.RowCounts]]
"""Training pairs and a seed to those that are trained on, with their row counts."""


@dataclass(frozen=True)
class TrainingTask:
    """Settings that differ between the SFT, reward-model and DPO commands."""

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
    reference: str | None = None
    """Reference model of a policy, by name or path; None for the untrained policy itself."""
    watched: str = "eval_rewards/accuracies"
    """The held-out figure by which early stopping keeps weights."""
