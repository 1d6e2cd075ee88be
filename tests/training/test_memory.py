"""The estimate of memory before training, beside what a run takes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from headwater.data.corpus import Corpus, generate
from headwater.data.writing import write
from headwater.training import memory
from headwater.training.options import TrainingOptions
from tests.conftest import random_pairs
from tests.forward.test_parity import VOCAB, policy


def estimate(**changes: object) -> memory.Estimate:
    options = TrainingOptions(**changes)  # type: ignore[arg-type]
    return memory.estimate(policy("llama"), random_pairs([(50, 30, 40)] * 20, VOCAB), "shared", options, bf16=False)


def test_activations_follow_the_room_and_the_batch() -> None:
    whole = estimate(per_device_train_batch_size=20, tokens_per_pass=10_000)
    assert estimate(per_device_train_batch_size=20, tokens_per_pass=600).activations < whole.activations / 2
    assert estimate(per_device_train_batch_size=5, tokens_per_pass=10_000).activations < whole.activations / 2
    checkpointed = estimate(per_device_train_batch_size=20, tokens_per_pass=10_000, gradient_checkpointing=True)
    assert checkpointed.activations < whole.activations
    assert whole.weights == checkpointed.weights == sum(p.numel() * 8 for p in policy("llama").parameters())


def test_a_range_is_said_not_a_number() -> None:
    found = memory.Estimate(weights=2**30, training=2**30, activations=3 * 2**30)
    assert str(found) == "2.40 to 6.40 GiB beside 1.00 of weights (estimate: training 1.00 + activations 3.00)"


def test_bf16_on_a_cpu_takes_kernels_too() -> None:
    """As measured: 25 times the estimate for a small model, none of it in what is counted."""
    options = TrainingOptions()
    pairs = random_pairs([(50, 30, 40)] * 20, VOCAB)
    found = memory.estimate(policy("llama"), pairs, "shared", options, bf16=True)
    assert found.range[1] > memory.CPU_BF16 > 1.2 * memory.GIB
    assert "for the kernels of bf16 on a CPU" in str(found)
    assert estimate().kernels == 0


def test_batches_are_drawn_at_random_and_seldom_hold_all_of_the_longest() -> None:
    lengths = [100] * 99 + [10_000]
    assert memory._largest_batch(lengths, 2) <= 10_100
    assert memory._largest_batch([100] * 50, 8) == 800
    assert memory._largest_batch(list(range(1, 1001)), 16) < sum(range(985, 1001))


@pytest.mark.skipif(sys.platform != "linux", reason="peak memory is read from Linux's account of a process")
def test_the_estimate_is_near_what_a_run_takes(tmp_path: Path) -> None:
    """In a process of its own, because peak memory never falls: 64 pairs a step in one pass of some 20,000 tokens."""
    write(tmp_path / "pairs.jsonl", generate(Corpus(pairs=80, seed=0)))
    command = [
        sys.executable, "-m", "headwater", "train-reward", "--data", str(tmp_path / "pairs.jsonl"),
        "--output", str(tmp_path / "run"), "--model", "scratch(hidden=256, layers=4, vocab=1000)",
        "--per-device-train-batch-size", "64", "--tokens-per-pass", "100000", "--eval-fraction", "0",
        "--precision", "fp32",
    ]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    found = json.loads((tmp_path / "run" / "facts.json").read_text())["memory_bytes"]
    expected = memory.Estimate(*(found[name] for name in memory.Estimate._fields))
    taken = found["peak"] - found["before_training"]
    low, high = expected.range
    assert low > 250e6, "more than what the estimate leaves out"
    assert low < taken < high
