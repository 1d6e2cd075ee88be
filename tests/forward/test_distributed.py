"""Two processes on half batches train as one process on whole ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from headwater.commands import train_dpo
from headwater.commands.train_dpo import Config
from headwater.data.corpus import Corpus, generate
from headwater.data.writing import write
from headwater.training.options import TrainingOptions
from headwater.training.order import Shares
from tests.conftest import ROOT

MODEL = "scratch(hidden=32, layers=1, vocab=300)"
FLAGS = ["--model", MODEL, "--precision", "fp32", "--num-train-epochs", "2", "--logging-steps", "1"]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    write(path, generate(Corpus(pairs=40, seed=3)))
    return path


def in_two_processes(command: list[str], cache: Path) -> subprocess.CompletedProcess[str]:
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "HEADWATER_CACHE": str(cache), "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [*launch, *command], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done


def test_a_sharded_model_has_the_whole_models_gradient(tmp_path: Path) -> None:
    done = in_two_processes(["-m", "tests.forward.sharded_worker"], tmp_path)
    assert done.stdout.count("same") == 6, "two processes; own and tied embeddings, adapters"


def test_two_processes_are_one(data: Path, tmp_path: Path) -> None:
    """The same global batches: the same losses, weights and held-out figures; one process writes."""
    options = TrainingOptions(
        precision="fp32", num_train_epochs=2, logging_steps=1, per_device_train_batch_size=4, learning_rate=1e-3
    )
    one = train_dpo.run(Config(data=data, output=tmp_path / "one", model=MODEL, training=options))
    command = [
        "-m", "headwater", "train-dpo", "--data", str(data), "--output", str(tmp_path / "two"),
        *FLAGS, "--per-device-train-batch-size", "2", "--learning-rate", "1e-3",
    ]  # fmt: skip
    done = in_two_processes(command, tmp_path)
    assert done.stderr.count("model: scratch") == 1, "only the first process speaks"

    mine, theirs = (load_file(path / "model.safetensors") for path in (one, tmp_path / "two"))
    start = load_file(one / "reference" / "model.safetensors")
    moved = max((mine[name] - start[name]).abs().max().item() for name in mine)
    assert moved > 1e-3
    for name, weight in mine.items():
        # Adam divides by the size of a gradient, so rounding shows where it is nearly zero.
        assert torch.linalg.norm(theirs[name] - weight) <= 1e-3 * torch.linalg.norm(weight - start[name]), name
    losses = [
        [json.loads(line)["loss"] for line in (path / "history.jsonl").read_text().splitlines() if '"loss"' in line]
        for path in (one, tmp_path / "two")
    ]
    assert len(losses[0]) > 4
    assert np.allclose(*losses, rtol=0, atol=1e-5)
    metrics = [json.loads((path / "metrics.json").read_text()) for path in (one, tmp_path / "two")]
    assert metrics[0]["train_pairs"] % 4, "the last batch is not a full one"
    assert metrics[0]["eval_loss"] == pytest.approx(metrics[1]["eval_loss"], abs=1e-5)
    assert metrics[0]["eval_rewards/accuracies"] == pytest.approx(metrics[1]["eval_rewards/accuracies"])


@pytest.mark.parametrize(("pairs", "batch", "processes"), [(35, 4, 1), (35, 2, 2), (9, 2, 4), (10, 2, 4), (3, 8, 2)])
def test_processes_take_every_pair_once_and_never_nothing(pairs: int, batch: int, processes: int) -> None:
    shares = [Shares(pairs, batch, 7, process, processes) for process in range(processes)]
    for _ in range(2):
        epoch = [list(share) for share in shares]
        assert {len(batches) for batches in epoch} == {len(shares[0])}
        assert all(part for batches in epoch for part in batches)
        assert sorted(index for batches in epoch for part in batches for index in part) == list(range(pairs))


def test_the_order_is_new_each_epoch_and_the_same_each_run() -> None:
    first, again = Shares(50, 8, 1), Shares(50, 8, 1)
    epochs = [list(first), list(first)]
    assert epochs[0] != epochs[1]
    assert epochs == [list(again), list(again)]
