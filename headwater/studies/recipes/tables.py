"""Tables of studies, a class a kind: what they are made of in a recipe, and their rows.

A row is a group of cells that share the values of `rows`; its other values, such as the seed, are repeats. Figures
come from the runs, and an interval is that of the repeats and of the pairs, or is left out.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path

import numpy as np

from headwater import statistics
from headwater.errors import UsageError
from headwater.noninferiority import Comparison
from headwater.results.comparison import ComparisonTables, ExampleAnswers
from headwater.results.decoding import Frontier
from headwater.results.runs import Run
from headwater.results.signal import Divergence, DivergencePoint, SignalCurve
from headwater.results.study import StudyRow, StudyTable
from headwater.statistics import Estimate
from headwater.studies.recipes import patterns
from headwater.studies.recipes.finished import Finished, FinishedCells
from headwater.studies.recipes.wins import Wins, against_words, compare, wins_of

COSTS = ("training_tokens", "training_flops", "seconds")
"""Columns of the cost of a row: means over its training runs."""

Rows = Iterator[tuple[dict[str, str], dict[str, Estimate]]]


@dataclass(frozen=True, kw_only=True)
class Table:
    """A table of a recipe; every kind of table is a subclass."""

    title: str
    cells: tuple[str, ...]
    """Patterns of the cells that it is made of."""
    rows: tuple[str, ...]
    """Names of the values by which rows differ."""
    note: str = ""
    place: str = ""

    def __post_init__(self) -> None:
        """Refuse a value that the cells do not have. Errors: `UsageError`."""
        for pattern in self.cells:
            known = patterns.names_in(pattern)
            unknown = next((name for name in self.rows if name not in known), None)
            if unknown:
                raise UsageError(self.place, f"{pattern} has no value {unknown}", f"known: {', '.join(known)}")

    def patterns(self) -> tuple[str, ...]:
        """Return the patterns of all cells that are read."""
        return self.cells

    def measured(self, finished: FinishedCells) -> StudyTable:
        """Return the rows that the finished cells give."""
        rows = tuple(StudyRow(labels=labels, figures=figures) for labels, figures in self.figures(finished))
        done, total = len(finished.of(self.cells)), finished.total(self.cells)
        kind = type(self).__name__.lower()
        return StudyTable(title=self.title, kind=kind, note=self.note, rows=rows, cells=total, done=done)

    def figures(self, finished: FinishedCells) -> Rows:
        """Yield labels and figures, a row each."""
        raise NotImplementedError

    def compare(
        self, finished: FinishedCells, first: Mapping[str, str], second: Mapping[str, str], margin: float
    ) -> Comparison | None:
        """Compare two rows pair by pair; None where they share none. Errors: `UsageError` for kinds without pairs."""
        raise UsageError(self.place, f"{self.title} has no pairs to compare", "compare rows of a table of accuracies")


@dataclass(frozen=True, kw_only=True)
class Accuracy(Table):
    """Accuracy of `evaluate` runs, with the cost of their training and the bag of words beside."""

    cost: str | None = None
    """Pattern of the training runs with the same values."""
    words: str | None = None
    """Pattern of the `signal` runs without a model on the same data, whose bag of words is compared pair by pair."""
    words_at: str = "100%"
    """Kept ratio at which the bag of words reads responses; may be `{keep}`."""

    def patterns(self) -> tuple[str, ...]:
        """Return the patterns of all cells that are read."""
        return (*self.cells, *(one for one in (self.cost, self.words) if one))

    def figures(self, finished: FinishedCells) -> Rows:
        """Yield the accuracy of every row over its repeats, and what stands beside."""
        for labels, cells in finished.groups(self.cells, self.rows):
            wins = wins_of(cells, self.rows)
            found = {"accuracy": statistics.crossed_mean(wins.values, wins.conversation_ids)}
            found["seeds"] = _plain([float(len(cells))])
            if self.words:
                found |= self._beside_words(wins, finished, cells)
            yield labels, found | _costs(self.cost, finished, cells)

    def _beside_words(self, wins: Wins, finished: FinishedCells, cells: Sequence[Finished]) -> dict[str, Estimate]:
        """Return the accuracy of the bag of words on the same pairs, the difference, and McNemar's p."""
        words = finished.beside(str(self.words), cells[0])
        if words is None:
            return {}
        at = patterns.with_values(self.words_at, cells[0].values, self.place)
        return against_words(wins, words.run, at)

    def compare(
        self, finished: FinishedCells, first: Mapping[str, str], second: Mapping[str, str], margin: float
    ) -> Comparison | None:
        """Compare two rows on the pairs that the same repeat of both scored."""
        groups = {tuple(labels.items()): cells for labels, cells in finished.groups(self.cells, self.rows)}
        found = [groups.get(tuple(labels.items())) for labels in (first, second)]
        if found[0] is None or found[1] is None:
            return None
        return compare(wins_of(found[0], self.rows), wins_of(found[1], self.rows), margin)


