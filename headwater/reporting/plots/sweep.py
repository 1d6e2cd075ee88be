"""Accuracy of models trained at every kept ratio, beside the one-pass curve."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from headwater.reporting.findings import distinct, labels
from headwater.reporting.plots.drawing import COLOURS, Block, Rows
from headwater.reporting.plots.signal import Line, line_block
from headwater.results.runs import Run
from headwater.results.sweep import SweepResult, SweepRow
from headwater.statistics import Estimate

JUDGED = {"full": "judged on full responses", "same": "judged on the same beginnings"}
AXIS = "Kept beginning in training (%)"


def sweep_curves(runs: Sequence[Run]) -> list[Block]:
    """Draw the accuracy of trained models by kept ratio and budget, one block for full and one for cut responses."""
    runs = distinct(runs)
    names = labels(runs)
    swept = [(run, SweepResult.find(run.path)) for run in runs if run.command == "sweep"]
    return [block for run, found in swept if found for block in _blocks(found, names[run.path])]


def _blocks(found: SweepResult, name: str) -> Iterator[Block]:
    one_pass = Line("one pass", [_point(point.keep, point.estimate) for point in found.one_pass])
    for seen, judged in JUDGED.items():
        lines = [
            Line(f"equal {equal}", points, colour)
            for equal, colour in zip(("examples", "tokens"), COLOURS, strict=False)
            if (points := _points(found.points, equal, seen))
        ]
        yield from line_block(f"{name}: {judged}", AXIS, [*lines, one_pass])


def _points(rows: Sequence[SweepRow], equal: str, seen: str) -> Rows:
    """Return the points of a budget; of full responses, as many examples are as many tokens."""
    wanted = [row for row in rows if row.seen == seen and (row.equal == equal or row.keep == 1)]
    return sorted((_point(row.keep, row.accuracy) for row in wanted), key=lambda point: point["x"] or 0.0)


def _point(keep: float, found: Estimate) -> dict[str, float | None]:
    return {"x": 100 * keep, "y": found.value, "low": found.low, "high": found.high, "n": found.n}
