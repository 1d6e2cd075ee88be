"""Typed results read the files that headwater 0.1 wrote."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from headwater.evaluation.pairs import Evaluation
from headwater.results.comparison import ComparedPrompts, ComparisonTables, JudgedFigures
from headwater.results.evaluation import Diagnostics, ScoredRows
from headwater.results.inspection import Inspection
from headwater.results.stored import StoredResult
from headwater.results.training import Column, TrainingFigures, TrainingHistory

RUNS = Path(__file__).parents[1] / "reporting" / "runs_0_1"


@pytest.mark.parametrize(
    ("run", "kinds"),
    [
        ("compared", (JudgedFigures, ComparisonTables, ComparedPrompts)),
        ("judged", (JudgedFigures,)),
        ("inspected", (Inspection,)),
        ("dpo", (TrainingHistory, TrainingFigures)),
        ("reward", (TrainingHistory, TrainingFigures)),
    ],
)
def test_results_are_read_with_their_rows(run: str, kinds: tuple[type[StoredResult], ...], tmp_path: Path) -> None:
    for kind in kinds:
        found = kind.read(RUNS / run)
        assert found.table_rows()
        found.write(tmp_path)
        assert kind.read(tmp_path) == found


@pytest.mark.parametrize("run", ["evaluation-dpo", "evaluation-reward"])
def test_an_evaluation_is_read_with_its_diagnostics(run: str) -> None:
    found = Evaluation.read(RUNS / run)
    stored = json.loads((RUNS / run / "scrutiny.json").read_text("utf-8"))
    metrics = json.loads((RUNS / run / "metrics.json").read_text("utf-8"))
    assert found.diagnostics is not None
    assert found.figures.accuracy is not None
    assert found.figures.accuracy._asdict() == metrics["accuracy"]
    assert [one.name for one in found.diagnostics.baselines] == [one["name"] for one in stored["rivals"]]
    for name in ("by_length_difference", "by_margin", "reliability"):
        groups, old = getattr(found.diagnostics, name), stored[name]
        assert [group.accuracy.value for group in groups] == [group["value"] for group in old]
    assert found.diagnostics.by_margin[0].low == stored["by_margin"][0]["from"]
    assert all(row.conversation_id for row in ScoredRows.read(RUNS / run).records)
    assert len(found.records.margins()) == found.figures.accuracy.n


def test_the_history_has_its_columns() -> None:
    history = TrainingHistory.read(RUNS / "dpo")
    assert history.values(Column.LOSS)
    assert Diagnostics.find(RUNS / "dpo") is None
