"""Parts of figures: panels in blocks, one palette, one style."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import altair as alt
import numpy as np
from numpy.typing import NDArray

from headwater.results.runs import Run

# After Okabe and Ito, and Tol: distinct for every kind of colour vision, 3 : 1 against the page (WCAG 1.4.11).
COLOURS = ("#0072B2", "#D55E00", "#00966C", "#CB75A4", "#5C4B00", "#882255")
DARK = dict(zip(COLOURS, ("#4aa5dc", "#ee8134", "#17b384", "#e7a5ca", "#f0e060", "#b0608a"), strict=True))
"""Their counterparts on a dark page; the page swaps them."""
CHOSEN, REJECTED = COLOURS[0], COLOURS[1]
GREY = "#808080"  # readable on white and on near-black

PANEL_WIDTH = 310  # pixels, axes included: fits a phone, and three fit a page
PANEL_HEIGHT = 190

Floats = NDArray[np.float64]
Rows = list[dict[str, Any]]
Chart = alt.LayerChart


class Mark(NamedTuple):
    """One entry of a key: a label with its colour, and whether it is dashed."""

    label: str
    colour: str
    dashed: bool = False


class Panel(NamedTuple):
    """One drawing; `says` is its description with the key numbers, for readers who cannot see it."""

    title: str
    says: str
    chart: Chart


class Block(NamedTuple):
    """Panels that share one key."""

    title: str
    key: list[Mark]
    panels: list[Panel]


@dataclass(frozen=True)
class Plot:
    """A figure's title, how to read it, and the function that draws it."""

    title: str
    caption: str
    draw: Callable[[Sequence[Run]], list[Block]]


def chart(rows: Rows) -> alt.Chart:
    """Return a chart whose rows are part of the drawing."""
    return alt.Chart(alt.InlineData(values=rows))


def finish(layers: Sequence[Any], width: int = PANEL_WIDTH, height: int = PANEL_HEIGHT) -> Chart:
    """Return layers as one drawing in the style of the page: hairlines, no frame, transparent background."""
    finished: Chart = (
        alt.layer(*layers)
        .properties(width=width, height=height, background="transparent")
        .configure(
            aria=False,
            autosize=alt.AutoSizeParams(type="fit", contains="padding"),
            font="Helvetica, Arial, sans-serif",
            padding=2,
        )
        .configure_view(stroke=None)
        .configure_text(fontSize=12)
        .configure_axisX(grid=False)
        .configure_axis(
            labelFontSize=11,
            titleFontSize=12,
            titleFontWeight="normal",
            titlePadding=8,
            labelColor=GREY,
            titleColor=GREY,
            gridColor=GREY,
            gridOpacity=0.16,
            domain=False,
            tickColor=GREY,
            tickSize=3,
            tickCount=5,
        )
    )
    return finished
