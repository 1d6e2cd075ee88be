"""A step of recipes: the rows of one fold, or all others, by conversation; the folds are those of the bag of words."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headwater.console import say_stages
from headwater.data import reading
from headwater.data.reading import ReadOptions, RowCounts
from headwater.errors import UsageError
from headwater.results import runs
from headwater.results.recording import recording
from headwater.signals.words import FOLDS, folds_of


@dataclass(frozen=True)
class Config:
    """Options of the step `fold`."""

    data: Path
    """Pairs, or prompts with several responses: a file, directory, pattern, run, or name on the hub."""
    output: Path
    """Directory of the run, which is data itself."""
    fold: int
    """Number of the fold, from 0."""
    part: Literal["train", "test"]
    """Rows to write: those of the fold (test), or all others (train)."""
    limit: int | None = None
    """Maximum number of rows to read."""
    seed: int = 42
    """Random seed that deals conversations to folds, as that of `headwater signal`."""
    overwrite: bool = False
    """Replace an existing run at --output."""

    def __post_init__(self) -> None:
        """Refuse a fold that is none. Errors: `UsageError`."""
        if not 0 <= self.fold < FOLDS:
            raise UsageError(f"fold {self.fold}", f"expected 0 to {FOLDS - 1}")


def run(config: Config) -> Path:
    """Write the rows of the part and return the run directory."""
    runs.check_free(config.output, config.overwrite, config)
    reader = reading.stream(config.data, ReadOptions(limit=config.limit))
    every = list(reader)
    inside = (folds_of(every, config.seed) == config.fold) == (config.part == "test")
    rows = [row for row, there in zip(every, inside.tolist(), strict=True) if there]
    dropped = Counter(other_fold=len(inside) - len(rows))
    stages = {"read": reader.row_counts, "fold": RowCounts(len(inside), len(rows), dropped)}
    say_stages(stages)
    facts = runs.facts_of(config.data)
    with recording(config.output, "fold", config, read=reader, stages=stages, facts=facts) as writer:
        reading.write(writer.path / reading.PREFERENCES, rows)
    return config.output
