"""Claims of papers and expected figures of a recipe, answered from tables: by the rule of `noninferiority`, or not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from headwater import noninferiority
from headwater.errors import UsageError
from headwater.noninferiority import MARGIN, Comparison
from headwater.results.study import Answer, StudyCheck, StudyClaim, StudyRow, StudyTable
from headwater.statistics import Estimate

if TYPE_CHECKING:
    from headwater.studies.recipes.finished import FinishedCells
    from headwater.studies.recipes.tables import Table

Expectation = Literal["not worse", "better", "worse", "above", "below"]
WORDS = "above words"
"""Figure of an accuracy table that is itself a difference of shares, to the bag of words."""


@dataclass(frozen=True)
class Claim:
    """A sentence of a paper, as a comparison of two rows, or of a figure with a number."""

    says: str
    table: str
    """Title of the table."""
    expect: Expectation
    """What the claim says of the first row, or of the figure."""
    source: str = ""
    where: Mapping[str, str] = field(default_factory=dict)
    """Labels of the rows that it is about; all rows where none is given."""
    first: Mapping[str, str] = field(default_factory=dict)
    second: Mapping[str, str] = field(default_factory=dict)
    """Labels of the row that the first is compared with; the others are those of the first."""
    figure: str = ""
    """Figure that is compared with `than`, where no two rows are compared."""
    than: float = 0.0
    margin: float = MARGIN
    """Percentage points by which the first may be worse and still count as not worse."""
    place: str = ""

    def __post_init__(self) -> None:
        """Refuse a claim that compares nothing, or two things. Errors: `UsageError`."""
        if bool(self.figure) == bool(self.first or self.second) or bool(self.first) != bool(self.second):
            raise UsageError(self.place, "expected first and second, or figure", "a claim compares one or the other")
        if bool(self.figure) != (self.expect in ("above", "below")):
            raise UsageError(self.place, f"expect: {self.expect}", "write above or below for a figure, else better …")


@dataclass(frozen=True)
class Check:
    """A figure of one row, and the interval in which it must lie."""

    table: str
    figure: str
    low: float
    high: float
    where: Mapping[str, str] = field(default_factory=dict)
    place: str = ""


def answered(claim: Claim, table: Table, measured: StudyTable, finished: FinishedCells) -> Iterator[StudyClaim]:
    """Yield what the measured rows say of a claim, an answer a row that it is about.

    Errors: `UsageError` for rows of a table that compares none.
    """
    rows = _rows(measured, {**claim.where, **claim.first})
    answers = [found for row in rows if (found := _answer(claim, row, table, finished))]
    for answer, sentence in answers or [("not measured", "its cells are not done")]:
        yield StudyClaim(says=claim.says, source=claim.source, answer=answer, sentence=sentence)


def _answer(claim: Claim, row: StudyRow, table: Table, finished: FinishedCells) -> tuple[Answer, str] | None:
    """Return the answer of one row with its sentence; None where it, or what it is compared with, is not measured."""
    if claim.figure:
        found = row.figures.get(claim.figure)
        return _of_figure(claim, row, found) if found else None
    compared = table.compare(finished, row.labels, {**row.labels, **claim.second}, claim.margin)
    if compared is None:
        return None
    shared = _named({name: value for name, value in row.labels.items() if name not in claim.second})
    says = compared.says if claim.expect != "better" else compared.says_if_better
    return _of_comparison(claim.expect, compared), f"{shared}{_joined(claim.first)} {says(_joined(claim.second))}"


def _of_comparison(expect: Expectation, found: Comparison) -> Answer:
    """Return the answer to a claim about two rows: the rule of `noninferiority` decides."""
    if expect == "not worse":
        held, broken = found.same or found.not_worse, found.worse
    elif expect == "better":
        held, broken = found.better, found.same or found.worse
    else:
        held, broken = found.worse, found.same or found.better
    return "replicates" if held else "does not replicate" if broken else "not decided"


def _of_figure(claim: Claim, row: StudyRow, found: Estimate) -> tuple[Answer, str]:
    """Return the answer to a claim about a figure: its interval lies wholly on one side of the number, or not."""
    if claim.figure == WORDS:
        compared = noninferiority.against(found, claim.margin)
        return _of_comparison("better", compared), f"{_named(row.labels)}{compared.says_if_better('the bag of words')}"
    low, high = (found.low, found.high) if claim.expect == "above" else (_minus(found.high), _minus(found.low))
    than = claim.than if claim.expect == "above" else -claim.than
    held, broken = low is not None and low > than, high is not None and high < than
    answer: Answer = "replicates" if held else "does not replicate" if broken else "not decided"
    interval = "" if found.low is None else f" [{found.low:.3g}, {found.high:.3g}]"
    side = claim.expect if held else f"not {claim.expect}" if broken else f"not shown to be {claim.expect}"
    numbers = f"{found.value:.3g}{interval}, n = {found.n:,}"
    return answer, f"{_named(row.labels)}{claim.figure} is {side} {claim.than:g}: {numbers}"


def _minus(value: float | None) -> float | None:
    return None if value is None else -value


def checked(check: Check, measured: StudyTable) -> StudyCheck:
    """Return whether a figure lies in the interval that the recipe states. Errors: `UsageError` for two rows."""
    rows = _rows(measured, check.where)
    if len(rows) > 1:
        raise UsageError(check.place, f"{len(rows)} rows of {check.table} fit", "name the labels of one")
    found = rows[0].figures.get(check.figure) if rows else None
    inside = found is not None and check.low <= found.value <= check.high
    return StudyCheck(
        table=check.table, figure=check.figure, where=check.where, low=check.low, high=check.high,
        outcome="not measured" if found is None else "inside" if inside else "outside", value=found,
    )  # fmt: skip


def _rows(measured: StudyTable, wanted: Mapping[str, str]) -> Sequence[StudyRow]:
    return [row for row in measured.rows if all(row.labels.get(name) == value for name, value in wanted.items())]


def _joined(labels: Mapping[str, str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in labels.items())


def _named(labels: Mapping[str, str]) -> str:
    """Return the values of labels as the beginning of a sentence."""
    return f"{', '.join(labels.values())}: " if labels else ""
