"""Figures of studies: lines over the rows of a table, with published curves beside, or a figure of the report."""

from __future__ import annotations

import itertools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import altair as alt

from headwater.data.published import published_points
from headwater.errors import UsageError, did_you_mean
from headwater.reporting import figures
from headwater.reporting.figures import Drawing
from headwater.reporting.findings import number
from headwater.reporting.plots import DATA_PLOTS, PLOTS
from headwater.reporting.plots.drawing import COLOURS, GREY, Block, Mark, Panel, chart, finish
from headwater.results.study import StudyDrawing, StudyFigure, StudyRow, StudyTable
from headwater.studies.recipes import patterns
from headwater.studies.recipes.finished import FinishedCells

Points = list[dict[str, Any]]
ALL_PLOTS = PLOTS | DATA_PLOTS


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A figure of a recipe; every kind of figure is a subclass."""

    title: str
    caption: str = ""
    table: str = ""
    """Title of the table whose rows are drawn."""
    place: str = ""

    def patterns(self) -> tuple[str, ...]:
        """Return the patterns of the cells that are read."""
        return ()

    def drawn(self, tables: Mapping[str, StudyTable], finished: FinishedCells) -> StudyFigure:
        """Return the figure; without drawings where nothing is measured."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class Lines(Drawn):
    """A line for every set of labels, through the figures of its rows, with their intervals."""

    x: str
    """Label whose values are numbers, or begin with one; or another figure."""
    y: str
    """Figure."""
    lines: tuple[str, ...] = ()
    """Labels by which lines differ."""
    panels: tuple[str, ...] = ()
    """Labels by which panels differ."""
    published: Mapping[str, str] = field(default_factory=dict)
    """Curves of the source by name, as `{data:NAME}/FILE.json:NAME`, or FILE.json for a file of one."""
    apart: bool = False
    """Whether published curves have a panel of their own, because their unit is another one."""
    log: bool = False
    """Whether x is logarithmic."""
    x_title: str = ""
    y_title: str = ""

    def drawn(self, tables: Mapping[str, StudyTable], finished: FinishedCells) -> StudyFigure:
        """Return a drawing for every panel."""
        table = tables[self.table]
        behind = self._behind(finished, any("%" in row.labels.get(self.x, "") for row in table.rows))
        panels: dict[tuple[str, ...], list[StudyRow]] = {}
        for row in table.rows:
            if self.y in row.figures and self._place(row) is not None:
                panels.setdefault(_those(row, self.panels), []).append(row)
        beside = {} if self.apart else behind
        drawings = [self._panel(", ".join(name), self._points(rows), beside) for name, rows in panels.items()]
        if drawings and behind and self.apart:
            drawings.append(self._panel("published", {name: _as_points(own) for name, own in behind.items()}, {}))
        return StudyFigure(title=self.title, caption=self.caption, drawings=tuple(drawings))

    def _behind(self, finished: FinishedCells, percent: bool) -> dict[str, list[tuple[float, float]]]:
        """Return the published curves that are there, by name; kept shares become percent where x is."""
        found = {}
        for name, text in self.published.items():
            filled = patterns.with_places(text, lambda kind, name: finished.sources[f"{kind}:{name}"])
            if Path(re.sub(r"\.json:.*", ".json", filled)).is_file():
                points = published_points(filled)
                found[name] = [(100 * x if percent else x, y) for x, y in points if x > 0 or not self.log]
        return found

    def _place(self, row: StudyRow) -> float | None:
        """Return where a row stands on the axis; None where that is unknown, or not on a logarithmic one."""
        found = row.figures[self.x].value if self.x in row.figures else _number(row.labels.get(self.x, ""))
        return None if found is None or (self.log and found <= 0) else found

    def _points(self, rows: Sequence[StudyRow]) -> dict[str, Points]:
        """Return the points of every line, from left to right."""
        lines: dict[str, Points] = {}
        for row in rows:
            found = row.figures[self.y]
            point = {"x": self._place(row), "y": found.value, "low": found.low, "high": found.high}
            lines.setdefault(", ".join(_those(row, self.lines)) or self.y, []).append(point)
        return {line: sorted(points, key=lambda point: float(point["x"])) for line, points in lines.items()}

    def _panel(
        self, name: str, lines: Mapping[str, Points], behind: Mapping[str, Sequence[tuple[float, float]]]
    ) -> StudyDrawing:
        x, y = self._axes()
        layers: list[Any] = []
        for curve in behind.values():
            own = chart(_as_points(curve))
            layers.append(own.mark_line(color=GREY, strokeDash=[4, 3], strokeWidth=1.5).encode(x=x, y=y))
        for points, colour in zip(lines.values(), itertools.cycle(COLOURS), strict=False):
            base = chart(points).encode(x=x, y=y)
            bars = chart([point for point in points if point["low"] is not None])
            bars = bars.mark_rule(color=colour, opacity=0.45)
            layers.append(bars.encode(x=x, y=alt.Y("low:Q").scale(zero=False), y2="high:Q"))
            layers += [base.mark_line(color=colour, strokeWidth=1.8), base.mark_point(color=colour, filled=True)]
        key = [Mark(line, colour) for line, colour in zip(lines, itertools.cycle(COLOURS), strict=False)]
        key += [Mark(line, GREY, dashed=True) for line in behind]
        says = _said(lines)
        panel = Panel(name, says, finish(layers))
        alt_text = ". ".join(part for part in (self.title, name, says) if part)
        return _stored(Drawing("", alt_text, panel, Block(name, key, [panel])))

    def _axes(self) -> tuple[alt.X, alt.Y]:
        x = alt.X("x:Q").title(self.x_title or self.x)
        x = x.scale(type="log", nice=False) if self.log else x.scale(zero=False)
        return x, alt.Y("y:Q").title(self.y_title or self.y).scale(zero=False)


