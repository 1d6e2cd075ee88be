"""Figures of runs as SVG for the page, as specifications for its script, and as files for papers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import altair as alt
import vl_convert
from markupsafe import Markup

from headwater.files import write_atomically
from headwater.reporting.inspected import inspected
from headwater.reporting.interactive import Spec, interactive
from headwater.reporting.plots import DATA_PLOTS, PLOTS, Block, Mark, Panel, Plot
from headwater.results.runs import Run

INK, PAPER = "#1d1c1a", "#ffffff"
LINE = 16
"""Height of a line of a key in pixels, in a file."""
SCALE = 3.0
"""Pixels of a PNG per pixel of the drawing: 300 per inch at 3.1 inches a panel."""
LONGEST = 80
ACROSS, ROWS = 3, 3
"""Panels of a figure in a row of a wide page, and rows that it shows; the other panels are folded."""


@dataclass(frozen=True)
class Drawing:
    """One panel of a figure; its `name` is made of the names of figure, block and panel."""

    name: str
    alt: str
    panel: Panel
    block: Block

    @property
    def svg(self) -> Markup:
        """The drawing that the page shows where no script runs."""
        # ruff's S704 does not apply: this is vl-convert's drawing, not text of a run.
        return Markup(vl_convert.vegalite_to_svg(self.panel.chart.to_dict(), allowed_base_urls=[]))

    @property
    def spec(self) -> Spec:
        """The specification that the page's script draws in its place."""
        return interactive(self.panel.chart)


@dataclass(frozen=True)
class Figure:
    """A figure that has data: its drawings by block."""

    id: str
    title: str
    caption: str
    blocks: Sequence[tuple[Block, Sequence[Drawing]]]

    @property
    def drawings(self) -> list[Drawing]:
        """All of its drawings, in order."""
        return [drawing for _, drawings in self.blocks for drawing in drawings]

    @property
    def shown(self) -> list[tuple[Block, Sequence[Drawing]]]:
        """Its first drawings by block, as many of each block as a row holds."""
        return [(block, drawings[:n]) for (block, drawings), n in zip(self.blocks, self._room(), strict=True) if n]

    @property
    def folded(self) -> list[tuple[Block, Sequence[Drawing]]]:
        """The drawings that are not `shown`."""
        rest = zip(self.blocks, self._room(), strict=True)
        return [(block, drawings[n:]) for (block, drawings), n in rest if drawings[n:]]

    def _room(self) -> list[int]:
        """Return how many drawings of every block are shown: a row at most, and `ROWS` rows in all.

        Blocks of one drawing each share a row.
        """
        room, rows = [], 0.0
        for _, drawings in self.blocks:
            takes = 1 if len(drawings) > 1 else 1 / ACROSS
            own = min(len(drawings), ACROSS) if len(self.blocks) > 1 else len(drawings)
            room.append(own if rows + takes <= ROWS + 1e-9 else 0)
            rows += takes
        return room if sum(room) else [len(drawings[:ACROSS]) for _, drawings in self.blocks]


def figures(plots: Mapping[str, Plot], runs: Sequence[Run], suffix: str = "") -> list[Figure]:
    """Return the figures of `plots` for which `runs` hold data."""
    found = ((section + suffix, plot, plot.draw(runs)) for section, plot in plots.items())
    taken: set[str] = set()
    return [
        Figure(name, plot.title, plot.caption, _named(name, plot.title, blocks, taken))
        for name, plot, blocks in found
        if blocks
    ]


def of_data(runs: Sequence[Run]) -> list[list[Figure]]:
    """Return the figures of every inspected data set, in the order of `inspected`."""
    return [figures(DATA_PLOTS, [found.run], f"-{place}") for place, found in enumerate(inspected(runs), start=1)]


def _named(figure: str, title: str, blocks: Sequence[Block], taken: set[str]) -> list[tuple[Block, list[Drawing]]]:
    named = []
    for block in blocks:
        drawings = []
        for panel in block.panels:
            alt = ". ".join(part for part in (title, block.title, panel.says) if part)
            drawings.append(Drawing(_free(_slug(figure, block.title, panel.title), taken), alt, panel, block))
        named.append((block, drawings))
    return named


def _slug(*parts: str) -> str:
    return re.sub("[^a-z0-9]+", "-", " ".join(parts).lower()).strip("-")[:LONGEST].rstrip("-")


