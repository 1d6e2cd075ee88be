"""The key figures of runs for a terminal: what the page shows first, where there is no browser."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
from rich.table import Table
from rich.text import Text

from headwater.console import sparkline
from headwater.marks import visible
from headwater.report.findings import estimate, labels, number, percent, with_interval
from headwater.results.runs import Run
from headwater.results.signal import SignalCurve

SPANS = 10
"""Bars of a course: a row fits 80 columns."""
FIGURES = ("accuracy", "depth_90")


def key_figures(runs: Sequence[Run]) -> Table:
    """Return a table with a row a run: what was kept, its first figure with interval and n, and its course."""
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
    """Return the figure that a run is about, and its n; both empty where it has none with an interval."""
    for metric in (*FIGURES, *run.metrics):
        found = estimate(run, metric)
        if found:
            return f"{visible(metric.replace('_', ' '))} {with_interval(found)}", str(found.n)
    held_out = run.metrics.get("eval_rewards/accuracies")
    return (f"held-out accuracy {number(held_out)}", str(run.metrics["held_out_pairs"])) if held_out else ("", "")


def _courses(run: Run) -> Iterator[str]:
    """Yield the course of a training, the accuracy along prefixes, the distribution of margins: what a run has."""
    losses = [row["loss"] for row in run.history if row.get("loss") is not None]
    if len(losses) > 1:
        yield f"loss {number(losses[0], 2)} {sparkline(losses, SPANS)} {number(losses[-1], 2)}"
    curve = SignalCurve.find(run.path)
    own = [point.value for point in curve.along()] if curve else []
    if own:
        yield f"by prefix {number(own[0], 2)} {sparkline(own, SPANS)} {number(own[-1], 2)}"
    margins = [
        row["chosen_reward"] - row["rejected_reward"]
        for row in (run.records() if run.command == "evaluate" else [])
        if row.get("chosen_reward") is not None and row.get("rejected_reward") is not None
    ]
    if margins:
        counts, edges = np.histogram(margins, SPANS)
        yield f"margins {number(edges[0], 1)} {sparkline(counts.tolist())} {number(edges[-1], 1)}"
