"""What training makes of every kept ratio, beside what one pass foresaw."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

from headwater.report.findings import distinct, labels
from headwater.report.plots.drawing import COLOURS, Block, Rows
from headwater.report.plots.signal import Line, line_block
from headwater.results.runs import Run

RESULTS = "sweep.json"
JUDGED = {"full": "judged on full responses", "same": "judged on the same beginnings"}
AXIS = "Kept beginning in training (%)"


def sweep_curves(runs: Sequence[Run]) -> list[Block]:
    """Draw the accuracy of trained models by kept ratio and budget, a block a kind of judgement."""
    runs = distinct(runs)
    names = labels(runs)
    swept = [run for run in runs if run.command == "sweep" and (run.path / RESULTS).is_file()]
    return [block for run in swept for block in _blocks(run, names[run.path])]


def _blocks(run: Run, name: str) -> Iterator[Block]:
    found = json.loads((run.path / RESULTS).read_text(encoding="utf-8"))
    one_pass = Line("one pass", [_point(row["keep"], row) for row in found["one_pass"]])
    for seen, judged in JUDGED.items():
        lines = [
            Line(f"equal {equal}", points, colour)
            for equal, colour in zip(("examples", "tokens"), COLOURS, strict=False)
            if (points := _points(found["rows"], equal, seen))
        ]
        yield from line_block(f"{name}: {judged}", AXIS, [*lines, one_pass])


def _points(rows: Rows, equal: str, seen: str) -> Rows:
    """Return the points of a budget; of full responses, as many examples are as many tokens."""
    wanted = [row for row in rows if row["seen"] == seen and (row["equal"] == equal or row["keep"] == 1)]
    return sorted((_point(row["keep"], row["accuracy"]) for row in wanted), key=lambda point: point["x"])


def _point(keep: float, found: dict[str, float]) -> dict[str, float]:
    return {"x": 100 * keep, "y": found["value"], "low": found["low"], "high": found["high"], "n": found["n"]}
