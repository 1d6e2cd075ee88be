"""Schedules and trackers of transformers: what works works, what cannot is refused before any data is read."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers.trainer_utils import SchedulerType

from headwater import cli
from headwater.data import reading
from headwater.data.corpus import Corpus, generate
from headwater.errors import UsageError
from headwater.results import runs
from headwater.training import schedules
from headwater.training.options import TrainingOptions

RATE = 1e-3


def options(kind: str, settings: str | None = None, **others: object) -> TrainingOptions:
    return TrainingOptions(lr_scheduler_type=kind, lr_scheduler_kwargs=settings, learning_rate=RATE, **others)  # type: ignore[arg-type]


def rates(kind: str, settings: str | None, steps: int, warmup: int = 0) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=RATE)
    given = schedules.arguments_of(options(kind, settings, eval_steps=1))
    schedule = schedules.schedule(SchedulerType(kind), given, optimizer, steps, warmup)
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"] / RATE)
        optimizer.step()
        if SchedulerType(kind) not in schedules.FOLLOWS_EVALUATION:
            schedule.step()
    return found


@pytest.mark.parametrize("kind", [kind.value for kind in SchedulerType])
def test_every_schedule_works_without_settings(kind: str) -> None:
    schedules.check(options(kind, eval_steps=1))
    assert all(0 <= rate <= 1 for rate in rates(kind, None, 40, 4))
    assert rates(kind, None, 40, 4)[20] > 0


@pytest.mark.parametrize("kind", [kind.value for kind in SchedulerType])
def test_a_training_of_one_step_has_a_rate(kind: str) -> None:
    assert rates(kind, None, 1, 1)[0] > 0


def test_settings_by_hand() -> None:
    # Half a cosine from 1 down to 0.5: in the middle 0.75.
    assert rates("cosine_with_min_lr", "min_lr_rate=0.5", 10)[5] == pytest.approx(0.75)
    assert rates("cosine_with_min_lr", '{"min_lr": 0.0005}', 10)[5] == pytest.approx(0.75)
    # 2 steps of warm-up, 4 at the peak, 4 down by a line.
    stable = rates("warmup_stable_decay", "num_decay_steps=4, decay_type='linear'", 10, 2)
    assert stable == pytest.approx([0, 0.5, 1, 1, 1, 1, 1, 0.75, 0.5, 0.25])
    assert rates("warmup_stable_decay", None, 20)[17:19] == [1.0, 1.0]  # a tenth of the steps comes down
    assert rates("polynomial", "power=2.0, lr_end=0.0", 10)[5] == pytest.approx(0.25)


REFUSED = [
    ("wiggly", None, "--lr-scheduler-type wiggly · is no schedule of transformers · known: linear"),
    ("cosine", "min_lr_rate=0.1", "cosine has no setting min_lr_rate · known: num_cycles"),
    ("constant", "power=2", "constant has no setting power · leave it out"),
    ("cosine_with_min_lr", "min_lr_rate", "expected name=value"),
    ("cosine_with_min_lr", "{", "is no JSON"),
    ("cosine_with_min_lr", "min_lr=1e-4, min_lr_rate=0.1", "Only one of min_lr or min_lr_rate"),
    ("cosine_with_min_lr", "min_lr=0.1", "not between 0 and --learning-rate"),
    ("cosine_with_min_lr", "min_lr='low'", "a value of the wrong kind"),
    ("warmup_stable_decay", "num_decay_steps=0.1", "num_decay_steps=0.1 · expected a number of steps"),
    ("warmup_stable_decay", "decay_type='steep'", "Unknown decay type"),
    ("polynomial", "lr_end=1.0", "must be smaller than initial lr"),
    ("reduce_lr_on_plateau", None, "after 11 evaluations at the earliest, and 1 would be made · add --eval-steps"),
    ("reduce_lr_on_plateau", "factor=2.0, patience=0", "Factor should be < 1.0"),
    ("greedy", None, "after 11 evaluations"),
]


@pytest.mark.parametrize(("kind", "settings", "message"), REFUSED)
def test_what_cannot_work_is_refused(kind: str, settings: str | None, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        schedules.check(options(kind, settings))


def test_schedules_that_follow_evaluations_need_one() -> None:
    for kind in ("reduce_lr_on_plateau", "greedy"):
        with pytest.raises(UsageError, match="nothing is held out"):
            schedules.check(options(kind, "patience=0", eval_fraction=0.0))
        schedules.check(options(kind, "patience=0", eval_fraction=0.1))


def test_more_phases_than_steps_are_refused_once_the_steps_are_known() -> None:
    schedules.check(options("warmup_stable_decay", "num_decay_steps=5000"))
    with pytest.raises(UsageError, match="asks for 5000 steps, and 38 come after the warm-up"):
        rates("warmup_stable_decay", "num_decay_steps=5000", 40, 2)


def test_trackers() -> None:
    schedules.check_tracker("none")
    with pytest.raises(UsageError, match="--report-to bogus · is no tracker that transformers knows · known: none"):
        schedules.check_tracker("bogus")


def test_a_tracker_that_is_not_installed_is_named_with_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schedules, "_installed", lambda: ["wandb"])
    for name, package in (("tensorboard", "tensorboard"), ("azure_ml", "azureml-mlflow"), ("comet_ml", "comet-ml")):
        with pytest.raises(UsageError, match=f"--report-to {name} · is not installed · pip install {package}"):
            schedules.check_tracker(name)
    schedules.check_tracker("wandb")
    schedules.check_tracker("all")


def test_refused_before_data_is_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = tmp_path / "torn.jsonl"
    data.write_text("{")  # refused too, but only once it is read
    for flags in (("--report-to", "bogus"), ("--lr-scheduler-kwargs", "x=1"), ("--lr-scheduler-type", "greedy")):
        assert cli.main(["train-dpo", "--data", str(data), "--output", str(tmp_path / "run"), *flags]) == 2
        assert flags[0] in capsys.readouterr().err


def test_one_step_trains_and_a_plateau_lowers_the_rate(tmp_path: Path) -> None:
    reading.write(tmp_path / "pairs.jsonl", generate(Corpus(pairs=40, seed=1)))
    call = ["train-reward", "--data", tmp_path / "pairs.jsonl", "--model", "scratch(hidden=32, layers=1, vocab=400)"]
    call += ["--precision", "fp32", "--logging-steps", "1", "--eval-fraction", "0.2"]
    one = ["--per-device-train-batch-size", "64", "--output", tmp_path / "one"]
    assert cli.main([str(word) for word in (*call, *one)]) == 0
    assert [row["learning_rate"] for row in runs.load(tmp_path / "one").history if "loss" in row] == [1e-3]
    # A rate of 0.001 × 0.1 after the second evaluation that is not better by nine tenths.
    follow = ["--lr-scheduler-type", "reduce_lr_on_plateau", "--eval-steps", "1", "--output", tmp_path / "plateau"]
    follow += ["--lr-scheduler-kwargs", "patience=0, threshold=0.9, factor=0.1", "--per-device-train-batch-size", "8"]
    assert cli.main([str(word) for word in (*call, *follow)]) == 0
    history = runs.load(tmp_path / "plateau").history
    found = [row["learning_rate"] for row in history if "loss" in row]
    assert found[:3] == pytest.approx([1e-3, 1e-3, 1e-4])
