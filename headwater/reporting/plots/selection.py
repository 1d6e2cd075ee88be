"""What a selection chose: its scores, what it did to the data, and how far other selectors agree."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import altair as alt
import numpy as np
import pyarrow.parquet

from headwater.data.selection import Agreement
from headwater.reporting.findings import distinct, labels, number
from headwater.reporting.plots.drawing import COLOURS, GREY, Block, Chart, Floats, Mark, Panel, chart, finish
from headwater.results.runs import Run
from headwater.results.selection import Selection

BINS = 30
TAKEN = COLOURS[0]
EFFECTS = (
    ("response_characters", "Mean length of a row's responses (characters)"),
    ("response_tokens", "Mean length of a row's responses (tokens)"),
    ("reward_gap", "Reward of the best minus the worst response"),
)
"""Columns of a selection that show what it did, and their axes."""


class Selected(NamedTuple):
    """What one select run wrote."""

    label: str
    columns: Mapping[str, Floats]
    """Numbers a row, NaN where there is none, by name; `taken` among them."""
    summary: Selection


def selections(runs: Sequence[Run]) -> list[Selected]:
    """Read the runs of `select` among `runs`."""
    runs = distinct(runs)
    names = labels(runs)
    found = [(run, Selection.find(run.path)) for run in runs if run.command == "select"]
    return [Selected(names[run.path], _columns(run.path), summary) for run, summary in found if summary]


def _columns(path: Path) -> dict[str, Floats]:
    wanted = ("score", "taken", *(name for name, _ in EFFECTS))
    present = [name for name in pyarrow.parquet.read_schema(path / "selection.parquet").names if name in wanted]
    table = pyarrow.parquet.read_table(path / "selection.parquet", columns=present)
    return {name: table[name].to_numpy().astype(np.float64) for name in present}


def selection_scores(runs: Sequence[Run]) -> list[Block]:
    """Draw the scores of all rows and of those taken, a panel a run."""
    panels = [_compared(found, "score", _axis(found), found.label) for found in selections(runs)]
    return [Block("", _key(), panels)] if panels else []


def selection_effects(runs: Sequence[Run]) -> list[Block]:
    """Draw lengths and reward gaps of all rows and of those taken, a block a run."""
    blocks = []
    for found in selections(runs):
        panels = [_compared(found, name, axis, "") for name, axis in EFFECTS if name in found.columns]
        if len(found.summary.sources) > 1:
            panels.append(_sources(found))
        blocks.append(Block(found.label, _key(), panels))
    return blocks


def selector_agreement(runs: Sequence[Run]) -> list[Block]:
    """Draw rank correlation and overlap with every other selector, a block a run."""
    blocks = []
    for found in selections(runs):
        others = found.summary.agreement
        if others:
            panels = [
                _dots(others, "correlation", "Rank correlation", [-1.0, 1.0]),
                _dots(others, "overlap", "Share of the rows taken", [0.0, 1.0]),
            ]
            blocks.append(Block(f"{found.label}: {found.summary.by}", [Mark("by chance", GREY)], panels))
    return blocks


def gradient_bounds(runs: Sequence[Run]) -> list[Block]:
    """Draw measured gradient norms against their bounds, a panel a run that measured them."""
    panels = [_gradients(found) for found in selections(runs) if found.summary.gradients]
    key = [Mark("taken", TAKEN), Mark("not taken", GREY), Mark("norm = bound", GREY, dashed=True)]
    return [Block("", key, panels)] if panels else []


def _gradients(found: Selected) -> Panel:
    rows = found.summary.gradients
    widest = max(row.bound for row in rows)
    x = alt.X("bound:Q").title("Bound √2·√PVar·√E‖∇log π‖²").scale(domain=[0, widest])
    y = alt.Y("norm:Q").title("Gradient norm / β").scale(domain=[0, widest])
    line = chart([{"bound": end, "norm": end} for end in (0, widest)]).encode(x=x, y=y)
    layers = [line.mark_line(color=GREY, strokeWidth=1, strokeDash=[4, 3])]
    for taken, colour in ((False, GREY), (True, TAKEN)):
        points = chart([{"bound": row.bound, "norm": row.norm} for row in rows if row.taken == taken]).encode(x=x, y=y)
        layers.append(points.mark_point(color=colour, filled=True, size=22, opacity=0.8))
    ratios = [row.norm / row.bound for row in rows if row.bound > 0]
    mean, largest = (number(float(figure(ratios))) for figure in (np.mean, np.max)) if ratios else ("none", "none")
    says = f"Gradient norm over its bound: mean {mean}, largest {largest} (n = {len(ratios)})"
    return Panel(found.label, says, finish(layers))


def _key() -> list[Mark]:
    return [Mark("all rows", GREY), Mark("taken", TAKEN)]


def _axis(found: Selected) -> str:
    return f"Score by {found.summary.by}"


def _compared(found: Selected, name: str, axis: str, title: str) -> Panel:
    """Draw the distribution of one column over all rows and over those taken."""
    values, taken = found.columns[name], found.columns["taken"] > 0
    known = ~np.isnan(values)
    every, chosen = values[known], values[known & taken]
    edges = np.histogram_bin_edges(every, BINS)
    says = f"{axis}: mean of all rows {_mean(every)}, of those taken {_mean(chosen)}"
    return Panel(title, says, _steps([(every, GREY), (chosen, TAKEN)], edges, axis))


def _mean(values: Floats) -> str:
    return f"{number(float(values.mean()))} (n = {len(values)})" if len(values) else "none (n = 0)"


def _steps(sides: Sequence[tuple[Floats, str]], edges: Floats, axis: str) -> Chart:
    layers = []
    for values, colour in sides:
        shares = np.histogram(values, edges)[0] / max(1, len(values))
        corners = zip([edges[0], *edges], [0.0, *shares, 0.0], strict=True)
        rows = [{"x": float(corner), "share": float(share)} for corner, share in corners]
        area = chart(rows).mark_area(
            interpolate="step-after", color=colour, fillOpacity=0.18, line={"color": colour, "strokeWidth": 1.2}
        )
        x = alt.X("x:Q").title(axis).scale(domain=[float(edges[0]), float(edges[-1])], nice=False)
        layers.append(area.encode(x=x, y=alt.Y("share:Q").title("Share of rows").axis(format="~%")))
    return finish(layers, height=150)


MOST_SOURCES = 12


def _sources(found: Selected) -> Panel:
    """Draw the share of each of the largest sources among all rows and among those taken."""
    counts = list(found.summary.sources.items())[:MOST_SOURCES]
    totals = [sum(column) for column in zip(*found.summary.sources.values(), strict=True)]
    rows = [
        {"source": source, "all": every / totals[0], "taken": taken / max(1, totals[1])}
        for source, (every, taken) in counts
    ]
    says = "; ".join(
        f"{row['source']}: {row['all']:.1%} of all rows, {row['taken']:.1%} of those taken" for row in rows
    )
    y = (
        alt.Y("source:N")
        .title(None)
        .sort([row["source"] for row in rows])
        .axis(labelLimit=120, labelPadding=8, ticks=False)
    )
    base = chart(rows).encode(y=y)
    x = alt.X("all:Q").title("Share of rows").axis(format="~%").scale(zero=True)
    layers = [
        base.mark_rule(color=GREY, opacity=0.5).encode(x=x, x2="taken:Q"),
        base.mark_point(color=GREY, filled=True, size=40, opacity=1).encode(x=x),
        base.mark_point(color=TAKEN, filled=True, size=40, opacity=1).encode(x="taken:Q"),
    ]
    return Panel("Sources", says, finish(layers, height=50 + 18 * len(rows)))


def _dots(others: Sequence[Agreement], what: str, axis: str, domain: list[float]) -> Panel:
    """Draw one figure of every other selector with its interval; a grey tick marks the value by chance."""
    rows = [
        {"other": one.other, **figure._asdict(), "chance": 0.0 if what == "correlation" else one.chance}
        for one in others
        if not math.isnan((figure := getattr(one, what)).value)
    ]
    says = ", ".join(f"{row['other']} {number(row['value'])} (n = {row['n']})" for row in rows)
    y = (
        alt.Y("other:N")
        .title(None)
        .sort([row["other"] for row in rows])
        .axis(labelLimit=150, labelPadding=8, ticks=False)
    )
    x = alt.X("value:Q").title(axis).scale(domain=domain)
    bounded = chart([row for row in rows if row["low"] is not None]).encode(y=y)
    layers = [
        bounded.mark_rule(color=TAKEN, strokeWidth=1.5).encode(x=alt.X("low:Q").scale(domain=domain), x2="high:Q"),
        chart(rows).mark_tick(color=GREY, thickness=2).encode(y=y, x=alt.X("chance:Q").scale(domain=domain)),
        chart(rows).mark_point(color=TAKEN, filled=True, size=48, opacity=1).encode(y=y, x=x),
    ]
    return Panel(axis, f"{axis}: {says or 'n = 0'}", finish(layers, height=50 + 20 * len(rows)))
