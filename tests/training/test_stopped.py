"""A pass that a signal stopped goes on from there, with the values of a pass that was not."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headwater import interrupts
from headwater.data.tokens import PairTokens
from headwater.forward import partial_results
from headwater.forward.passes import score_pairs, token_values, with_reference
from headwater.forward.scores import policy_scores, reward_scores, token_log_probs
from headwater.losses import DPO, BradleyTerry
from headwater.models.loading import load
from headwater.training.reference import Reference

SCRATCH = "scratch(hidden=32, layers=1, vocab=512)"
ROOM = 256


@pytest.fixture
def policy(corpus: Sequence[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "cache"))
    return load(SCRATCH, "policy", corpus, 0).model


def stop_after(passes: int, model: torch.nn.Module, compute: Callable[[], object]) -> int:
    """Run `compute`, with a signal in a forward pass; the number of passes that were run."""
    seen: list[int] = []

    def count(*_: object) -> None:
        seen.append(1)
        if len(seen) == passes:
            os.kill(os.getpid(), signal.SIGTERM)

    hook = model.register_forward_hook(count)
    inner = model.base_model.register_forward_hook(count)
    try:
        with interrupts.handled():
            compute()
    finally:
        hook.remove()
        inner.remove()
    return len(seen)


def test_rewards_and_token_values_go_on(policy: Any, pairs: list[PairTokens]) -> None:
    known = with_reference(policy, pairs, ROOM, "padded")
    for compute in (
        lambda: score_pairs(policy, policy_scores, DPO(), known, ROOM, "padded"),
        lambda: token_values(policy, token_log_probs, pairs, ROOM, "padded", "values"),
    ):
        whole = compute()
        every = stop_after(10**6, policy, compute)
        assert every > 6
        with pytest.raises(interrupts.Stopped):
            stop_after(3, policy, compute)
        assert len(list(partial_results.folder().iterdir())) == 1
        found: list[Any] = []
        rest = stop_after(10**6, policy, lambda compute=compute, found=found: found.append(compute()))
        assert 0 < rest < every
        np.testing.assert_allclose(np.hstack(flat(found[0])), np.hstack(flat(whole)), rtol=0, atol=1e-5)
        assert not list(partial_results.folder().iterdir()), "what was taken is not kept"


def flat(values: Any) -> list[Any]:
    return [np.ravel(side) for row in values for side in row]


def test_another_models_values_are_not_taken(policy: Any, pairs: list[PairTokens]) -> None:
    def compute() -> Any:
        return token_values(policy, token_log_probs, pairs, ROOM, "padded", "values")

    every = stop_after(10**6, policy, compute)
    with pytest.raises(interrupts.Stopped):
        stop_after(3, policy, compute)
    with torch.no_grad():
        policy.get_input_embeddings().weight[10, 0] += 1e-3
    assert stop_after(10**6, policy, compute) == every
    (file,) = partial_results.folder().iterdir()
    file.write_bytes(b"damaged")
    with torch.no_grad():
        policy.get_input_embeddings().weight[10, 0] -= 1e-3
    assert stop_after(10**6, policy, compute) == every, "a damaged file is no reason to stop"


def test_a_function_that_closes_over_a_model_is_not_kept(policy: Any, pairs: list[PairTokens]) -> None:
    def read(model: torch.nn.Module, batch: Any) -> torch.Tensor:
        return token_log_probs(model, batch)

    with pytest.raises(interrupts.Stopped):
        stop_after(3, policy, lambda: token_values(policy, read, pairs, ROOM, "padded", "values"))
    assert not partial_results.folder().exists()


def test_the_reference_pass_goes_on_and_leaves_no_stray_file(policy: Any, pairs: list[PairTokens]) -> None:
    reference = Reference(policy, ROOM, False)
    with pytest.raises(interrupts.Stopped):
        stop_after(12, policy, lambda: reference.stored(pairs))
    cache = partial_results.folder().parent / "reference"
    assert not list(cache.iterdir())
    assert len(list(partial_results.folder().iterdir())) == 1
    found = reference.stored(pairs)
    expected = with_reference(policy, pairs, ROOM, "shared")
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one.chosen_reference, other.chosen_reference, rtol=0, atol=1e-4)
        np.testing.assert_allclose(one.rejected_reference, other.rejected_reference, rtol=0, atol=1e-4)


def test_rewards_of_a_reward_model_go_on(
    corpus: Sequence[Any], pairs: list[PairTokens], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "cache"))
    model = load(SCRATCH, "reward", corpus, 0, new_head=True).model

    def compute() -> Any:
        return score_pairs(model, reward_scores, BradleyTerry(), pairs, ROOM, "padded")

    whole = compute()
    with pytest.raises(interrupts.Stopped):
        stop_after(3, model, compute)
    np.testing.assert_allclose(compute(), whole, rtol=0, atol=1e-5)
