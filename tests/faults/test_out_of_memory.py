"""R9, R10: a pass that memory does not hold is computed in smaller ones, with the same result."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from headwater import cli
from headwater.errors import ResourceError
from headwater.forward import halving, scores
from headwater.forward.packing import tokens_of
from headwater.forward.passes import score_pairs, token_values
from headwater.forward.scores import reward_scores, token_log_probs
from headwater.losses import BradleyTerry
from headwater.rewards.responses import reward_token_scorer
from tests.conftest import random_pairs
from tests.faults.training_runs import write_pairs
from tests.forward.test_parity import LENGTHS, VOCAB, policy, reward
from tests.training.test_training import Recorder, trainer, weights

ERRORS: dict[str, Callable[[], BaseException]] = {
    "GPU": lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    "CPU": lambda: RuntimeError("[enforce fail] DefaultCPUAllocator: not enough memory: you tried to allocate 8 bytes"),
    "Linux": lambda: RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes"),
    "process": MemoryError,
}


def hold(tokens: int, error: str, monkeypatch: pytest.MonkeyPatch, times: int = 10**9) -> list[int]:
    """Let passes of more than so many tokens fail in the backbone; returns the sizes of all that were tried."""
    tried: list[int] = []
    states_as_is = scores.hidden_states

    def hidden_states(model: Any, batch: Any) -> torch.Tensor:
        size = batch["input_ids"].numel()
        tried.append(size)
        if size > tokens and sum(each > tokens for each in tried) <= times:
            raise ERRORS[error]()
        return states_as_is(model, batch)

    monkeypatch.setattr(scores, "hidden_states", hidden_states)
    return tried


@pytest.mark.fault("R9")
@pytest.mark.parametrize("error", ERRORS)
@pytest.mark.parametrize("accumulation", [1, 2])
def test_training_takes_the_same_step_in_smaller_passes(
    error: str, accumulation: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pairs = random_pairs(LENGTHS[:4], VOCAB)
    changes: dict[str, Any] = {
        "per_device_train_batch_size": 4 // accumulation,
        "gradient_accumulation_steps": accumulation,
        "num_train_epochs": 2,
    }
    expected, log = reward("llama"), Recorder()
    trainer(expected, reward_scores, BradleyTerry(), pairs, tmp_path, log, **changes).train()
    model, again = reward("llama"), Recorder()
    # The second batch of the first step is what does not fit, where there are two.
    tried = hold(max(tokens_of(pair, "shared") for pair in pairs), error, monkeypatch)
    trainer(model, reward_scores, BradleyTerry(), pairs, tmp_path, again, **changes).train()
    assert "training: out of memory at" in capsys.readouterr().err
    moved = torch.linalg.norm(weights(expected) - weights(reward("llama")))
    assert torch.linalg.norm(weights(model) - weights(expected)) <= 1e-7 * moved
    for one, other in zip(log.rows[:2], again.rows[:2], strict=True):
        for name in ("loss", "grad_norm", "rewards/chosen", "rewards/accuracies"):
            assert one[name] == pytest.approx(other[name], rel=1e-6)
    failures = [place for place, size in enumerate(tried) if size > max(tokens_of(pair, "shared") for pair in pairs)]
    assert failures[-1] < len(tried) // 2, "what did not fit once is not tried again"


@pytest.mark.fault("R9")
@pytest.mark.parametrize("error", ["GPU", "process"])
def test_scores_and_reference_values_are_the_same(error: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = random_pairs(LENGTHS, VOCAB)
    model, other = reward("llama"), policy("llama")
    longest = max(tokens_of(pair, "shared") for pair in pairs)

    def found() -> list[np.ndarray]:
        values = token_values(other, token_log_probs, pairs, 10_000, "shared", "reference")
        sides = [pair._replace(id=str(n), rejected=pair.chosen) for n, pair in enumerate(pairs)]
        return [
            score_pairs(model, reward_scores, BradleyTerry(), pairs, 10_000, "shared"),
            np.concatenate([np.concatenate(value) for value in values]),
            np.array(reward_token_scorer(model, "shared").read(sides, 10_000)),
        ]

    expected = found()
    tried = hold(longest, error, monkeypatch)
    for one, again in zip(expected, found(), strict=True):
        assert np.allclose(one, again, rtol=0, atol=1e-6)
    assert max(tried) > longest


@pytest.mark.fault("R10")
def test_one_pair_that_does_not_fit_ends_with_its_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = random_pairs(LENGTHS[:4], VOCAB)
    longest = max(pairs, key=lambda pair: tokens_of(pair, "shared"))
    size = tokens_of(longest, "shared")
    said = rf"row {longest.id} · memory does not hold its {size:,} tokens · give a smaller --max-length"
    hold(size - 1, "GPU", monkeypatch)
    with pytest.raises(ResourceError, match=f"training, {said}") as ended:
        trainer(reward("llama"), reward_scores, BradleyTerry(), pairs, tmp_path, per_device_train_batch_size=4).train()
    assert ended.value.exit_code == 7
    with pytest.raises(ResourceError, match=f"scoring, {said}"):
        score_pairs(reward("llama"), reward_scores, BradleyTerry(), pairs, 10_000, "shared")


@pytest.mark.fault("R10")
def test_other_errors_are_not_taken_for_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not halving.is_exhausted(RuntimeError("shapes do not match"))
    monkeypatch.setitem(ERRORS, "bug", lambda: RuntimeError("shapes do not match"))
    hold(0, "bug", monkeypatch)
    with pytest.raises(RuntimeError, match="shapes do not match"):
        trainer(reward("llama"), reward_scores, BradleyTerry(), random_pairs(LENGTHS[:2], VOCAB), tmp_path).train()


@pytest.mark.fault("R10")
@pytest.mark.parametrize("error", ["process", "GPU"])
def test_memory_that_runs_out_elsewhere_is_said_in_one_line(
    error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def load(*others: Any, **named: Any) -> Any:
        raise ERRORS[error]()

    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_config", load)
    data = write_pairs(tmp_path / "pairs.jsonl")
    typed = ["train-dpo", "--data", str(data), "--output", str(tmp_path / "run"), "--model", "scratch()"]
    assert cli.main(typed) == 7
    said = capsys.readouterr().err.splitlines()[-1]
    assert "out of memory" in said
    assert "--tokens-per-pass" in said
