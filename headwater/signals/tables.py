"""Tables of a signal measurement and of a divergence for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from rich.console import RenderableType
from rich.table import Table

from headwater.results.signal import CurvePoint, DivergencePoint
from headwater.signals.measuring import SignalMeasurement
from headwater.statistics import LEVEL

if TYPE_CHECKING:
    from headwater.signals.divergence import DivergenceMeasurement

BESIDE = {"length": "longer wins", "words": "words alone"}
"""Curves beside the accuracy in the first table, with their headings."""
CONTROLS = {
    "length-flip": "labels turned with length",
    "suffix": "end",
    "middle": "middle",
    "random-span": "random span",
}
"""Curves of the table of controls, with their headings."""


def signal_tables(found: SignalMeasurement) -> Iterator[RenderableType]:
    """Yield the curve of own cuts beside its controls, the signal depths, and the recommendation."""
    names = dict.fromkeys(point.curve for point in found.curve.points)
    curves = {name: {point.amount: point for point in found.curve.along(name)} for name in names}
    title = f"accuracy by kept share of {found.facts['unit']}, n = {found.metrics['accuracy'].n}"
    yield _curve_table(title, curves, BESIDE, ("accuracy", f"{LEVEL:.0%} interval"))
    yield _curve_table("controls: accuracy at the same share", curves, CONTROLS)
    for name, depth in found.metrics.items():
        if name.startswith("depth_") and depth.low is not None and depth.high is not None:
            share = name.removeprefix("depth_")
            first = f"{100 * depth.value:g} % [{100 * depth.low:g} %, {100 * depth.high:g} %]"
            yield f"D{share}: the first {first} of a response hold {share} % of its signal"
    low, high = found.facts["shuffled"]
    yield f"shuffled labels: {low:.4f} to {high:.4f} in {found.facts['shuffles']} shuffles"
    yield f"\n{found.facts['says']}"


def _curve_table(
    title: str,
    curves: Mapping[str, Mapping[float, CurvePoint]],
    named: Mapping[str, str],
    own: Sequence[str] = (),
) -> Table:
    """Return a row a kept share: accuracy with its interval under the headings `own`, and the `named` curves."""
    beside = {name: curves[name] for name in named if curves.get(name)}
    table = Table("kept", *own, *(named[name] for name in beside), title=title, title_justify="left")
    for amount, point in curves["accuracy"].items():
        cells = [f"{point.value:.4f}", point.estimate.interval()] if own else []
        others = [f"{curve[amount].value:.4f}" if amount in curve else "" for curve in beside.values()]
        table.add_row(f"{100 * amount:.4g} %", *cells, *others)
    return table


def divergence_tables(found: DivergenceMeasurement, along: str) -> Iterator[RenderableType]:
    """Yield KL by position, the shares of the first tokens, and the log-ratios of the tokens by position."""
    by_estimator = _by_name(found.divergence.figures("kl_a_token"), "estimator")
    where = "the data's responses" if along == "texts" else "the policy's own samples"
    heads = [head for name in by_estimator for head in (name, f"{LEVEL:.0%} interval")]
    title = f"KL in nats a token, along {where}"
    table = Table("position", *heads, "responses", title=title, title_justify="left")
    for points in zip(*by_estimator.values(), strict=True):
        cells = [text for point in points for text in (f"{point.value:.4f}", point.estimate.interval())]
        table.add_row(_positions(points[0]), *cells, str(points[0].n))
    yield table
    total = found.metrics["kl_a_response"]
    yield f"a response: {total.value:.4f} nats {total.interval()}, n = {total.n}"
    for share in found.divergence.figures("share"):
        if share.estimator == "exact":
            yield f"first {share.last}: {share.value:.1%} of it {share.estimate.interval()}"
    yield _log_ratio_table(_by_name(found.divergence.figures("log_ratio_a_token"), "responses"))


def _by_name(points: Sequence[DivergencePoint], column: str) -> dict[str, list[DivergencePoint]]:
    names = dict.fromkeys(getattr(point, column) for point in points)
    return {name: [point for point in points if getattr(point, column) == name] for name in names}


def _log_ratio_table(by_responses: Mapping[str, Sequence[DivergencePoint]]) -> Table:
    """Return mean log-ratios by position, three columns a kind of responses; kinds may reach different positions."""
    heads = [head for name in by_responses for head in (name, f"{LEVEL:.0%} interval", "n")]
    title = "mean log-ratio of policy to reference, nats a token"
    table = Table("position", *heads, title=title, title_justify="left")
    columns = [{point.first: point for point in points} for points in by_responses.values()]
    for first, point in {first: point for column in columns for first, point in column.items()}.items():
        cells = [
            [f"{there.value:+.4f}", there.estimate.interval(), str(there.n)]
            if (there := column.get(first))
            else [""] * 3
            for column in columns
        ]
        table.add_row(_positions(point), *(cell for three in cells for cell in three))
    return table


def _log_ratio_cells(point: DivergencePoint | None) -> list[str]:
    return [f"{point.value:+.4f}", point.estimate.interval(), str(point.n)] if point else [""] * 3


def _positions(point: DivergencePoint) -> str:
    if point.last == point.first:
        return str(point.first)
    return f"{point.first} {'and on' if point.last is None else f'– {point.last}'}"
