"""The learning-rate search: a curve that falls and rises, a suggestion inside the fall, and weights put back."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater import cli
from headwater.data import reading
from headwater.data.corpus import Corpus, generate
from headwater.results import runs
from headwater.training.learning_rate import HIGHEST, LOWEST, STEPS, Search, smoothed


def test_the_suggestion_is_a_tenth_of_the_rate_with_the_lowest_loss() -> None:
    assert Search([1e-4, 1e-3, 1e-2, 1e-1], [0.7, 0.6, 0.5, 2.0]).suggestion == pytest.approx(1e-3)
    assert smoothed([1.0, 1.0, 1.0]) == pytest.approx([1.0, 1.0, 1.0])
    assert smoothed([2.0, 0.0]) == pytest.approx([2.0, (0.9 * 0.1 * 2.0) / (1 - 0.81)])
    assert list(Search([1e-4, 1e-3], [0.7, 0.6]).lines())[-1].startswith("learning rate 1.00e-04 is")


def test_training_uses_it_and_starts_from_the_same_weights(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Searched for, or given as a number: the same model comes out, bit for bit."""
    reading.write(tmp_path / "pairs.jsonl", generate(Corpus(pairs=80, seed=6)))

    def headwater(*arguments: object) -> int:
        call = ["train-reward", "--data", tmp_path / "pairs.jsonl", "--precision", "fp32", "--eval-fraction", "0.25"]
        call += ["--model", "scratch(hidden=32, layers=1, vocab=400)", *arguments]
        return cli.main([str(part) for part in call])

    assert headwater("--find-learning-rate", "--output", tmp_path / "found") == 0
    search = runs.load(tmp_path / "found").facts["learning_rate_search"]
    assert search["rates"][0] == pytest.approx(LOWEST)
    assert 20 < len(search["rates"]) <= STEPS
    assert min(search["losses"]) < search["losses"][0] < search["losses"][-1], "a fall and a rise"
    assert LOWEST < search["suggestion"] < HIGHEST / 10
    said = capsys.readouterr().err
    assert f"learning rate {search['suggestion']:.2e} is a tenth" in said
    assert said.count("step ") < STEPS, "steps of the search are no lines of the training"
    assert headwater("--learning-rate", repr(search["suggestion"]), "--output", tmp_path / "given") == 0
    one, other = ((tmp_path / name / "model.safetensors").read_bytes() for name in ("found", "given"))
    assert one == other
    assert headwater("--find-learning-rate", "--learning-rate", "1e-3", "--output", tmp_path / "both") == 2