@dataclass(frozen=True, kw_only=True)
class Figures(Table):
    """Figures that commands stored in metrics.json: of one cell with its interval, of several the mean over them."""

    metrics: Mapping[str, str] = field(default_factory=dict)
    """Metric by column; `{keep}` and `*` may be part of its name."""
    cost: str | None = None

    def patterns(self) -> tuple[str, ...]:
        """Return the patterns of all cells that are read."""
        return (*self.cells, *([self.cost] if self.cost else []))

    def figures(self, finished: FinishedCells) -> Rows:
        """Yield the metrics of every row."""
        for labels, cells in finished.groups(self.cells, self.rows):
            found = {}
            for column, metric in self.metrics.items():
                values = [one for cell in cells if (one := self._metric(cell, metric))]
                if values:
                    found[column] = _over(values)
            yield labels, found | _costs(self.cost, finished, cells)

    def _metric(self, cell: Finished, metric: str) -> Estimate | None:
        """Return a metric of a run; None where it has none of that name."""
        wanted = patterns.with_values(metric, cell.values, self.place)
        name = next((one for one in cell.run.metrics if fnmatchcase(one, wanted)), None)
        value = cell.run.metrics.get(name) if name else None
        if isinstance(value, Mapping):
            return Estimate(**value) if value.get("value") is not None else None
        return _plain([float(value)]) if isinstance(value, int | float) else None


@dataclass(frozen=True, kw_only=True)
class Curve(Table):
    """Curves of `signal` by kept ratio: accuracy by prefix, and its controls."""

    curves: Mapping[str, str] = field(default_factory=lambda: {"prefix": "accuracy"})
    """Name of the curve in curves.json, by what the table calls it."""

    def figures(self, finished: FinishedCells) -> Rows:
        """Yield a row for every curve and kept ratio."""
        for labels, cells in finished.groups(self.cells, self.rows):
            read = [SignalCurve.read(cell.run.path) for cell in cells]
            for name, curve in self.curves.items():
                points: dict[float, list[Estimate]] = {}
                for found in read:
                    for point in found.along(curve):
                        points.setdefault(point.amount, []).append(point.estimate)
                for amount, values in points.items():
                    kept = {"curve": name, "keep": f"{100 * amount:g}%"}
                    yield labels | kept, {"accuracy": _over(values)}


@dataclass(frozen=True, kw_only=True)
class Positions(Table):
    """KL(policy ‖ reference) by position, of `divergence` runs, in nats a token."""

    def figures(self, finished: FinishedCells) -> Rows:
        """Yield a row for every range of positions."""
        for labels, cells in finished.groups(self.cells, self.rows):
            points: dict[str, list[Estimate]] = {}
            for cell in cells:
                for point in _exact(Divergence.read(cell.run.path)):
                    points.setdefault(_range(point), []).append(point.estimate)
            for positions, values in points.items():
                yield labels | {"position": positions}, {"kl": _over(values)}


def _exact(found: Divergence) -> list[DivergencePoint]:
    """Return the points of the first estimator, which is the exact one where there is one."""
    points = found.figures("kl_a_token")
    return [point for point in points if point.estimator == points[0].estimator]


def _range(point: DivergencePoint) -> str:
    last = "" if point.last is None else str(point.last)
    return str(point.first) if last == str(point.first) else f"{point.first}–{last}"


