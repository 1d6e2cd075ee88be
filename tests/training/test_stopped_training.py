"""A training that a signal stops leaves a checkpoint, and the same command goes on as if nothing had happened."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from headwater import interrupts
from headwater.commands import train_dpo
from headwater.commands.train_dpo import Config
from headwater.data.corpus import Corpus, generate
from headwater.data.writing import write
from headwater.training import trainer
from headwater.training.options import TrainingOptions

# 40 pairs, of which 8 are held out: 4 steps an epoch, 8 in all; no --save-steps.
OPTIONS = TrainingOptions(
    precision="fp32", num_train_epochs=2, logging_steps=1, per_device_train_batch_size=8, learning_rate=1e-3,
    eval_fraction=0.2,
)  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    write(path, generate(Corpus(pairs=40, seed=3)))
    return path


def config_of(data: Path, output: Path) -> Config:
    return Config(data=data, output=output, model="scratch(hidden=32, layers=1, vocab=300)", training=OPTIONS)


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_dpo.run(config_of(data, tmp_path_factory.mktemp("whole") / "run"))


def stop_in(step: int, config: Config, monkeypatch: pytest.MonkeyPatch) -> Path | None:
    """Train, with a SIGTERM in the step that follows `step` finished ones; the run where it went on to its end."""
    with monkeypatch.context() as patch:
        step_as_is = trainer.PairTrainer.training_step

        def signalled(self: Any, *others: Any, **named: Any) -> torch.Tensor:
            if self.state.global_step == step:
                os.kill(os.getpid(), signal.SIGTERM)
            return step_as_is(self, *others, **named)

        patch.setattr(trainer.PairTrainer, "training_step", signalled)
        with interrupts.handled():
            try:
                return train_dpo.run(config)
            except interrupts.Stopped as stopped:
                assert stopped.exit_code == 75
                return None


def history(run: Path) -> list[dict[str, float]]:
    """The history but for what a clock says."""
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name != "train_loss" and "_runtime" not in name
             and "per_second" not in name and name != "total_flos"} for row in rows]  # fmt: skip


@pytest.mark.parametrize("step", [1, 3], ids=["inside an epoch", "at the end of an epoch"])
def test_it_leaves_a_checkpoint_and_the_same_command_goes_on(
    step: int, data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = config_of(data, tmp_path / "run")
    assert stop_in(step, config, monkeypatch) is None
    assert not (config.output / "done").exists()
    assert [path.name for path in config.output.glob("checkpoint-*")] == [f"checkpoint-{step + 1}"]
    resumed = train_dpo.run(config)
    expected, found = (load_file(run / "model.safetensors") for run in (whole, resumed))
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    assert history(resumed) == history(whole)
    assert (resumed / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()
    assert not list(resumed.glob("checkpoint-*"))


def test_the_best_weights_so_far_are_kept(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate so high that the best evaluation comes before the stop: the continued run ends with its weights."""
    options = dataclasses.replace(OPTIONS, early_stopping_patience=9, eval_steps=1, learning_rate=0.5)
    config, other = (dataclasses.replace(config_of(data, tmp_path / name), training=options) for name in ("run", "all"))
    whole = train_dpo.run(other)
    assert json.loads((whole / "facts.json").read_text())["early_stopping"]["kept_step"] < 7
    assert stop_in(6, config, monkeypatch) is None
    resumed = train_dpo.run(config)
    expected, found = (load_file(run / "model.safetensors") for run in (whole, resumed))
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    assert (resumed / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()


def test_after_the_last_step_the_run_is_finished(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    finished = stop_in(7, config_of(data, tmp_path / "run"), monkeypatch)
    assert finished is not None
    assert (finished / "done").exists()
    assert dataclasses.asdict(OPTIONS)["save_steps"] is None
