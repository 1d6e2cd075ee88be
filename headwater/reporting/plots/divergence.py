"""KL of a policy from its reference by position, and the log-ratio of chosen and rejected tokens."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import altair as alt

from headwater.reporting.findings import distinct, labels, number
from headwater.reporting.plots.drawing import COLOURS, Block, Mark, Panel, chart, finish
from headwater.results.runs import Run
from headwater.results.signal import Divergence, DivergencePoint


def divergence_by_position(runs: Sequence[Run]) -> list[Block]:
    """Draw KL a token against position with the share of the first tokens, and the log-ratio of the tokens there."""
    runs = distinct(runs)
    names = labels(runs)
    measured = [(run, Divergence.find(run.path)) for run in runs if run.command == "divergence"]
    return [block for run, found in measured if found for block in _blocks(run, found, names[run.path])]


def _blocks(run: Run, found: Divergence, name: str) -> Iterator[Block]:
    along = "the data's responses" if run.facts["along"] == "texts" else "its own samples"
    kl, log_ratios = found.figures("kl_a_token"), found.figures("log_ratio_a_token")
    estimators = _names(kl, "estimator")
    key = [Mark(f"{estimator}, along {along}", c) for estimator, c in zip(estimators, COLOURS, strict=False)]
    # A range is drawn at its first position: the last one has no end.
    by_token = _panel(kl, "first", ("Position (token, from)", "KL (nats a token)"), "estimator")
    shares = _panel(found.figures("share"), "last", ("First tokens of a response", "Share of its KL"), "estimator")
    yield Block(name, key, [panel for panel in (by_token, shares) if panel])
    key = [Mark(responses, c) for responses, c in zip(_names(log_ratios, "responses"), COLOURS, strict=False)]
    axes = ("Position (token, from)", "log π / π_ref (nats a token)")
    by_token = _panel(log_ratios, "first", axes, "responses")
    if by_token:
        yield Block(f"{name}: log-ratio of the tokens", key, [by_token])


def _names(figures: Sequence[DivergencePoint], column: str) -> list[str]:
    return list(dict.fromkeys(getattr(figure, column) for figure in figures))


def _panel(figures: Sequence[DivergencePoint], place: str, axes: tuple[str, str], column: str) -> Panel | None:
    """Draw figures over positions on a logarithmic axis: a line with its intervals for each name in `column`."""
    points = [
        {"x": getattr(figure, place), "y": figure.value, "low": figure.low, "high": figure.high}
        | {"line": getattr(figure, column)}
        for figure in figures
    ]
    if not points:
        return None
    x = alt.X("x:Q").title(axes[0]).scale(type="log", nice=False)
    y = alt.Y("y:Q").title(axes[1]).scale(zero=True)
    layers = []
    lines = {name: [point for point in points if point["line"] == name] for name in _names(figures, column)}
    for own, colour in zip(lines.values(), COLOURS, strict=False):
        bounded = [point for point in own if point["low"] is not None]
        band = chart(bounded).mark_area(color=colour, opacity=0.16)
        base = chart(own).encode(x=x, y=y)
        layers += [band.encode(x=x, y=alt.Y("low:Q"), y2="high:Q"), base.mark_line(color=colour, strokeWidth=1.8)]
        layers.append(base.mark_point(color=colour, filled=True, size=18, opacity=1))
    says = "; ".join(
        f"{name}: " + ", ".join(f"{number(point['y'])} at {point['x']}" for point in own) for name, own in lines.items()
    )
    return Panel("", f"{axes[1]} by position, {says}", finish(layers))
