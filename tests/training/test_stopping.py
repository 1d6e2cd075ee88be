"""Early stopping: the weights that were best on held-out pairs are the ones that are saved."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from headwater import cli
from headwater.data import reading
from headwater.data.corpus import Corpus, generate
from headwater.results import runs
from headwater.training.callbacks import KeepBest


def test_the_best_weights_are_kept_and_patience_ends_training() -> None:
    model, control, state = torch.nn.Linear(1, 1, bias=False), SimpleNamespace(should_training_stop=False), None
    best = KeepBest(2, "eval_accuracy")
    stopped = []
    for step, accuracy in enumerate([0.5, 0.7, 0.7, 0.6, 0.9], start=1):
        state = SimpleNamespace(global_step=step)
        model.weight.data.fill_(step)
        for _ in range(2):  # an epoch may end on a step that was due anyway: counted once
            best.on_evaluate(None, state, control, {"eval_accuracy": accuracy, "eval_loss": 1.0}, model=model)
        stopped.append(control.should_training_stop)
        if control.should_training_stop:
            break
    assert stopped == [False, False, False, True]
    best.on_train_end(None, state, control, model=model)
    assert model.weight.item() == best.step == 2
    assert best.evaluation["eval_accuracy"] == 0.7
    lower = KeepBest(1, "eval_loss")
    for step, loss in ((1, 2.0), (2, 1.0), (3, 1.5)):
        lower.on_evaluate(None, SimpleNamespace(global_step=step), control, {"eval_loss": loss}, model=model)
    assert lower.step == 2


@pytest.mark.parametrize("adapted", [False, True], ids=["whole", "lora"])
def test_what_is_saved_has_the_figures_of_the_best_evaluation(
    adapted: bool, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reading.write(tmp_path / "pairs.jsonl", generate(Corpus(pairs=160, seed=6)))
    call = ["train-reward", "--data", tmp_path / "pairs.jsonl", "--output", tmp_path / "rm", "--precision", "fp32"]
    call += ["--model", "scratch(hidden=32, layers=1, vocab=400)", "--eval-fraction", "0.4", "--learning-rate", "2e-2"]
    call += ["--num-train-epochs", 8, "--eval-steps", 5, "--early-stopping-patience", 3]
    call += ["--lora-r", 4] if adapted else []
    assert cli.main([str(part) for part in call]) == 0
    run = runs.load(tmp_path / "rm")
    evaluations = [row for row in run.history if "eval_loss" in row]
    accuracies = [row["eval_rewards/accuracies"] for row in evaluations]
    kept = run.facts["early_stopping"]["kept_step"]
    assert run.metrics["eval_rewards/accuracies"] == max(accuracies)
    first = next(row["step"] for row in evaluations if row["eval_rewards/accuracies"] == max(accuracies))
    assert kept == first < evaluations[-1]["step"], "the last was the best: nothing tested"
    assert any(row["step"] % 5 == 0 for row in evaluations)
    assert "which flatters the figure" in (tmp_path / "rm" / "README.md").read_text()
    assert f"kept step {kept}" in capsys.readouterr().err
    judge = ["evaluate", "--model", tmp_path / "rm", "--dataset", tmp_path / "pairs.jsonl"]
    assert cli.main([str(part) for part in judge]) == 0
    judged = runs.load(tmp_path / "rm-on-pairs").metrics["accuracy"]
    assert judged["value"] == pytest.approx(max(accuracies))
    assert (judged["low"], judged["high"]) == pytest.approx(
        (run.metrics["eval_rewards/accuracies_low"], run.metrics["eval_rewards/accuracies_high"])
    )


@pytest.mark.parametrize("flag", [["--eval-steps", "0"], ["--early-stopping-patience", "2", "--eval-fraction", "0"]])
def test_what_cannot_work_is_refused(flag: list[str], tmp_path: Path) -> None:
    call = ["train-reward", "--data", str(tmp_path / "pairs.jsonl"), "--output", str(tmp_path / "rm"), *flag]
    assert cli.main(call) == 2
