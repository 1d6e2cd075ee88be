"""`auto` is bf16 where that is native and no slower; several processes, which must agree, measure nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from headwater.commands import train_reward
from headwater.errors import UsageError
from headwater.models import precision
from headwater.training import job


@pytest.fixture(autouse=True)
def _a_cpu_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True)
    monkeypatch.delenv("WORLD_SIZE", raising=False)


@pytest.mark.parametrize(("gain", "expected"), [(0.5, "fp32"), (0.99, "fp32"), (1.0, "bf16"), (12.0, "bf16")])
def test_auto_takes_what_is_faster_on_a_cpu(gain: float, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "bf16_gain", lambda: gain)
    assert precision.resolve("auto") == expected
    assert precision.resolve("bf16") == "bf16"
    assert precision.resolve("fp32") == "fp32"


def test_without_native_bf16_auto_is_fp32_and_bf16_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(precision, "bf16_gain", lambda: pytest.fail("measured for nothing"))
    assert precision.resolve("auto") == "fp32"
    with pytest.raises(UsageError, match="--precision bf16 · this device does not compute bf16 natively"):
        precision.resolve("bf16")


def test_several_processes_agree_without_a_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "bf16_gain", lambda: pytest.fail("processes may measure differently"))
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert precision.resolve("auto") == "bf16"


def test_a_gpu_is_not_timed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "bf16_gain", lambda: pytest.fail("measured for nothing"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda: True)
    assert precision.resolve("auto") == "bf16"


def test_the_gain_is_measured_once_and_leaves_the_threads_as_they_were() -> None:
    threads = torch.get_num_threads()
    gain = precision.bf16_gain()
    assert 0 < gain < 1000
    assert precision.bf16_gain() == gain
    assert torch.get_num_threads() == threads


def test_the_stored_config_says_what_auto_took(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "bf16_gain", lambda: 0.5)
    config = train_reward.Config(data=Path("pairs.jsonl"), output=Path("run"))
    assert config.training.precision == "auto"
    assert job._with_defaults(config, None).training.precision == "fp32"