def _said(lines: Mapping[str, Points]) -> str:
    return "; ".join(
        f"{line}: " + ", ".join(f"{number(point['y'])} at {point['x']:g}" for point in points)
        for line, points in lines.items()
    )


@dataclass(frozen=True, kw_only=True)
class PlotOf(Drawn):
    """A figure of `headwater report`, of the runs of some cells."""

    plot: str
    """Name of the figure, in `headwater.reporting.plots`: those of `PLOTS`, and of `inspect` those of `DATA_PLOTS`."""
    cells: tuple[str, ...]

    def __post_init__(self) -> None:
        """Refuse a figure that the report does not have. Errors: `UsageError`."""
        if self.plot not in ALL_PLOTS:
            raise UsageError(self.place, f"unknown plot {self.plot}", did_you_mean(self.plot, ALL_PLOTS))

    def patterns(self) -> tuple[str, ...]:
        """Return the patterns of the cells that are read."""
        return self.cells

    def drawn(self, tables: Mapping[str, StudyTable], finished: FinishedCells) -> StudyFigure:
        """Return the drawings that the report has of these runs."""
        runs = [cell.run for cell in finished.of(self.cells)]
        found = figures.figures({self.plot: ALL_PLOTS[self.plot]}, runs)
        drawings = [_stored(drawing) for figure in found for drawing in figure.drawings]
        return StudyFigure(title=self.title, caption=self.caption, drawings=tuple(drawings))


DRAWINGS: dict[str, type[Drawn]] = {"lines": Lines, "plot": PlotOf}
"""Kinds of figures by the name that a recipe gives."""


def _stored(drawing: Drawing) -> StudyDrawing:
    return StudyDrawing(alt=drawing.alt, spec=figures.paper(drawing))


def _those(row: StudyRow, names: Sequence[str]) -> tuple[str, ...]:
    return tuple(row.labels.get(name, "") for name in names)


def _number(text: str) -> float | None:
    """Return the number with which a label begins: 50 of `50%`, 5 of `5–9`; None where it begins with none."""
    found = re.match(r"\d+(\.\d+)?", text)
    return float(found[0]) if found else None


def _as_points(curve: Sequence[tuple[float, float]]) -> Points:
    return [{"x": x, "y": y, "low": None, "high": None} for x, y in curve]
