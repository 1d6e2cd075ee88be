"""Training commands with --freeze-layers: the weights of a training whose frozen layers compute, whatever the loss."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from headwater.data.corpus import Corpus, generate
from headwater.data.writing import write
from headwater.errors import ResourceError, UsageError
from headwater.forward.state_store import StateStore
from headwater.reporting.costs import costs
from headwater.results import runs
from headwater.results.evaluation import ScoredRows
from headwater.rewards import reward_models
from headwater.training.options import TrainingOptions
from headwater.training.trainer import PairTrainer
from tests.support.commands import headwater, succeed

MODEL = "scratch(hidden=32, layers=2, vocab=300)"
TRAIN = ["--precision", "fp32", "--learning-rate", "1e-2", "--per-device-train-batch-size", "6"]
KEEP = ["--keep", "50%"]
COMMANDS = {
    "a reward model": ["train-reward", *KEEP, "--eval-steps", "2", "--early-stopping-patience", "1"],
    "a score head alone": ["train-reward", *KEEP, "--freeze-layers", "0", "--at", "0.5,1.0"],
    "an encoder": ["train-reward", *KEEP, "--model", "scratch_encoder(hidden=32, layers=2, vocab=300)"],
    "dpo": ["train-dpo", *KEEP, "--gradient-accumulation-steps", "2", "--gradient-checkpointing"],
    "kto, whose estimate reads prompts with responses to others": ["train-dpo", "--loss", "kto()"],
    "tdpo2, whose reference is in memory": ["train-dpo", "--loss", "tdpo2()"],
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    write(path, generate(Corpus(pairs=16, seed=3)))
    return path


def command_of(data: Path, output: Path, command: str, *others: str) -> list[Any]:
    """A command that trains the last layer alone, unless `others` say otherwise."""
    given = {"--model": MODEL, "--freeze-layers": "1", "--eval-fraction": "0.2"}
    flags = [part for flag, value in given.items() if flag not in others for part in (flag, value)]
    return [command, data, "--output", output, *TRAIN, *flags, *others]


def run(data: Path, output: Path, *arguments: str) -> dict[str, torch.Tensor]:
    """Train, and return the weights."""
    succeed(*command_of(data, output, *arguments))
    return load_file(output / "model.safetensors")


@pytest.mark.parametrize("name", COMMANDS)
def test_training_from_stored_states_is_training_with_frozen_layers(
    name: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "cache"))
    found = run(data, tmp_path / "stored", *COMMANDS[name])
    what = "the head alone" if "0" in COMMANDS[name] else "the last 1 of 2 layers"
    assert f"training {what} (" in capsys.readouterr().err
    monkeypatch.setattr(StateStore, "read", lambda self, batch: None)  # every layer computes
    expected = run(data, tmp_path / "computed", *COMMANDS[name])
    assert "computed before" in capsys.readouterr().err
    for weight, other in zip(found.values(), expected.values(), strict=True):
        assert torch.linalg.norm(weight - other) <= 1e-4 * torch.linalg.norm(other)
    stored = runs.load(tmp_path / "stored")
    (row,) = costs([stored], {stored.path: "stored"})
    assert row["command"].under == what.removeprefix("training ")
    assert f"{what[0].upper()}{what[1:]}" in (stored.path / "README.md").read_text()
    metrics = [json.loads((tmp_path / end / "metrics.json").read_text()) for end in ("stored", "computed")]
    assert metrics[0]["eval_loss"] == pytest.approx(metrics[1]["eval_loss"], abs=1e-5)


def test_a_stopped_training_goes_on_bit_for_bit(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And what it has saved is the frozen part as it was, and another trained part."""
    before = run(data, tmp_path / "sft", "train-sft")
    more = ("train-reward", "--model", str(tmp_path / "sft"), "--num-train-epochs", "2", "--save-steps", "2")
    whole = run(data, tmp_path / "whole", *more)
    command, step = command_of(data, tmp_path / "again", *more), PairTrainer.training_step

    def stopped(self: PairTrainer, *others: Any, **named: Any) -> torch.Tensor:
        if self.state.global_step == 3:
            raise ResourceError("stopped by the test")
        return step(self, *others, **named)

    with monkeypatch.context() as patch:
        patch.setattr(PairTrainer, "training_step", stopped)
        assert headwater(*command) == 7
    succeed(*command)
    assert json.loads((tmp_path / "again" / "facts.json").read_text())["resumed_at"] == 2
    found = load_file(tmp_path / "again" / "model.safetensors")
    assert all(torch.equal(found[name], weight) for name, weight in whole.items())
    same = {name for name, weight in whole.items() if name in before and torch.equal(weight, before[name])}
    assert same == {name for name in whole if name.startswith(("model.layers.0.", "model.embed_tokens."))}


@pytest.mark.parametrize(
    ("others", "problem"),
    [({"lora_r": 4}, "adapters would change"), ({"neftune_noise_alpha": 5.0}, "noise on the embeddings changes")],
)
def test_what_would_change_the_frozen_part_is_refused(others: dict[str, Any], problem: str) -> None:
    with pytest.raises(UsageError, match=problem):
        TrainingOptions(freeze_layers=1, **others)
    with pytest.raises(UsageError, match="expected a value of 0 or more"):
        TrainingOptions(freeze_layers=-1)


@pytest.mark.parametrize(("model", "layers"), [(MODEL, "1"), ("scratch_encoder(hidden=32, layers=2, vocab=300)", "0")])
def test_evaluation_reads_stored_states_and_gives_the_same_rewards(
    model: str,
    layers: str,
    data: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "cache"))
    run(data, tmp_path / "run", "train-reward", "--model", model, "--freeze-layers", layers)
    capsys.readouterr()
    records = []
    for name in ("stored", "computed"):
        succeed("evaluate", tmp_path / "run", data, "--allow-leakage", "--output", tmp_path / name)
        records.append(ScoredRows.read(tmp_path / name).sides("reward"))
        assert ("computed before" in capsys.readouterr().err) == (name == "stored")
        monkeypatch.setattr(reward_models, "_trained_layers", lambda name: None)
    assert np.abs(records[0] - records[1]).max() <= 1e-5 * max(1.0, np.abs(records[1]).max())
