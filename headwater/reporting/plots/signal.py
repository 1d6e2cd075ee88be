"""Accuracy at every prefix, beside its controls."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import altair as alt

from headwater.reporting.findings import CHANCE, distinct, estimate, labels, number, percent
from headwater.reporting.plots.drawing import COLOURS, GREY, Block, Chart, Mark, Panel, Rows, chart, finish
from headwater.results.runs import Run
from headwater.results.signal import CurvePoint, SignalCurve

MOST_LINES = 4
"""Most lines of a drawing of groups, the largest groups first."""


class Line(NamedTuple):
    """One curve as drawn, shortest first; without a colour of its own it is grey and dashed."""

    label: str
    points: Rows
    colour: str = GREY


def prefix_curves(runs: Sequence[Run]) -> list[Block]:
    """Return drawings of signal runs: the curve, other parts of the same size, other cuts, amounts and groups."""
    runs = distinct(runs)
    names = labels(runs)
    measured = [(run, SignalCurve.find(run.path)) for run in runs if run.command == "signal"]
    return [block for run, found in measured if found for block in _blocks(run, found, names[run.path])]


def _blocks(run: Run, found: SignalCurve, name: str) -> Iterator[Block]:
    unit = run.facts["unit"]
    share = f"Kept share of {unit} (%)"
    curve = Line("beginning", _points(found.along()), COLOURS[0])
    words = Line("words alone", _points(found.along("words")), COLOURS[2])
    published = Line(Path(str(run.facts.get("published"))).name, _points(found.along("published")), COLOURS[5])
    yield from line_block(f"{name}: beginnings", share, [curve, words, _length(found), published], _markers(run))
    parts = {"end": "suffix", "middle": "middle", "random span": "random-span"}
    others = [
        Line(label, _points(found.along(part)), c) for (label, part), c in zip(parts.items(), COLOURS[1:], strict=False)
    ]
    yield from line_block(f"{name}: other parts of the same size", share, [curve, *others])
    turned = Line("labels turned with length", _points(found.along("length-flip")), COLOURS[1])
    if turned.points:
        yield from line_block(f"{name}: where a cut changes which is longer", share, [curve, turned])
    cuts = {"the shorter one's": "equal", "the longer one's": "shared"}
    own = curve._replace(label="its own")
    both = [
        Line(label, _points(found.along(cut=cut)), c)
        for (label, cut), c in zip(cuts.items(), COLOURS[1:], strict=False)
    ]
    yield from line_block(f"{name}: by whose length a response is cut", share, [own, *both])
    amounts = [curve._replace(points=_points(found.along(unit=unit)))]
    amounts.append(published._replace(points=_points(found.along("published", unit=unit))))
    yield from line_block(f"{name}: by {unit}", f"Kept {unit} of each response", amounts, ticks="log")
    for kind in dict.fromkeys(point.group.partition(": ")[0] for point in found.points if ": " in point.group):
        groups = _groups(found, kind)
        if len(groups) > 1:
            yield from line_block(f"{name}: by {kind}", share, groups)


def _points(points: Sequence[CurvePoint]) -> list[dict[str, Any]]:
    return [
        {
            "x": (100 if point.unit == "ratio" else 1) * point.amount,
            "y": point.value,
            "low": point.low,
            "high": point.high,
            "n": point.n,
        }
        for point in points
    ]


def _length(found: SignalCurve) -> Line:
    """Return the accuracy of length alone, in the direction that is right on full responses."""
    points = _points(found.along("length"))
    if not points or points[-1]["y"] >= CHANCE:
        return Line("longer wins", points)
    turned = [p | {"y": 1 - p["y"], "low": _opposite(p["high"]), "high": _opposite(p["low"])} for p in points]
    return Line("shorter wins", turned)


def _opposite(bound: float | None) -> float | None:
    return None if bound is None else 1 - bound


def _groups(found: SignalCurve, kind: str) -> list[Line]:
    names = dict.fromkeys(point.group for point in found.points if point.group.startswith(f"{kind}: "))
    curves = {name.removeprefix(f"{kind}: "): _points(found.along(group=name)) for name in names}
    largest = sorted(curves, key=lambda name: -curves[name][0]["n"])[:MOST_LINES]
    chosen = [(name, points) for name, points in curves.items() if name in largest]
    return [
        Line(f"{name}, n = {points[0]['n']}", points, c) for (name, points), c in zip(chosen, COLOURS, strict=False)
    ]


def line_block(
    title: str, axis: str, lines: Sequence[Line], markers: Sequence[Any] = (), ticks: str = "linear"
) -> Iterator[Block]:
    """Yield one drawing with its key, if there is anything to draw; the first line has its intervals around it."""
    lines = [line for line in lines if line.points]
    if lines:
        key = [Mark(line.label, line.colour, dashed=line.colour == GREY) for line in lines]
        yield Block(title, key, [Panel("", _says(lines), _drawing(axis, lines, markers, ticks))])


def _says(lines: Sequence[Line]) -> str:
    ends = [(line.label, line.points[0], line.points[-1]) for line in lines]
    return "; ".join(
        f"{label}: accuracy {number(a['y'])} at {a['x']:g}, {number(b['y'])} at {b['x']:g}" for label, a, b in ends
    )


def _drawing(axis: str, lines: Sequence[Line], markers: Sequence[Any], ticks: str) -> Chart:
    bounds = [end for line in lines for p in line.points for end in (p["y"], p["low"], p["high"]) if end is not None]
    heights = [max(0.0, min(CHANCE, *bounds) - 0.02), min(1.0, max(CHANCE, *bounds) + 0.02)]
    x = alt.X("x:Q").title(axis)
    x = x.scale(domain=[0, 100]) if ticks == "linear" else x.scale(type="log", nice=False)
    y = alt.Y("y:Q").title("Accuracy (share of pairs)").scale(domain=heights, nice=False, zero=False)
    bounded = [point for point in lines[0].points if point["low"] is not None]
    chance = chart([{"y": CHANCE}]).mark_rule(color=GREY, strokeDash=[2, 3]).encode(y=alt.Y("y:Q").scale(zero=False))
    band = chart(bounded).mark_area(color=lines[0].colour, opacity=0.16)
    layers = [*markers, chance, band.encode(x=x, y=alt.Y("low:Q").scale(zero=False), y2="high:Q")]
    for line in lines:
        dash = [4, 3] if line.colour == GREY else [1, 0]
        base = chart(line.points).encode(x=x, y=y)
        layers.append(base.mark_line(color=line.colour, strokeWidth=1.8, strokeDash=dash))
        layers.append(base.mark_point(color=line.colour, filled=True, size=18, opacity=1))
    return finish(layers)


def _markers(run: Run) -> list[Any]:
    """Mark where shuffled labels lie, the signal depth with its interval, and the ratio to keep."""
    layers: list[Any] = []
    if "shuffled" in run.facts:
        low, high = run.facts["shuffled"]
        band = chart([{"low": low, "high": high}]).mark_rect(color=GREY, opacity=0.1)
        layers.append(band.encode(y=alt.Y("low:Q").scale(zero=False), y2="high:Q"))
    depth, keep = estimate(run, "depth_90"), run.facts.get("recommended_keep")
    if depth and depth.low is not None and depth.high is not None:
        span = chart([{"from": 100 * depth.low, "to": 100 * depth.high}]).mark_rect(color=GREY, opacity=0.12)
        layers += [span.encode(x="from:Q", x2="to:Q"), _rule(100 * depth.value, "D90", -7)]
    if run.facts.get("planted_depth") is not None:
        planted = float(run.facts["planted_depth"])
        layers.append(_rule(100 * planted, f"planted depth {percent(planted)}", -33))
    if keep is not None and float(keep) < 1:
        layers.append(_rule(100 * float(keep), f"keep {percent(float(keep))}", -20))
    return layers


def _rule(x: float, text: str, height: int) -> Any:
    """Draw a line at `x` percent, and its name on the side where there is room."""
    rows = [{"x": x, "text": text}]
    rule = chart(rows).mark_rule(color=GREY, strokeWidth=1).encode(x="x:Q")
    name = chart(rows)
    right = name.mark_text(align="left", dx=4, dy=height, color=GREY)
    label = right if x <= 60 else name.mark_text(align="right", dx=-4, dy=height, color=GREY)
    return rule + label.encode(x="x:Q", y=alt.value("height"), text="text:N")
