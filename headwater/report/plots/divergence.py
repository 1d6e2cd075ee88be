"""How far a policy has moved from its reference, by position, and towards which responses."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence

import altair as alt

from headwater.report.findings import distinct, labels, number
from headwater.report.plots.drawing import COLOURS, Block, Mark, Panel, Rows, chart, finish
from headwater.results.runs import Run

PROFILE = "divergence.json"


def divergence_by_position(runs: Sequence[Run]) -> list[Block]:
    """Draw KL a token against position with the share of the first tokens, and the log-ratio of the tokens there."""
    runs = distinct(runs)
    names = labels(runs)
    measured = [run for run in runs if run.command == "divergence" and (run.path / PROFILE).is_file()]
    return [block for run in measured for block in _blocks(run, names[run.path])]


def _blocks(run: Run, name: str) -> Iterator[Block]:
    rows = json.loads((run.path / PROFILE).read_text(encoding="utf-8"))
    along = "the data's responses" if run.facts["along"] == "texts" else "its own samples"
    estimators = _names(rows, "estimator")
    key = [Mark(f"{estimator}, along {along}", c) for estimator, c in zip(estimators, COLOURS, strict=False)]
    # A stretch stands at its first position: the last one has no end.
    by_token = _panel(rows, "kl_a_token", "first", ("Position (token, from)", "KL (nats a token)"), "estimator")
    shares = _panel(rows, "share", "last", ("First tokens of a response", "Share of its KL"), "estimator")
    yield Block(name, key, [panel for panel in (by_token, shares) if panel])
    key = [Mark(responses, c) for responses, c in zip(_names(rows, "responses"), COLOURS, strict=False)]
    axes = ("Position (token, from)", "log π / π_ref (nats a token)")
    log_ratios = _panel(rows, "log_ratio_a_token", "first", axes, "responses")
    if log_ratios:
        yield Block(f"{name}: log-ratio of the tokens", key, [log_ratios])


def _names(rows: Rows, column: str) -> list[str]:
    return list(dict.fromkeys(row[column] for row in rows if column in row))


def _panel(rows: Rows, what: str, place: str, axes: tuple[str, str], column: str) -> Panel | None:
    """Draw one kind of figure over positions, on a logarithmic axis: a line with its intervals a name in `column`."""
    points = [
        {"x": row[place], "y": row["value"], "low": row["low"], "high": row["high"], "line": row[column]}
        for row in rows
        if row["what"] == what
    ]
    if not points:
        return None
    x = alt.X("x:Q").title(axes[0]).scale(type="log", nice=False)
    y = alt.Y("y:Q").title(axes[1]).scale(zero=True)
    layers = []
    lines = {name: [point for point in points if point["line"] == name] for name in _names(rows, column)}
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