@dataclass(frozen=True, kw_only=True)
class Strategies(Table):
    """Reward, KL and the gap to interpolation of every decoding strategy of `frontier` runs."""

    def figures(self, finished: FinishedCells) -> Rows:
        """Yield a row for every strategy and reward model."""
        for labels, cells in finished.groups(self.cells, self.rows):
            found: dict[tuple[str, str, str, str], dict[str, list[Estimate]]] = {}
            for cell in cells:
                for point in Frontier.read(cell.run.path).points:
                    judge = Path(point.reward_model).name
                    own = found.setdefault((judge, point.family, f"{point.setting:g}", point.name), {})
                    own.setdefault("kl", []).append(point.kl)
                    own.setdefault("reward", []).append(point.reward)
                    own.setdefault("gap", []).extend([point.gap] if point.gap else [])
            for (judge, family, setting, _), figures in found.items():
                shown = {name: _over(values) for name, values in figures.items() if values}
                yield labels | {"reward model": judge, "strategy": family, "setting": setting}, shown


@dataclass(frozen=True, kw_only=True)
class Cases(Table):
    """The prompts on which models gained and lost most, of `compare` runs: both answers, with their rewards."""

    most: int = 3
    """Most cases of either end."""
    characters: int = 300
    """Longest beginning of an answer that is shown."""

    def figures(self, finished: FinishedCells) -> Rows:
        """Yield a row for every case."""
        for labels, cells in finished.groups(self.cells, self.rows):
            for group in (group for cell in cells for group in ComparisonTables.read(cell.run.path).examples):
                about = labels | {"judge": Path(group.judge).name, "model": group.model}
                for end, cases in (("gained most", group.improved), ("lost most", group.degraded)):
                    for case in cases[: self.most]:
                        yield about | {"case": end} | self._texts(case), _rewards(case)

    def _texts(self, case: ExampleAnswers) -> dict[str, str]:
        return {
            "prompt": _cell_text(case.prompt, self.characters),
            "baseline's answer": _cell_text(case.baseline, self.characters),
            "model's answer": _cell_text(case.model, self.characters),
        }


def _rewards(case: ExampleAnswers) -> dict[str, Estimate]:
    found = {} if case.scores is None else dict(zip(("baseline's reward", "model's reward"), case.scores, strict=True))
    return {name: _plain([value]) for name, value in (found or {"preference": case.preference}).items()}


def _cell_text(text: str, most: int) -> str:
    """Return the beginning of a text as one line that Markdown takes as text."""
    line = " ".join(text.split())
    line = line if len(line) <= most else line[:most].rstrip() + "…"
    return re.sub(r"([\\`*_<>|\[\]#~&])", r"\\\1", line)


TABLES: dict[str, type[Table]] = {
    "accuracy": Accuracy,
    "figures": Figures,
    "curve": Curve,
    "positions": Positions,
    "strategies": Strategies,
    "cases": Cases,
}
"""Kinds of tables by the name that a recipe gives."""


def _over(values: Sequence[Estimate]) -> Estimate:
    """Return the figure of one run as it is, and of several their mean with the interval over them."""
    return values[0] if len(values) == 1 else statistics.over_repeats([one.value for one in values])


def _plain(values: Sequence[float]) -> Estimate:
    """Return a mean without an interval."""
    return Estimate(float(np.mean(values)), None, None, len(values), len(values))


def _costs(pattern: str | None, finished: FinishedCells, cells: Sequence[Finished]) -> dict[str, Estimate]:
    """Return tokens, FLOPs and seconds of the training runs with the same values, means over them."""
    found = [finished.beside(pattern, cell) for cell in cells] if pattern else []
    trained = [cell.run for cell in {one.name: one for one in found if one}.values()]
    costs = {name: [value for run in trained if (value := _cost(run, name)) is not None] for name in COSTS}
    return {name: _plain(values) for name, values in costs.items() if values}


def _cost(run: Run, name: str) -> float | None:
    return run.seconds if name == "seconds" else run.facts.get(name)  # type: ignore[return-value]
