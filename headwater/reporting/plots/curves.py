"""Held-out accuracy against the kept ratio."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from headwater.reporting.findings import (
    CHANCE,
    Point,
    accuracy_points,
    distinct,
    labels,
    percent,
    planted_depth,
    with_interval,
)
from headwater.reporting.plots.drawing import COLOURS, GREY, Block, Mark, Panel, chart, finish
from headwater.results.runs import Run

SIZE = (440, 300)  # pixels; one drawing that carries the argument may be wider than a panel


def accuracy_by_kept_ratio(runs: Sequence[Run]) -> list[Block]:
    """Draw held-out accuracy against the kept ratio, a line a kind; needs two different ratios."""
    curves = accuracy_points(distinct(runs))
    points = [point for curve in curves.values() for point in curve]
    if len({point.keep for point in points}) < 2:
        return []
    names = labels(runs)
    depth = planted_depth(point.run for point in points)
    layers = [_level(CHANCE, "chance")]
    heights = _heights(points)
    if depth is not None:
        layers.append(_planted(depth))
    for index, curve in enumerate(curves.values()):
        # Kinds meet at the same ratios: a few pixels apart, their intervals do not cover each other.
        shift = 5 * (index - (len(curves) - 1) / 2)
        layers += _curve(curve, names, COLOURS[index % len(COLOURS)], shift, heights)
    key = [Mark(kind, COLOURS[index % len(COLOURS)]) for index, kind in enumerate(curves)]
    says = "; ".join(f"{kind}: {_curve_in_words(curve)}" for kind, curve in curves.items())
    return [Block("", key, [Panel("", says, finish(layers, *SIZE))])]


def _heights(points: Sequence[Point]) -> list[float]:
    """Return the ends of the accuracy axis: chance and every interval, with a margin."""
    ends = [end for point in points for end in point.accuracy[:3] if end is not None]
    return [max(0.0, min(CHANCE, *ends) - 0.04), min(1.0, max(CHANCE, *ends) + 0.03)]


def _curve_in_words(curve: Sequence[Point]) -> str:
    return ", ".join(f"{percent(point.keep)} kept {with_interval(point.accuracy)}" for point in curve)


def _curve(
    curve: Sequence[Point], names: Mapping[Any, str], colour: str, shift: float, heights: list[float]
) -> list[Any]:
    rows = [
        {
            "run": names[point.run.path],
            "keep": 100 * point.keep,
            "accuracy": point.accuracy.value,
            "low": point.accuracy.low,
            "high": point.accuracy.high,
        }
        for point in curve
    ]
    x = alt.X("keep:Q").title("Kept beginning of each response (%)").scale(domain=[0, 100])
    y = alt.Y("accuracy:Q").title("Held-out accuracy (share of pairs)").scale(domain=heights, nice=False, zero=False)
    base = chart(rows).encode(x=x)
    bounded = chart([row for row in rows if row["low"] is not None]).encode(x=x)
    return [
        bounded.mark_rule(color=colour, strokeWidth=1.5, xOffset=shift).encode(
            y=alt.Y("low:Q").scale(zero=False), y2="high:Q"
        ),
        base.mark_line(color=colour, strokeWidth=2, xOffset=shift).encode(y=y),
        base.mark_point(color=colour, filled=True, size=48, opacity=1, xOffset=shift).encode(y=y),
    ]


def _level(value: float, text: str) -> Any:
    rule = chart([{"y": value}]).mark_rule(color=GREY, strokeDash=[2, 3]).encode(y=alt.Y("y:Q").scale(zero=False))
    label = chart([{"y": value, "text": f"{text} {value:g}", "x": 100}])
    return rule + label.mark_text(align="right", dy=-7, color=GREY).encode(
        x="x:Q", y=alt.Y("y:Q").scale(zero=False), text="text:N"
    )


def _planted(depth: float) -> Any:
    rows = [{"x": 100 * depth, "text": f"planted depth {percent(depth)}"}]
    rule = chart(rows).mark_rule(color=GREY, strokeWidth=1).encode(x="x:Q")
    label = chart(rows).mark_text(align="left", dx=5, dy=-7, color=GREY)
    return rule + label.encode(x="x:Q", y=alt.value("height"), text="text:N")
