"""Evaluation of a model on RewardBench, RewardBench 2 or RM-Bench: read the rows, score them, compute the figures."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from headwater.console import track
from headwater.data import reading
from headwater.data.layouts import Broken, Unread
from headwater.data.preference import Candidates
from headwater.data.reading import ReadOptions, Row, RowCounts
from headwater.errors import DataError, UsageError
from headwater.evaluation import reward_bench
from headwater.evaluation.reward_bench import Item
from headwater.results.benchmark import BenchmarkFigures, BenchmarkRow, BenchmarkRows
from headwater.results.runs import RunWriter

WINDOW = 64
"""Number of rows that are scored together."""

Scorer = Callable[[Sequence[Candidates]], Sequence[Sequence[float | None]]]
"""Rows to the rewards of their responses, None for a response that is too long; `rewards.responses` loads one."""


class BenchmarkItems(NamedTuple):
    """The rows of one benchmark."""

    name: str
    items: list[Item]
    files: list[Path]
    row_counts: RowCounts


@dataclass(frozen=True)
class BenchmarkResult:
    """Figures and rewards of a model on a benchmark."""

    figures: BenchmarkFigures
    records: BenchmarkRows
    row_counts: RowCounts

    def write(self, run: RunWriter) -> None:
        """Store the figures and the records in a run."""
        run.write(self.figures)
        run.write(self.records)


def read_items(data: Path, options: ReadOptions) -> BenchmarkItems:
    """Read the rows of a benchmark, which its columns tell.

    Errors: `DataError` for a row of no benchmark, and for rows of several; `UsageError` for options without effect.
    """
    for flag, value in {"--layout": options.layout, "--columns": options.columns}.items():
        if value is not None:
            raise UsageError(flag, "has no effect on a benchmark", "its columns tell which one it is")
    if options.max_bad_rows != "0":
        raise UsageError("--max-bad-rows", "has no effect on a benchmark", "a bad row is refused")
    found: dict[str, list[Item]] = {}
    unread = Unread(reward_bench.COLUMNS, options.ignored, filter(None, [options.condition_column]))
    for row in itertools.islice(reading.read_rows(data, options), options.limit):
        name, item = reward_bench.read(row._replace(fields=_checked(unread, row)))
        item = item._replace(candidates=reading.conditioned(item.candidates, row, options))
        found.setdefault(name, []).append(item)
    if len(found) != 1:
        raise DataError(str(data), f"holds rows of {' and '.join(found) or 'nothing'}", "expected one benchmark")
    ((name, items),) = found.items()
    row_counts = RowCounts(len(items), len(items), not_read=unread.names)
    return BenchmarkItems(name, items, list(reading.stream(data, options).files), row_counts)


def _checked(unread: Unread, row: Row) -> dict[str, Any]:
    """Return the fields of a row without ignored ones. Errors: `DataError` for one that changes what the row means."""
    try:
        return dict(unread.check(row.fields))
    except Broken as problem:
        raise DataError(row.place, *problem.args) from problem


def evaluate_items(scorer: Scorer, name: str, items: Sequence[Item], seed: int) -> BenchmarkResult:
    """Score the rows of the benchmark `name` and return its figures.

    Rows with a response that is too long are left out, and so is a prompt of Ties whose other half is missing. Errors:
    `DataError` where no row is left.
    """
    scored = [(item, row) for item, row in zip(items, _rewards(scorer, items), strict=True) if row is not None]
    alone = reward_bench.alone([item for item, _ in scored])
    kept = [(item, row) for item, row in scored if item.subset != reward_bench.TIES or item.candidates.id not in alone]
    dropped = Counter({"unreadable_response": len(items) - len(scored), "other_half_missing": len(scored) - len(kept)})
    if not kept:
        raise DataError(name, "no row is left", "raise --max-length")
    figures = reward_bench.figures(name, [item for item, _ in kept], [row for _, row in kept], seed)
    records = (
        BenchmarkRow(item.candidates.id, item.subset, item.conversation_id, tuple(row), item.correct)
        for item, row in kept
    )
    row_counts = RowCounts(len(items), len(kept), dropped=+dropped)
    return BenchmarkResult(BenchmarkFigures(figures), BenchmarkRows(tuple(records)), row_counts)


def _rewards(scorer: Scorer, items: Sequence[Item]) -> list[list[float] | None]:
    """Return the rewards of all responses of every item; None where one of them has no reward."""
    found: list[list[float] | None] = []
    starts = range(0, len(items), WINDOW)
    for start in track(starts, "scoring", len(starts)):
        for row in scorer([item.candidates for item in items[start : start + WINDOW]]):
            known = [reward for reward in row if reward is not None]
            found.append(known if len(known) == len(row) else None)
    return found
