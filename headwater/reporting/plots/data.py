"""Distributions of response lengths, and of length differences within pairs, of an inspected data set."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import altair as alt

from headwater.data.profiling import Histogram
from headwater.reporting.plots.drawing import CHOSEN, COLOURS, REJECTED, Block, Chart, Mark, Panel, chart, finish
from headwater.results.inspection import Inspection
from headwater.results.runs import Run

SIDES = {"chosen": CHOSEN, "rejected": REJECTED, "desirable": CHOSEN, "undesirable": REJECTED, "responses": COLOURS[2]}


def response_lengths(runs: Sequence[Run]) -> list[Block]:
    """Draw the distribution of response lengths, a panel a data set."""
    return [
        Block("", [Mark(side, SIDES[side]) for side in found.length_histogram.counts], [_lengths(run, found)])
        for run in runs
        if (found := Inspection.find(run.path))
    ]


def longer_by(runs: Sequence[Run]) -> list[Block]:
    """Draw the distribution of length differences within pairs, a panel a data set of pairs."""
    key = [Mark(f"{side} is longer", SIDES[side]) for side in ("chosen", "rejected")]
    return [
        Block("", key, [_differences(run, found.difference_histogram)])
        for run in runs
        if (found := Inspection.find(run.path)) and found.difference_histogram
    ]


def _lengths(run: Run, found: Inspection) -> Panel:
    binned = found.length_histogram
    says = ", ".join(f"median of {side} {found.characters[side].p50:.0f} characters" for side in binned.counts)
    layers = [_area(binned, side, 1, "Length (characters)", "Responses") for side in binned.counts]
    return Panel("", f"{run.name}: {says}", _finished(layers))


def _differences(run: Run, binned: Histogram) -> Panel:
    more = {side: sum(counts) + binned.beyond[side] for side, counts in binned.counts.items()}
    says = f"{run.name}: chosen is longer in {more['chosen']} pairs, rejected in {more['rejected']}"
    signs = (("chosen", 1), ("rejected", -1))
    layers = [_area(binned, side, sign, "Chosen − rejected (characters)", "Pairs") for side, sign in signs]
    return Panel("", says, _finished(layers))


def _area(binned: Histogram, side: str, sign: int, across: str, up: str) -> Any:
    edges, counts = binned.edges, binned.counts[side]
    corners = zip([edges[0], *edges], [0, *counts, 0], strict=True)
    # Drawn from left to right: in a mirrored one, a bin's height stands at its right end.
    rows = [{"x": sign * x, "y": y} for x, y in corners][::sign]
    x = alt.X("x:Q").title(across).scale(nice=False)
    line = {"color": SIDES[side], "strokeWidth": 1.2}
    steps: Literal["step-after", "step-before"] = "step-after" if sign > 0 else "step-before"
    area = chart(rows).mark_area(interpolate=steps, color=SIDES[side], fillOpacity=0.18, line=line)
    return area.encode(x=x, y=alt.Y("y:Q").title(up).axis(format=",d"))


def _finished(layers: Sequence[Any]) -> Chart:
    return finish(layers, height=150)
