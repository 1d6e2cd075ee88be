"""Decoding with two models: the weight of the policy by position, and reward against KL by strategy."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import altair as alt

from headwater.reporting.findings import distinct, labels, number
from headwater.reporting.plots.drawing import COLOURS, GREY, Block, Mark, Panel, Rows, chart, finish
from headwater.results.decoding import Frontier, FrontierPoint, PositionMean, PositionMeans, PublishedPoints
from headwater.results.runs import Run

BASELINE = "interpolate"
FAMILIES = {
    BASELINE: Mark("interpolation, the baseline", GREY, dashed=True),
    "length_control": Mark("length control", COLOURS[0]),
    "kl_threshold": Mark("KL threshold", COLOURS[1]),
    "best_of": Mark("best of n", COLOURS[2]),
}


def reward_against_kl(runs: Sequence[Run]) -> list[Block]:
    """Draw the points of frontier runs and their gaps to the baseline; a block a run and reward model."""
    runs = distinct(runs)
    names = labels(runs)
    measured = [(run, Frontier.find(run.path)) for run in runs if run.command == "frontier"]
    return [block for run, found in measured if found for block in _blocks(run, found, names[run.path])]


def _blocks(run: Run, found: Frontier, name: str) -> Iterator[Block]:
    printed = _published(run)
    for model in dict.fromkeys(point.reward_model for point in found.points):
        own = sorted((p for p in found.points if p.reward_model == model), key=lambda point: point.kl.value)
        key = [mark for family, mark in FAMILIES.items() if any(point.family == family for point in own)]
        panels = [_panel(own, "reward", "Reward", printed), _panel(own, "gap", "Reward above the baseline")]
        drawn = [panel for panel in panels if panel]
        yield Block(f"{name}: reward by {Path(model).name}", [*key, *(mark for mark, _ in printed)], drawn)


def _published(run: Run) -> list[tuple[Mark, Rows]]:
    """Return the points of papers that a run was given, each set with the mark that names its source."""
    found = PublishedPoints.find(run.path)
    colours = COLOURS[len(FAMILIES) - 1 :]
    return [
        (Mark(f"published, {Path(source).name}", colour), [{"x": x, "y": y} for x, y in points])
        for (source, points), colour in zip(
            found.points.items() if found else (), itertools.cycle(colours), strict=False
        )
    ]


def _panel(
    frontier: Sequence[FrontierPoint], what: str, title: str, printed: Sequence[tuple[Mark, Rows]] = ()
) -> Panel | None:
    """Draw one kind of figure against KL, with its intervals; lines join a strategy's points."""
    points = [
        {"x": point.kl.value, "y": found.value, "low": found.low, "high": found.high}
        | {"name": point.name, "family": point.family}
        for point in frontier
        if (found := getattr(point, what)) is not None
    ]
    if not points:
        return None
    x = alt.X("x:Q").title("KL from the reference (nats a response)").scale(zero=True)
    layers = []
    if what == "gap":
        zero = chart([{"y": 0}]).mark_rule(color=GREY, strokeDash=[4, 3])
        layers.append(zero.encode(y=alt.Y("y:Q").title(title)))
    for mark, behind in printed:
        base = chart(behind).encode(x=x, y=alt.Y("y:Q").title(title).scale(zero=False))
        layers.append(base.mark_point(color=mark.colour, shape="square", size=14, opacity=0.6))
    for family, mark in FAMILIES.items():
        own = [point for point in points if point["family"] == family]
        base = chart(own).encode(x=x, y=alt.Y("y:Q").title(title).scale(zero=False))
        bars = chart([point for point in own if point["low"] is not None]).mark_rule(color=mark.colour, opacity=0.5)
        layers.append(bars.encode(x=x, y=alt.Y("low:Q").scale(zero=False), y2="high:Q"))
        layers.append(base.mark_line(color=mark.colour, strokeWidth=1.5, strokeDash=[4, 3] if mark.dashed else [1, 0]))
        layers.append(base.mark_point(color=mark.colour, filled=True, size=26, opacity=1))
    says = "; ".join(f"{point['name']} {number(point['y'])} at {number(point['x'])}" for point in points)
    return Panel("", f"{title} by KL: {says}", finish(layers))


def decoded(runs: Sequence[Run]) -> list[Block]:
    """Draw the weight of the policy and KL a token against position; a line a decode run."""
    runs = distinct(runs)
    names = labels(runs)
    measured = [(run, found) for run in runs if run.command == "decode" and (found := PositionMeans.find(run.path))]
    lines = [
        (Mark(f"{names[run.path]}: {run.facts['strategy']}", colour), found.means)
        for (run, found), colour in zip(measured, itertools.cycle(COLOURS), strict=False)
    ]
    axes = {"policy_share": "Share of the policy", "kl": "KL used (nats a token)"}
    panels = [_by_position(lines, what, axis) for what, axis in axes.items()]
    return [Block("", [mark for mark, _ in lines], [panel for panel in panels if panel])] if lines else []


def _by_position(lines: Sequence[tuple[Mark, Sequence[PositionMean]]], what: str, axis: str) -> Panel | None:
    x = alt.X("first:Q").title("Position (token, from)").scale(type="log", nice=False)
    y = alt.Y("value:Q").title(axis).scale(zero=True)
    layers, said = [], []
    for mark, means in lines:
        own: list[dict[str, Any]] = [
            {"first": one.first, "value": one.value, "low": one.low, "high": one.high, "n": one.n}
            for one in means
            if one.what == what
        ]
        base = chart(own).encode(x=x, y=y)
        band = chart([row for row in own if row["low"] is not None]).mark_area(color=mark.colour, opacity=0.16)
        layers += [band.encode(x=x, y=alt.Y("low:Q"), y2="high:Q"), base.mark_line(color=mark.colour, strokeWidth=1.8)]
        layers.append(base.mark_point(color=mark.colour, filled=True, size=18, opacity=1))
        said += [f"{mark.label} {number(row['value'])} at {row['first']} (n = {row['n']})" for row in own]
    return Panel("", f"{axis} by position: {', '.join(said)}", finish(layers)) if said else None
