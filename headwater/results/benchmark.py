"""Results of `reward-bench`: figures of a benchmark, and the rewards of every row."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from headwater.results.stored import StoredResult
from headwater.statistics import Estimate


@dataclass(frozen=True)
class BenchmarkFigures(StoredResult):
    """Figures of a benchmark with intervals over conversations, by its own names of sections and subsets."""

    FILE: ClassVar[str] = "metrics.json"

    figures: Mapping[str, Estimate]


@dataclass(frozen=True)
class BenchmarkRow:
    """Rewards of the responses of one row, of which the first `correct` are right."""

    id: str
    subset: str
    conversation_id: str
    rewards: tuple[float, ...]
    correct: int


@dataclass(frozen=True)
class BenchmarkRows(StoredResult):
    """All rows of which every response has a reward."""

    FILE: ClassVar[str] = "records.parquet"

    records: tuple[BenchmarkRow, ...]

    @classmethod
    def migrate(cls, stored: Any) -> Any:
        """Headwater 0.1 called the conversation id `opening`."""
        return [{"conversation_id" if key == "opening" else key: row[key] for key in row} for row in stored]
