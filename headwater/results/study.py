"""Stored result of `headwater run`: everything that the page of a study shows, so that it needs no runs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from headwater.results.stored import StoredResult
from headwater.statistics import Estimate

Answer = Literal["replicates", "does not replicate", "not decided", "not measured"]
Outcome = Literal["inside", "outside", "not measured"]


@dataclass(frozen=True, kw_only=True)
class StudyCell:
    """A cell: one run of one command."""

    name: str
    command: str
    state: str
    """`done`, `missing`, `failed`, `other settings` or `outdated`."""
    seconds: float | None = None
    """Wall time of its last run."""


@dataclass(frozen=True, kw_only=True)
class StudyStep:
    """A step as the recipe writes it."""

    cell: str
    """Pattern of the names of its cells."""
    command: str
    options: Mapping[str, str]
    values: Mapping[str, tuple[str, ...]]
    """Values that its cells are made for, by name."""
    cells: int
    done: int


@dataclass(frozen=True, kw_only=True)
class StudyRow:
    """A row of a table: what it is about, and its figures. A figure without an interval has no `low` and `high`."""

    labels: Mapping[str, str]
    figures: Mapping[str, Estimate]


@dataclass(frozen=True, kw_only=True)
class StudyTable:
    """A table: rows with the same columns, of which some may be missing."""

    title: str
    kind: str
    note: str = ""
    rows: tuple[StudyRow, ...] = ()
    cells: int = 0
    """Cells that it is made of, and how many of them are done."""
    done: int = 0


@dataclass(frozen=True, kw_only=True)
class StudyClaim:
    """A sentence of a paper, and what the cells say of it, row by row."""

    says: str
    source: str
    answer: Answer
    sentence: str


@dataclass(frozen=True, kw_only=True)
class StudyCheck:
    """A figure of a table, and the interval in which the recipe expects it."""

    table: str
    figure: str
    where: Mapping[str, str]
    low: float
    high: float
    outcome: Outcome
    value: Estimate | None = None


@dataclass(frozen=True, kw_only=True)
class StudyDrawing:
    """One drawing of a figure, as a Vega-Lite specification with its data."""

    alt: str
    spec: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class StudyFigure:
    """A figure of one or more drawings."""

    title: str
    caption: str
    drawings: tuple[StudyDrawing, ...] = ()


@dataclass(frozen=True, kw_only=True)
class StudyResult(StoredResult):
    """Everything that the page of a study shows."""

    FILE: ClassVar[str] = "study.json"

    name: str
    title: str
    question: str
    source: str
    note: str = ""
    values: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    needs: Mapping[str, str] = field(default_factory=dict)
    """Data and models as the recipe names them."""
    steps: tuple[StudyStep, ...] = ()
    cells: tuple[StudyCell, ...] = ()
    tables: tuple[StudyTable, ...] = ()
    claims: tuple[StudyClaim, ...] = ()
    checks: tuple[StudyCheck, ...] = ()
    figures: tuple[StudyFigure, ...] = ()
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    """Numbers that the source printed, by table and label."""
    machines: tuple[str, ...] = ()
    versions: Mapping[str, str] = field(default_factory=dict)
    first: str = ""
    """Day on which the first cell began, and on which the last one did; empty where none is done."""
    last: str = ""

    @property
    def done(self) -> int:
        """Number of finished cells."""
        return sum(cell.state == "done" for cell in self.cells)
