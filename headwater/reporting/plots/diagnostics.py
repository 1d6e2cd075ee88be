"""Accuracy of an evaluated model in groups of pairs: by confidence, by length difference, by margin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import altair as alt

from headwater.reporting.findings import CHANCE, distinct, labels, number
from headwater.reporting.plots.drawing import CHOSEN, GREY, Block, Mark, Panel, Rows, chart, finish
from headwater.results.evaluation import Diagnostics, Group
from headwater.results.runs import Run
from headwater.statistics import Estimate


def diagnostic_panels(runs: Sequence[Run]) -> list[Block]:
    """Draw accuracy by confidence, length difference and margin, a block a run."""
    runs = distinct(runs)
    names = labels(runs)
    return [_block(names[run.path], found) for run in runs if (found := Diagnostics.find(run.path))]


def _block(name: str, found: Diagnostics) -> Block:
    grouped = (
        ("Lengths", "Tokens by which the chosen response is longer", found.by_length_difference),
        ("Margin", "Distance of the two scores (model's own units)", found.by_margin),
    )
    panels = [_reliability(found)]
    panels += [_groups(title, axis, groups) for title, axis, groups in grouped if len(groups) > 1]
    return Block(name, [Mark("accuracy", CHOSEN), Mark("calibrated; chance", GREY)], panels)


def _reliability(found: Diagnostics) -> Panel:
    rows = [{"x": each.confidence, **_point(each.accuracy)} for each in found.reliability]
    error = found.calibration_error
    line = chart([{"x": 0.5, "y": 0.5}, {"x": 1.0, "y": 1.0}]).mark_line(color=GREY, strokeDash=[4, 3], strokeWidth=1)
    ideal = line.encode(x="x:Q", y="y:Q")
    x = alt.X("x:Q").title("Confidence σ(|margin|)").scale(domain=[0.5, 1], nice=False).axis(format="~%")
    says = f"calibration error {number(error.value)} on {error.n} pairs"
    return Panel("Confidence", says, finish([ideal, *_points(rows, x)]))


def _groups(title: str, axis: str, groups: Sequence[Group]) -> Panel:
    spans = [f"{_short(group.low)} to {_short(group.high)}" for group in groups]
    rows = [{"x": span, **_point(group.accuracy)} for span, group in zip(spans, groups, strict=True)]
    chance = chart([{"y": CHANCE}]).mark_rule(color=GREY, strokeDash=[4, 3]).encode(y="y:Q")
    x = alt.X("x:N").title(axis).sort(spans).axis(labelAngle=-20, labelLimit=120)
    says = "; ".join(f"{span}: {number(group.accuracy.value, 2)}" for span, group in zip(spans, groups, strict=True))
    return Panel(title, says, finish([chance, *_points(rows, x)]))


def _short(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def _point(found: Estimate) -> dict[str, float]:
    """Return a point with its interval, which is empty where there is none."""
    low, high = (found.value if end is None else end for end in (found.low, found.high))
    return {"y": found.value, "low": low, "high": high}


def _points(rows: Rows, x: Any) -> list[Any]:
    """Return points with their intervals."""
    y = alt.Y("y:Q").title("Accuracy").scale(domain=[0, 1]).axis(format="~%")
    bars = (
        chart(rows)
        .mark_rule(color=CHOSEN, strokeWidth=1.5)
        .encode(x=x, y=alt.Y("low:Q").title("Accuracy"), y2="high:Q")
    )
    return [bars, chart(rows).mark_point(color=CHOSEN, filled=True, size=40, opacity=1).encode(x=x, y=y)]
