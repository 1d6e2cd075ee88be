"""Rewards that another model gave the same pairs, read from its evaluate run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from headwater.data.preference import Prompted
from headwater.data.recorded import Recorded, RowName
from headwater.errors import UsageError
from headwater.results import runs
from headwater.results.evaluation import ScoredRow, ScoredRows
from headwater.results.runs import Run
from headwater.statistics import Floats


def _records(run: Run) -> list[ScoredRow]:
    """Return the pairs that an evaluate run recorded; none of another run, or of labelled responses."""
    found = ScoredRows.find(run.path) if run.command == "evaluate" else None
    records = found.records if found else ()
    return [row for row in records if row.chosen_reward is not None and row.rejected_reward is not None]


def scored_pairs(run: Run) -> tuple[Floats, Floats]:
    """Return the rewards and the lengths in tokens that an evaluate run recorded of pairs, [pairs, 2] each."""
    records = _records(run)
    rewards = [(row.chosen_reward, row.rejected_reward) for row in records]
    lengths = [(row.chosen_tokens, row.rejected_tokens) for row in records]
    return np.array(rewards, dtype=np.float64), np.array(lengths, dtype=np.float64)


@dataclass(frozen=True)
class Baseline:
    """The rewards of another model."""

    name: str
    rewards: Recorded[tuple[float | None, float | None]]
    """Rewards of the chosen and the rejected response, by row."""

    @classmethod
    def load(cls, path: Path) -> Baseline:
        """Read an evaluate run. Errors: `UsageError` for one that recorded no pairs."""
        rows = _records(runs.load(path))
        if not rows:
            raise UsageError(f"--against {path}", "recorded no rewards of pairs", "name a run of evaluate")
        named = [
            (RowName(row.id, row.conversation_id, row.key, row.altered), (row.chosen_reward, row.rejected_reward))
            for row in rows
        ]
        return cls(str(path), Recorded(f"--against {path}", named))

    def of(self, pairs: Sequence[Prompted]) -> Floats:
        """Return its rewards of `pairs`, [pairs, 2].

        Errors: `UsageError` where it did not score all of them, `DataError` where ids alone cannot identify a pair.
        """
        found = [self.rewards.of(RowName.of(pair)) for pair in pairs]
        missing = [pair.id for pair, rewards in zip(pairs, found, strict=True) if rewards is None]
        if missing:
            raise UsageError(
                f"--against {self.name}",
                f"did not judge {len(missing)} of {len(pairs)} pairs, {missing[0]} the first",
                "evaluate both on the same data, with the same flags and, where trainings differ, --allow-leakage",
            )
        return np.array(found, dtype=np.float64)