def _free(name: str, taken: set[str]) -> str:
    """Return `name`, numbered where it is taken, and add it to `taken`."""
    free = next(n for n in _numbered(name) if n not in taken)
    taken.add(free)
    return free


def _numbered(name: str) -> Iterator[str]:
    yield name
    for number in range(2, 10_000):
        yield f"{name}-{number}"


# ---- Files for papers ----


def write(runs: Sequence[Run], folder: Path) -> list[Path]:
    """Write every figure of `runs` as SVG, PDF and PNG, each panel with its key, and return the files."""
    drawn = [figure for group in of_data(runs) for figure in group] + figures(PLOTS, runs)
    written = []
    for drawing in (drawing for figure in drawn for drawing in figure.drawings):
        spec = paper(drawing)
        svg = vl_convert.vegalite_to_svg(spec, allowed_base_urls=[])
        forms = {
            "svg": svg.encode(),
            "pdf": vl_convert.svg_to_pdf(svg),
            "png": vl_convert.svg_to_png(svg, scale=SCALE),
        }
        for form, content in forms.items():
            path = folder / f"{drawing.name}.{form}"
            _write(path, content)
            written.append(path)
    return written


def _write(path: Path, content: bytes) -> None:
    write_atomically(path, lambda temporary: temporary.write_bytes(content))


def paper(drawing: Drawing) -> Spec:
    """Return the specification of a drawing for a paper: dark on white, with its key above it."""
    chart: Spec = drawing.panel.chart.to_dict()
    config = chart.pop("config")
    for part in ("background", "autosize"):
        chart.pop(part, None)
    axis = config["axis"] | {"labelColor": INK, "titleColor": INK}
    datasets, schema = chart.pop("datasets", {}), chart.pop("$schema")
    title = drawing.panel.title or drawing.block.title
    drawn = chart | ({"title": {"text": title, "anchor": "start"}} if title else {})
    rows = [drawn] if not drawing.block.key else [_key(drawing.block.key), drawn]
    return {
        "$schema": schema,
        "background": PAPER,
        "config": config | {"axis": axis, "padding": 6, "title": {"fontSize": 12, "fontWeight": "normal"}},
        "datasets": datasets,
        "vconcat": rows,
        "spacing": 10,
    }


def _key(marks: Sequence[Mark]) -> dict[str, Any]:
    """Return a key as a small drawing: a stroke and a label a line."""
    rows = [
        {
            "y": LINE * (place + 0.5),
            "label": mark.label,
            "colour": mark.colour,
            "dash": [4, 3] if mark.dashed else [1, 0],
        }
        for place, mark in enumerate(marks)
    ]
    y = {"field": "y", "type": "quantitative", "scale": None, "axis": None}
    strokes = {
        "mark": {"type": "rule", "strokeWidth": 2.5, "x": 0, "x2": 20},
        "encoding": {
            "y": y,
            "color": {"field": "colour", "type": "nominal", "scale": None},
            "strokeDash": {"field": "dash", "type": "nominal", "scale": None},
        },
    }
    labels = {
        "mark": {"type": "text", "align": "left", "baseline": "middle", "x": 26, "color": INK},
        "encoding": {"y": y, "text": {"field": "label", "type": "nominal"}},
    }
    return {
        "data": {"values": rows},
        "width": 20,
        "height": LINE * len(marks),
        "view": {"stroke": None},
        "layer": [strokes, labels],
    }


# ---- Charts for notebooks ----


def charts(runs: Sequence[Run]) -> dict[str, alt.VConcatChart]:
    """Return the figures for which `runs` hold data as Altair charts: their panels with keys, dark on white."""
    drawn = [*figures(PLOTS, runs), *(figure for group in of_data(runs) for figure in group)]
    return {figure.id: _together(figure) for figure in drawn}


def _together(figure: Figure) -> alt.VConcatChart:
    """Return the panels of a figure in one chart, `ACROSS` in a row."""
    parts = [paper(drawing) for drawing in figure.drawings]
    config = parts[0]["config"]
    datasets = {name: rows for part in parts for name, rows in part["datasets"].items()}
    panels = [{"vconcat": part["vconcat"], "spacing": part["spacing"]} for part in parts]
    rows = [{"hconcat": panels[place : place + ACROSS]} for place in range(0, len(panels), ACROSS)]
    chart: alt.VConcatChart = alt.VConcatChart.from_dict(
        {"title": figure.title, "background": PAPER, "config": config, "datasets": datasets, "vconcat": rows}
    )
    return chart
