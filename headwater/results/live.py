"""A training while it runs, as HTML without scripts: progress and time left, loss, rewards and accuracy by step."""

from __future__ import annotations

import html
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from headwater.results.training import Column, TrainingHistory

WIDTH, HEIGHT = 300, 130
"""Size of a panel in pixels."""
LEFT, RIGHT, TOP, BOTTOM = 54, 8, 8, 20
"""Room around the drawing, for the numbers of its axes."""
COLOURS = ("#0072B2", "#D55E00")
PANELS: tuple[tuple[str, tuple[Column, ...]], ...] = (
    ("Loss", (Column.LOSS,)),
    ("Margin: chosen − rejected", (Column.MARGIN,)),
    ("Rewards", (Column.CHOSEN_REWARD, Column.REJECTED_REWARD)),
    ("Accuracy", (Column.ACCURACY,)),
)
"""Titles of panels and their columns; a column on held-out rows is drawn in the same colour, dashed."""
STYLE = """<style>
.headwater-live { font: 14px/1.4 system-ui, sans-serif; max-width: 660px; }
.headwater-live figure { display: inline-block; width: 300px; margin: 0 8px 8px 0; vertical-align: top; }
.headwater-live figcaption { font-size: 12px; }
.headwater-live svg { max-width: 100%; height: auto; }
.headwater-live progress { width: 100%; }
</style>"""


@dataclass(frozen=True)
class LiveView:
    """What is known of a training at one moment."""

    title: str
    rows: Sequence[Mapping[str, Any]]
    """Rows of the history so far."""
    step: int
    steps: int
    """Optimizer steps done, and of the whole training."""
    left: str = ""
    """Rate and time left, as text."""
    ended: bool = False

    def _repr_html_(self) -> str:
        """Return the view as HTML; every text in it is escaped."""
        history = TrainingHistory(tuple(self.rows))
        panels = "".join(_panel(title, history, columns, self.steps) for title, columns in PANELS)
        state = "finished" if self.ended else self.left or "running"
        heading = f"{self.title}: step {self.step:,} of {self.steps:,} · {state}"
        bar = f'<progress max="{max(self.steps, 1)}" value="{self.step}"></progress>'
        return f'{STYLE}<div class="headwater-live"><div>{html.escape(heading)}</div>{bar}{panels}</div>'


class Line(NamedTuple):
    """One line of a panel."""

    points: Sequence[tuple[float, float]]
    colour: str
    dashed: bool


def _panel(title: str, history: TrainingHistory, columns: Sequence[Column], steps: int) -> str:
    """Return a figure of some columns by step; an empty text where none of them has a finite value."""
    lines = []
    for column, colour in zip(columns, COLOURS, strict=False):
        for name, dashed in ((str(column), False), (column.held_out, True)):
            points = [(step, value) for step, value in history.points(name) if math.isfinite(value)]
            if points:
                lines.append(Line(points, colour, dashed))
    if not lines:
        return ""
    values = [value for line in lines for _, value in line.points]
    low, high = min(values), max(values)
    low, high = (low - 0.5, high + 0.5) if low == high else (low, high)
    last = ", ".join(_last(line, lines) for line in lines)
    drawn = "".join(_drawn(line, low, high, steps) for line in lines)
    axis = "".join(
        f'<text x="{LEFT - 4}" y="{y + 4}" text-anchor="end">{value:.3g}</text>'
        for value, y in ((high, TOP), (low, HEIGHT - BOTTOM))
    )
    axis += f'<text x="{WIDTH - RIGHT}" y="{HEIGHT - 6}" text-anchor="end">step {steps:,}</text>'
    svg = (
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" role="img" aria-label="{html.escape(title)}: {last}" '
        f'font-size="11" fill="#808080">{axis}{drawn}</svg>'
    )
    return f"<figure>{svg}<figcaption>{html.escape(title)}: {last}</figcaption></figure>"


def _last(line: Line, lines: Sequence[Line]) -> str:
    """Return the last value of a line, with what it is where the panel has several."""
    colours = list(dict.fromkeys(one.colour for one in lines))
    side = ("chosen ", "rejected ")[colours.index(line.colour)] if len(colours) > 1 and not line.dashed else ""
    return f"{side}{'held out ' if line.dashed else ''}{line.points[-1][1]:.4g}"


def _drawn(line: Line, low: float, high: float, steps: int) -> str:
    """Return the line, or a point where it has a single value."""
    across, down = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    places = [
        (LEFT + across * step / max(steps, 1), TOP + down * (high - value) / (high - low))
        for step, value in line.points
    ]
    if len(places) == 1:
        (x, y), *_ = places
        return f'<circle cx="{x:.1f}" cy="{y:.1f}" r="2.5" fill="{line.colour}"/>'
    dashes = ' stroke-dasharray="4 3"' if line.dashed else ""
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in places)
    return f'<polyline points="{points}" fill="none" stroke="{line.colour}" stroke-width="1.6"{dashes}/>'
