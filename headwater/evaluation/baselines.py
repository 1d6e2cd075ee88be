"""What another model made of the same pairs, as its run of `evaluate` recorded it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headwater.data.preference import Prompted
from headwater.data.recorded import Recorded, RowName
from headwater.errors import UsageError
from headwater.results import runs
from headwater.results.runs import Run
from headwater.statistics import Floats


def of_pairs(run: Run) -> list[dict[str, Any]]:
    """Return what a run of `evaluate` recorded, a row a pair; nothing of another run, or of labelled responses."""
    rows = run.records() if run.command == "evaluate" else []
    return [row for row in rows if row["chosen_reward"] is not None and row["rejected_reward"] is not None]


@dataclass(frozen=True)
class Baseline:
    """The rewards of another model."""

    name: str
    rewards: Recorded[tuple[float, float]]
    """Of the chosen and the rejected response, by row."""

    @classmethod
    def load(cls, path: Path) -> Baseline:
        """Read a run. Errors: `UsageError` for one that recorded no pairs."""
        rows = of_pairs(runs.load(path))
        if not rows:
            raise UsageError(f"--against {path}", "recorded no rewards of pairs", "name a run of evaluate")
        found = [(RowName.read(row), (row["chosen_reward"], row["rejected_reward"])) for row in rows]
        return cls(str(path), Recorded(f"--against {path}", found))

    def of(self, pairs: Sequence[Prompted]) -> Floats:
        """Return its rewards of `pairs`, [pairs, 2].

        Errors: `UsageError` where it did not judge all of them, `DataError` where ids alone cannot tell which is which.
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
