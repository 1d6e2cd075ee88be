"""Figures of runs as SVG for the page, as specifications for its script, and as files for papers."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import vl_convert
from markupsafe import Markup

from headwater.files import write_atomically
from headwater.report.inspected import inspected
from headwater.report.interactive import Spec, interactive
from headwater.report.plots import DATA_PLOTS, PLOTS, SECTIONS, Block, Mark, Panel, Plot
from headwater.results.runs import Run

INK, PAPER = "#1d1c1a", "#ffffff"
LINE = 16
"""Height of a line of a key in pixels, in a file."""
SCALE = 3.0
"""Pixels of a PNG per pixel of the drawing: 300 per inch at 3.1 inches a panel."""
LONGEST = 80


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


def sections(drawn: Sequence[Figure]) -> dict[str, list[Figure]]:
    """Return figures by section of the page, in the order of `SECTIONS`."""
    of = {name: title for title, names in SECTIONS.items() for name in names}
    grouped: dict[str, list[Figure]] = {title: [] for title in (*SECTIONS, "Further figures")}
    for figure in drawn:
        grouped[of.get(figure.id, "Further figures")].append(figure)
    return {title: found for title, found in grouped.items() if found}


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
