"""The default learning rate follows ancestry and size, and a loss that does not move is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from headwater.files import write_json
from headwater.training.default_rate import ancestry, default_rate, parameters_of
from headwater.training.loss_movement import hardly_moved


def run(path: Path, base: str | None, parameters: int) -> str:
    """A folder with weights; with a base, the run of a training."""
    path.mkdir(parents=True)
    save_file({"w": torch.zeros(parameters, dtype=torch.int8)}, path / "model.safetensors")
    if base is not None:
        write_json(path / "facts.json", {"base": base})
    return str(path)


def test_what_descends_from_a_scratch_model_keeps_its_rate(tmp_path: Path) -> None:
    """As measured: DPO on the SFT run of a model of 0.36 M parameters took 1e-6 and moved nothing."""
    sft = run(tmp_path / "sft", "scratch(hidden=64, layers=2)", 360_000)
    dpo = run(tmp_path / "dpo", sft, 360_000)
    assert ancestry(dpo) == [dpo, sft, "scratch(hidden=64, layers=2)"]
    rate = default_rate(dpo, 1e-6, "train-dpo")
    assert rate == (1e-3, "it descends from scratch(hidden=64, layers=2) (0.36 M parameters)")
    assert default_rate("scratch(hidden=64, layers=2)", 1e-6, "train-dpo").value == 1e-3


def test_a_large_scratch_model_takes_less(tmp_path: Path) -> None:
    sft = run(tmp_path / "sft", "scratch(hidden=1024, layers=8)", 40_000_000)
    assert default_rate(sft, 1e-6, "train-dpo").value == pytest.approx(5e-4)
    assert default_rate("scratch(hidden=2048, layers=24)", 1e-6, "train-dpo").value < 1.5e-4


def test_pretrained_models_take_the_published_rate_unless_they_are_small(tmp_path: Path) -> None:
    large = run(tmp_path / "large", "org/model", 11_000_000)
    assert default_rate(large, 1e-6, "train-dpo") == (
        1e-6,
        "that of train-dpo for pretrained models (11.00 M parameters)",
    )
    assert default_rate("org/not-here", 2e-5, "train-sft") == (2e-5, "that of train-sft for pretrained models")
    assert default_rate(run(tmp_path / "small", None, 260_000), 1e-6, "train-dpo") == (
        1e-3,
        "it is a small model (0.26 M parameters)",
    )


def test_a_circle_of_runs_ends(tmp_path: Path) -> None:
    one = run(tmp_path / "one", str(tmp_path / "two"), 10)
    two = run(tmp_path / "two", one, 10)
    assert ancestry(one) == [one, two]


def test_the_size_of_a_scratch_model_is_near_its_real_one() -> None:
    found = parameters_of("scratch(hidden=64, layers=2, vocab=4096)")
    assert found == pytest.approx(360_000, rel=0.05)


def noisy(start: float, end: float, noise: float, n: int = 40, seed: int = 0) -> list[float]:
    return (np.linspace(start, end, n) + np.random.default_rng(seed).normal(0, noise, n)).tolist()


def test_a_loss_that_moved_less_than_its_noise_is_told_from_one_that_moved() -> None:
    assert hardly_moved(noisy(0.7, 0.4, 0.05)) == ""
    assert hardly_moved(noisy(0.7, 0.9, 0.02)) == "", "it moved, if upwards"
    assert "moved by less than its noise" in hardly_moved(noisy(0.69, 0.69, 0.05))
    assert hardly_moved(noisy(0.7, 0.6, 0.05, n=7)) == "", "too few to say"
    assert hardly_moved([float("nan")] * 20) == ""
    tiny = hardly_moved(noisy(0.69315, 0.69310, 1e-6))
    assert tiny.startswith("the loss moved by less than 0.5%: 0.69314 in the first quarter of the logged steps, 0.6931")


def test_losses_without_a_trend_are_seldom_called_moved() -> None:
    """In 200 runs each, of different lengths: nominally 5 %."""
    for n in (12, 40, 200):
        moved = [hardly_moved(noisy(0.7, 0.7, 0.05, n, seed)) == "" for seed in range(200)]
        assert np.mean(moved) <= 0.07
