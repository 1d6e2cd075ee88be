"""Tables of studies: strategies of a frontier, kept ratios of a sweep, and arms of a selection."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from headwater.reporting.cells import MISSING, Cell
from headwater.reporting.findings import count, estimate, number, percent
from headwater.results.decoding import Frontier
from headwater.results.runs import Run
from headwater.results.sweep import SweepResult
from headwater.results.training import TrainingFigures
from headwater.statistics import Estimate

Table = list[dict[str, Cell]]


def study_tables(runs: Sequence[Run], names: Mapping[Any, str]) -> dict[str, list[Table]]:
    """Return the tables of runs by the section of the page that they belong to."""
    found = {
        "Signal": [table for run in runs if (table := _sweep(run))],
        "Selection": [table for table in (list(_arms(runs, names)),) if len(table) > 1],
        "Decoding": [table for run in runs if (table := _frontier(run))],
    }
    return {section: tables for section, tables in found.items() if tables}


def _frontier(run: Run) -> Table:
    found = Frontier.find(run.path) if run.command == "frontier" else None
    return [
        {
            "strategy": Cell(point.name),
            "reward": _cell(point.reward),
            "KL (nats)": _cell(point.kl),
            "above interpolation": _cell(point.gap),
            "by": Cell(Path(point.reward_model).name),
            "n": Cell(count(point.reward.n)),
        }
        for point in (found.points if found else ())
    ]


def _sweep(run: Run) -> Table:
    found = SweepResult.find(run.path) if run.command == "sweep" else None
    return [
        {
            "kept ratio": Cell(percent(row.keep)),
            "equal": Cell(row.equal),
            "evaluated on": Cell("full responses" if row.seen == "full" else "equally short responses"),
            "accuracy": _cell(row.accuracy),
            "seeds": Cell(", ".join(number(value) for value in row.by_seed)),
            "tokens": Cell(count(round(row.tokens)) if row.tokens == row.tokens else MISSING),
        }
        for row in (found.points if found else ())
    ]


def _arms(runs: Sequence[Run], names: Mapping[Any, str]) -> Iterator[dict[str, Cell]]:
    """Yield a row for every training of a study in which some trained on selected rows."""
    trained = [run for run in runs if run.history and run.command in ("train-dpo", "train-reward")]
    if not any(run.facts.get("selected_by") for run in trained):
        return
    for run in trained:
        figures = TrainingFigures.find(run.path)
        end = run.facts.get("selected_end")
        tokens = run.facts.get("training_tokens")
        judged = [other for other in runs if other.command == "evaluate" and _is_of(other, run)]
        rates = [rate for other in runs if other.command == "compare" for rate in _win_rates(other, run.name)]
        yield {
            "arm": Cell(names[run.path]),
            "selected by": Cell(str(run.facts.get("selected_by", "nothing")), f"the {end}" if end else ""),
            "pairs": Cell(count(figures.train_pairs) if figures and figures.train_pairs else MISSING),
            "accuracy": _cell(next((found for other in judged if (found := estimate(other, "accuracy"))), None)),
            "win rate": _cell(rates[0] if rates else None),
            "tokens": Cell(count(round(tokens)) if tokens else MISSING),
        }


def _is_of(evaluation: Run, trained: Run) -> bool:
    model = evaluation.config.get("model")
    return isinstance(model, str) and Path(model).resolve() == trained.path


def _win_rates(run: Run, model: str) -> Iterator[Estimate]:
    for metric in run.metrics:
        if metric.startswith("win_rate/") and metric.rpartition("/")[2] == model:
            found = estimate(run, metric)
            if found:
                yield found


def _cell(found: Estimate | None) -> Cell:
    """Return a value above its interval; n is in a tooltip."""
    if found is None:
        return Cell(MISSING)
    ends = "" if found.low is None or found.high is None else f"{number(found.low)}, {number(found.high)}"
    return Cell(number(found.value), ends, f"n = {found.n}")
