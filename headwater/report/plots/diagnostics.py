"""Where an evaluated model is right: by its own confidence, by the lengths of the responses, by its margin."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import altair as alt

from headwater.report.findings import CHANCE, distinct, labels, number
from headwater.report.plots.drawing import BETTER, GREY, Block, Mark, Panel, Rows, chart, finish
from headwater.results.runs import Run

RESULTS = "scrutiny.json"
GROUPS = {
    "by_length_difference": ("Lengths", "Tokens by which the better response is longer"),
    "by_margin": ("Margin", "Distance of the two scores (model's own units)"),
}


def diagnostic_panels(runs: Sequence[Run]) -> list[Block]:
    """Draw accuracy by confidence, length difference and margin, a block a run."""
    runs = distinct(runs)
    names = labels(runs)
    diagnosed = [run for run in runs if (run.path / RESULTS).is_file()]
    return [_block(names[run.path], json.loads((run.path / RESULTS).read_text("utf-8"))) for run in diagnosed]


def _block(name: str, found: dict[str, Any]) -> Block:
    panels = [_reliability(found)]
    panels += [_groups(title, axis, found[key]) for key, (title, axis) in GROUPS.items() if len(found[key]) > 1]
    return Block(name, [Mark("accuracy", BETTER), Mark("calibrated; chance", GREY)], panels)


def _reliability(found: dict[str, Any]) -> Panel:
    rows = [{"x": row["confidence"], **_estimate(row)} for row in found["reliability"]]
    error = found["calibration_error"]
    line = chart([{"x": 0.5, "y": 0.5}, {"x": 1.0, "y": 1.0}]).mark_line(color=GREY, strokeDash=[4, 3], strokeWidth=1)
    ideal = line.encode(x="x:Q", y="y:Q")
    x = alt.X("x:Q").title("Confidence σ(|margin|)").scale(domain=[0.5, 1], nice=False).axis(format="~%")
    says = f"calibration error {number(error['value'])} on {error['n']} pairs"
    return Panel("Confidence", says, finish([ideal, *_points(rows, x)]))


def _groups(title: str, axis: str, groups: Sequence[dict[str, Any]]) -> Panel:
    spans = [f"{_short(group['from'])} to {_short(group['to'])}" for group in groups]
    rows = [{"x": span, **_estimate(group)} for span, group in zip(spans, groups, strict=True)]
    chance = chart([{"y": CHANCE}]).mark_rule(color=GREY, strokeDash=[4, 3]).encode(y="y:Q")
    x = alt.X("x:N").title(axis).sort(spans).axis(labelAngle=-20, labelLimit=120)
    says = "; ".join(f"{span}: {number(group['value'], 2)}" for span, group in zip(spans, groups, strict=True))
    return Panel(title, says, finish([chance, *_points(rows, x)]))


def _short(value: float) -> str:
    return f"{value:.3g}".replace("-", "−")


def _estimate(row: dict[str, Any]) -> dict[str, float]:
    value = row["value"]
    bounds = {"low": value if row["low"] is None else row["low"], "high": value if row["high"] is None else row["high"]}
    return {"y": value, **bounds}


def _points(rows: Rows, x: Any) -> list[Any]:
    """Return points with their intervals."""
    y = alt.Y("y:Q").title("Accuracy").scale(domain=[0, 1]).axis(format="~%")
    bars = (
        chart(rows)
        .mark_rule(color=BETTER, strokeWidth=1.5)
        .encode(x=x, y=alt.Y("low:Q").title("Accuracy"), y2="high:Q")
    )
    return [bars, chart(rows).mark_point(color=BETTER, filled=True, size=40, opacity=1).encode(x=x, y=y)]
