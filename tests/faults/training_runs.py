"""A training small enough to be broken in every way, and what is asked of it afterwards."""

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
from headwater.training import trainer
from headwater.training.options import TrainingOptions

MODEL = "scratch(hidden=32, layers=1, vocab=300)"
OPTIONS = TrainingOptions(
    precision="fp32", num_train_epochs=2, logging_steps=2, per_device_train_batch_size=8, learning_rate=1e-3,
    save_steps=3, eval_fraction=0.0,
)  # fmt: skip
STEPS = 8
"""32 pairs in two epochs of four steps."""


def write_pairs(path: Path, seed: int = 3) -> Path:
    write(path, generate(Corpus(pairs=32, seed=seed)))
    return path


def config_of(data: Path, output: Path, **changes: Any) -> Config:
    return Config(data=data, output=output, model=MODEL, training=dataclasses.replace(OPTIONS, **changes))


def at_step(step: int, happens: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `happens(trainer, losses)` replace the losses [pairs] of the step after `step` finished ones."""
    step_as_is = trainer.PairTrainer.training_step

    def training_step(self: Any, *given: Any) -> torch.Tensor:
        loss_as_is = trainer.pair_loss

        def changed(*parts: Any) -> Any:
            scored = loss_as_is(*parts)
            return scored._replace(result=scored.result._replace(loss=happens(self, scored.result.loss)))

        with monkeypatch.context() as patch:
            if self.state.global_step == step:
                patch.setattr(trainer, "pair_loss", changed)
            return step_as_is(self, *given)

    monkeypatch.setattr(trainer.PairTrainer, "training_step", training_step)


def train(config: Config) -> Path:
    return train_dpo.run(config)


def weights_of(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def same_weights(one: Path, other: Path) -> bool:
    expected, found = weights_of(one), weights_of(other)
    return expected.keys() == found.keys() and all(torch.equal(found[name], each) for name, each in expected.items())


def history(run: Path) -> list[dict[str, Any]]:
    """The history but for what a clock says."""
    rows = [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]
    clock = ("_runtime", "per_second", "total_flos")
    return [{name: row[name] for name in row if not any(word in name for word in clock)} for row in rows]
