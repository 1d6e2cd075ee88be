"""Results of `score` (and of `sample`): the rewards of every response by every model, and their mean and spread."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from headwater.results.stored import StoredResult
from headwater.statistics import Estimate


@dataclass(frozen=True)
class ScoreFigures(StoredResult):
    """Counts, and mean and standard deviation of the values with intervals over conversations.

    The value is a reward, a log-probability, or a mean log-probability of a token; the figures of the others are None.
    """

    FILE: ClassVar[str] = "metrics.json"

    rows: int
    responses: int
    without_score: int
    """Number of responses that are empty or too long."""
    reward_mean: Estimate | None = None
    reward_std: Estimate | None = None
    log_prob_mean: Estimate | None = None
    log_prob_std: Estimate | None = None
    mean_log_prob_mean: Estimate | None = None
    mean_log_prob_std: Estimate | None = None
    ensemble_std: Estimate | None = None
    """Mean over responses of the standard deviation over models (ddof = 1)."""


@dataclass(frozen=True, kw_only=True)
class RewardRecord:
    """The values that one model gave the responses of one row, in their order; None where there is none."""

    id: str = ""
    conversation_id: str | None = None
    key: str | None = None
    """Hash of the row's texts, by which the row is found in other runs."""
    altered: bool = False
    """Whether the row's texts may differ elsewhere: a response was truncated, or the row has a condition."""
    source: str = ""
    model: str
    rewards: tuple[float | None, ...]
    reward_std: tuple[float | None, ...] | None = None
    """Standard deviation over models (ddof = 1)."""


@dataclass(frozen=True)
class RewardRecords(StoredResult):
    """A record for every row and model."""

    FILE: ClassVar[str] = "records.parquet"

    records: tuple[RewardRecord, ...]

    @classmethod
    def migrate(cls, stored: Any) -> Any:
        """Headwater 0.1 called the conversation id `opening`."""
        return [{"conversation_id" if key == "opening" else key: row[key] for key in row} for row in stored]
