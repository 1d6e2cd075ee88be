"""Results of the training commands: the history, a row a logging step, and the figures of the finished model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, ClassVar

from headwater.results.stored import StoredResult, stored_as


class Column(StrEnum):
    """Columns of the training history; measured on held-out rows, they have the prefix `eval_`."""

    LOSS = "loss"
    LEARNING_RATE = "learning_rate"
    GRADIENT_NORM = "grad_norm"
    CHOSEN_REWARD = "rewards/chosen"
    REJECTED_REWARD = "rewards/rejected"
    REWARD_SUM = "rewards/sum"
    MARGIN = "rewards/margins"
    """Reward of the chosen response less that of the rejected one."""
    ACCURACY = "rewards/accuracies"
    AUC = "rewards/auc"
    """Share of (desirable, undesirable) responses in which the desirable one has the higher reward."""
    CHOSEN_CHANGE = "logps/chosen_change"
    """Log-probability of the chosen response less that under the reference, in nats."""

    @property
    def held_out(self) -> str:
        """The column of the same figure on held-out rows."""
        return f"eval_{self}"


@dataclass(frozen=True)
class TrainingHistory(StoredResult):
    """What the trainer logged, in order; a row has the columns that were measured at its step."""

    FILE: ClassVar[str] = "history.jsonl"

    rows: tuple[Mapping[str, Any], ...]

    def values(self, column: str) -> list[float]:
        """Return the values of a column, in order, without the steps that did not measure it."""
        return [row[column] for row in self.rows if row.get(column) is not None]

    def points(self, column: str) -> list[tuple[float, float]]:
        """Return (step, value) of a column, in order."""
        return [(row["step"], row[column]) for row in self.rows if None not in (row.get(column), row.get("step"))]

    @property
    def seconds(self) -> float | None:
        """Wall time of training in seconds; None where training did not end."""
        found = self.values("train_runtime")
        return found[-1] if found else None


@dataclass(frozen=True)
class TrainingFigures(StoredResult):
    """Figures of the finished model on held-out rows, and the sizes of the data."""

    FILE: ClassVar[str] = "metrics.json"

    accuracy: float | None = field(default=None, metadata=stored_as(Column.ACCURACY.held_out))
    accuracy_low: float | None = field(default=None, metadata=stored_as(f"{Column.ACCURACY.held_out}_low"))
    """End of the 95 % interval over conversations."""
    accuracy_high: float | None = field(default=None, metadata=stored_as(f"{Column.ACCURACY.held_out}_high"))
    auc: float | None = field(default=None, metadata=stored_as(Column.AUC.held_out))
    loss: float | None = field(default=None, metadata=stored_as(Column.LOSS.held_out))
    train_pairs: int | None = None
    held_out_pairs: int | None = None
    train_rows: int | None = None
    """Labelled responses trained on."""
    held_out_rows: int | None = None
