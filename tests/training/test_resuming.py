"""A training that was stopped and taken up again is one that was never stopped."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from headwater.commands import train_dpo
from headwater.commands.train_dpo import Config
from headwater.data.corpus import Corpus, generate
from headwater.data.writing import write
from headwater.errors import DataError, UsageError
from headwater.training import checkpoints, trainer
from headwater.training.options import TrainingOptions

OPTIONS = TrainingOptions(
    precision="fp32", num_train_epochs=3, logging_steps=1, per_device_train_batch_size=4, gradient_accumulation_steps=2,
    learning_rate=1e-3, save_steps=3, eval_fraction=0.0, lora_r=4, lora_dropout=0.3,
)  # fmt: skip


class StoppedError(Exception):
    """What a test ends a training with."""


@pytest.fixture
def config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Config:
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "cache"))
    write(tmp_path / "pairs.jsonl", generate(Corpus(pairs=40, seed=3)))
    return Config(
        data=tmp_path / "pairs.jsonl",
        output=tmp_path / "run",
        model="scratch(hidden=32, layers=1, vocab=300)",
        training=OPTIONS,
    )


def stop_before(step: int, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        step_as_is = trainer.PairTrainer.training_step

        def stopped(self: Any, *others: Any, **named: Any) -> torch.Tensor:
            if self.state.global_step == step:
                raise StoppedError
            return step_as_is(self, *others, **named)

        patch.setattr(trainer.PairTrainer, "training_step", stopped)
        with pytest.raises(StoppedError):
            train_dpo.run(config)


def history(run: Path) -> list[dict[str, float]]:
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    return [
        {name: row[name] for name in ("step", "loss", "grad_norm", "learning_rate")} for row in rows if "loss" in row
    ]


@pytest.mark.parametrize("step", [8, 11], ids=["in the second epoch", "in the third"])
def test_a_training_goes_on_bit_for_bit(step: int, config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """Adapters with dropout, accumulation, a schedule, an order that is new each epoch."""
    whole = train_dpo.run(dataclasses.replace(config, output=config.output.with_name("whole")))
    stop_before(step, config, monkeypatch)
    assert checkpoints.latest(config.output) == config.output / f"checkpoint-{(step // 3) * 3}"
    (config.output / "checkpoint-99.tmp").mkdir()  # one that was being written
    resumed = train_dpo.run(config)
    expected, found = (load_file(run / "model.safetensors") for run in (whole, resumed))
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    assert len(history(whole)) == 15
    assert history(resumed) == history(whole)
    assert not list(resumed.glob("checkpoint-*"))
    assert not [path for path in resumed.rglob("*") if path.suffix in (".bin", ".pt", ".pth", ".pkl")]
    assert json.loads((resumed / "facts.json").read_text())["resumed_at"] == (step // 3) * 3


def test_it_goes_on_with_the_same_command_and_data_alone(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_before(4, config, monkeypatch)
    other = dataclasses.replace(config, training=dataclasses.replace(OPTIONS, learning_rate=2e-3))
    with pytest.raises(UsageError, match="already holds a run"):
        train_dpo.run(other)
    write(config.data, generate(Corpus(pairs=40, seed=4)))
    with pytest.raises(DataError, match="has changed"):
        train_dpo.run(config)


@pytest.mark.parametrize("name", ["save_steps", "eval_steps", "early_stopping_patience"])
def test_no_steps_at_all_are_refused(name: str) -> None:
    options: dict[str, Any] = {name: 0}
    with pytest.raises(UsageError, match="expected a value above 0"):
        TrainingOptions(**options)


def test_a_checkpoint_holds_the_best_weights_so_far(config: Config, monkeypatch: pytest.MonkeyPatch) -> None:
    """A rate so high that the best evaluation comes before the checkpoint: the resumed run ends with its weights."""
    early = {"early_stopping_patience": 20, "eval_steps": 1, "eval_fraction": 0.3, "learning_rate": 0.5}
    config = dataclasses.replace(config, training=dataclasses.replace(OPTIONS, **early))
    whole = train_dpo.run(dataclasses.replace(config, output=config.output.with_name("whole")))
    assert json.loads((whole / "facts.json").read_text())["early_stopping"]["kept_step"] < 6
    stop_before(8, config, monkeypatch)
    resumed = train_dpo.run(config)
    assert json.loads((resumed / "facts.json").read_text())["resumed_at"] == 6
    expected, found = (load_file(run / "model.safetensors") for run in (whole, resumed))
    assert all(torch.equal(found[name], weight) for name, weight in expected.items())
    assert (resumed / "metrics.json").read_bytes() == (whole / "metrics.json").read_bytes()
