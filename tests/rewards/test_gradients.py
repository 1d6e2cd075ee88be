"""Gradient norms of prompts: those of the whole vectors, and never above the bound."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers

from headwater.data.preference import Candidates, Message, Preference, Response
from headwater.data.selection import preference_variance
from headwater.data.tokenizers import Tokenizer
from headwater.rewards.gradients import measure
from headwater.rewards.responses import Reading, encoded
from headwater.statistics import Floats

READING = Reading("complete", 1024, 4096)


@pytest.fixture(scope="module")
def policy(tokenizer: Tokenizer) -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=16, intermediate_size=32, num_hidden_layers=2, num_attention_heads=2,
        max_position_embeddings=1024,
    )  # fmt: skip
    return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def rows(corpus: list[Preference]) -> list[Candidates]:
    texts = [side.text for pair in corpus for side in (pair.chosen, pair.rejected)]
    return [
        Candidates(
            prompt=pair.prompt, responses=tuple(map(Response, texts[4 * k : 4 * k + 4])), id=f"c{k}", source="made"
        )
        for k, pair in enumerate(corpus[:6])
    ]


def vectors(model: Any, tokenizer: Tokenizer, row: Candidates) -> Floats:
    """∇ log π(y | x) of every response, [responses, parameters], through plain forwards."""
    found = []
    for one in encoded([row], tokenizer, READING)[0].responses:
        ids = torch.from_numpy(np.concatenate([one.prompt, one.chosen]).astype(np.int64))[None]
        logits = model(ids).logits[0, len(one.prompt) - 1 : -1].log_softmax(-1)
        model.zero_grad()
        logits.gather(1, ids[0, len(one.prompt) :, None]).sum().backward()
        found.append(np.concatenate([p.grad.double().reshape(-1).numpy() for p in model.parameters()]))
    return np.array(found)


@pytest.mark.parametrize("models", [1, 2])
def test_norms_and_bounds_are_those_of_the_whole_vectors(
    policy: Any, tokenizer: Tokenizer, rows: list[Candidates], models: int
) -> None:
    rewards = np.random.default_rng(0).normal(scale=2, size=(len(rows), models, 4))
    found = list(measure(policy, tokenizer, zip(rows, rewards, strict=True), 0.7, READING))
    ratios = []
    for row, given, one in zip(rows, rewards, found, strict=True):
        assert one is not None
        s = vectors(policy, tokenizer, row)
        p = (1 / (1 + np.exp(-(given[:, :, None] - given[:, None, :]) / 0.7))).mean(axis=0)
        apart = s[:, None] - s[None, :]
        gradient = ((p - 0.5)[:, :, None] * apart).sum(axis=(0, 1)) / 12
        pvar = preference_variance(given, np.array([0, 4]), 0.7).value[0]
        assert one.responses == 4
        assert one.pvar == pytest.approx(pvar, rel=1e-9)
        assert one.norm == pytest.approx(float(np.linalg.norm(gradient)), rel=1e-4)
        assert one.bound == pytest.approx(float(np.sqrt(pvar * np.square(apart).sum() / 12)), rel=1e-4)
        ratios.append(one.norm / one.bound)
    assert 0.2 < max(ratios) <= 1


def test_rows_without_two_usable_rewards_are_none(policy: Any, tokenizer: Tokenizer, rows: list[Candidates]) -> None:
    nan = float("nan")
    empty = Candidates(
        prompt=(Message("user", "?"),),
        responses=(Response("yes"), Response(" "), Response("no")),
        id="e",
        source="made",
    )
    given = [(rows[0], np.array([[1.0, nan, nan, nan]])), (empty, np.array([[1.0, 5.0, nan]])),
             (empty, np.array([[1.0, 5.0, 2.0]]))]  # fmt: skip
    found = list(measure(policy, tokenizer, given, 1.0, READING))
    assert found[:2] == [None, None]
    assert found[2] is not None and found[2].responses == 2


def test_equal_rewards_have_no_gradient(policy: Any, tokenizer: Tokenizer, rows: list[Candidates]) -> None:
    (found,) = measure(policy, tokenizer, [(rows[0], np.ones((1, 4)))], 1.0, READING)
    assert found is not None and found.norm == found.bound == found.pvar == 0
