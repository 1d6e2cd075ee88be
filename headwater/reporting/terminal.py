"""Key figures of runs as a table for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from rich.table import Table
from rich.text import Text

from headwater.console import sparkline
from headwater.marks import visible
from headwater.reporting.findings import estimate, labels, number, percent, with_interval
from headwater.results.evaluation import ScoredRows
from headwater.results.runs import Run
from headwater.results.signal import SignalCurve
from headwater.results.training import Column, TrainingFigures

SPANS = 10
"""Bars of a sparkline; a row fits 80 columns."""
FIGURES = ("accuracy", "depth_90")


def key_figures(runs: Sequence[Run]) -> Table:
    """Return a table with a row a run: kept share, first figure with interval and n, and a sparkline."""
    names = labels(runs)
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    for head in ("run", "kept", "figure", "n", "course"):
        side: Literal["left", "right"] = "right" if head in ("kept", "n") else "left"
        table.add_column(head, justify=side, overflow="fold", no_wrap=head in ("n", "course"))
    for run in runs:
        keep = run.facts.get("keep")
        kept = percent(keep) if isinstance(keep, int | float) else ""
        figure, n = _figure(run)
        cells = (visible(names[run.path]), kept, figure, n, "\n".join(_courses(run)))
        table.add_row(*map(Text, cells))  # text of a run is no markup
    return table


def _figure(run: Run) -> tuple[str, str]:
    """Return the main figure of a run, and its n; both empty where it has none with an interval."""
    for metric in (*FIGURES, *run.metrics):
        found = estimate(run, metric)
        if found:
            return f"{visible(metric.replace('_', ' '))} {with_interval(found)}", str(found.n)
    trained = TrainingFigures.find(run.path) if run.history else None
    if trained is None or trained.accuracy is None:
        return "", ""
    return f"held-out accuracy {number(trained.accuracy)}", str(trained.held_out_pairs)


def _courses(run: Run) -> Iterator[str]:
    """Yield the sparklines that a run has data for: training loss, accuracy by prefix, distribution of margins."""
    losses = run.training_history.values(Column.LOSS)
    if len(losses) > 1:
        yield f"loss {number(losses[0], 2)} {sparkline(losses, SPANS)} {number(losses[-1], 2)}"
    curve = SignalCurve.find(run.path)
    own = [point.value for point in curve.along()] if curve else []
    if own:
        yield f"by prefix {number(own[0], 2)} {sparkline(own, SPANS)} {number(own[-1], 2)}"
    scored = ScoredRows.find(run.path) if run.command == "evaluate" else None
    margins = np.array([]) if scored is None else scored.margins()
    if len(margins):
        counts, edges = np.histogram(margins, SPANS)
        yield f"margins {number(edges[0], 1)} {sparkline(counts.tolist())} {number(edges[-1], 1)}"
