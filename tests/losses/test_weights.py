from __future__ import annotations

import numpy as np
import pytest
import torch

from headwater.config import build
from headwater.data.tokens import PairTokens
from headwater.errors import UsageError
from headwater.forward.packing import UNIFORM, RowFormat, collate
from headwater.forward.passes import score_pairs, with_reference
from headwater.forward.scores import policy_scores, reference_scores, token_log_probs
from headwater.losses import DPO
from headwater.losses.token_weights import WEIGHTS, Decay, DownSample, First, Mean, Tail, Uniform, Weights
from tests.conftest import random_pairs
from tests.forward.test_parity import LENGTHS, VOCAB, pairs_with_openings, policy

SETTINGS = {"first": {"tokens": 3}}
ALL: dict[str, Weights] = {name: make(**SETTINGS.get(name, {})) for name, make in WEIGHTS.items()}


@pytest.mark.parametrize(
    ("weights", "chosen", "rejected"),
    [
        (Uniform(), [1, 1, 1, 1], [1, 1]),
        (First(3), [1, 1, 1, 0], [1, 1]),
        (Decay(0.5), [0.5, 0.25, 0.125, 0.0625], [0.5, 0.25]),
        (Tail(0.25), [1, 1, 0.25, 0.25], [1, 1]),
        (Mean(), [0.25] * 4, [0.5] * 2),
    ],
)
def test_weights_by_hand(weights: Weights, chosen: list[float], rejected: list[float]) -> None:
    found = weights(4, 2, "x")
    assert found.chosen.tolist() == chosen
    assert found.rejected.tolist() == rejected


def test_down_sampling_keeps_the_shorter_length_and_depends_on_the_row_alone() -> None:
    first = DownSample()(10, 4, "a")
    assert (first.chosen.sum(), first.rejected.tolist()) == (4, [1.0] * 4)
    assert set(first.chosen) == {0.0, 1.0}
    assert np.array_equal(first.chosen, DownSample()(10, 4, "a").chosen)
    draws = {tuple(DownSample(seed)(10, 4, key).chosen) for seed in range(5) for key in "abcde"}
    assert len(draws) > 10
    share = np.mean([DownSample()(10, 4, str(n)).chosen for n in range(2000)], axis=0)
    assert abs(share - 0.4).max() < 0.05, "every token is drawn as often"


@pytest.mark.parametrize("limit", [Decay(1.0), Tail(1.0), First(10_000)])
def test_limits_recover_plain_dpo(limit: Weights) -> None:
    model, other = policy("llama"), policy("llama")
    with torch.no_grad():
        next(other.parameters()).add_(0.05)
    pairs = with_reference(other, random_pairs(LENGTHS, VOCAB), 30, "shared")
    plain = score_pairs(model, policy_scores, DPO(), pairs, 30, "shared")
    assert abs(plain).max() > 1e-3
    assert np.array_equal(score_pairs(model, policy_scores, DPO(), pairs, 30, "shared", limit), plain)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("row_format", ["shared", "packed"])
def test_policy_and_reference_are_weighed_alike(name: str, row_format: RowFormat) -> None:
    """Scores are Σ w log π, token by token, of the policy and of the reference."""
    model = policy("qwen2")
    pairs = with_reference(model, pairs_with_openings(), 60, "shared")
    batch = collate(pairs, row_format, ALL[name])
    with torch.no_grad():
        log_probs, scores, reference = (
            token_log_probs(model, batch),
            policy_scores(model, batch),
            reference_scores(batch),
        )
    assert reference is not None
    by_response = iter(np.split(log_probs.numpy(), np.cumsum(batch["lengths"])[:-1]))
    for index, pair in enumerate(pairs):
        weights = ALL[name](len(pair.chosen), len(pair.rejected), pair.key)
        for side, stored, weight in (
            ("chosen", pair.chosen_reference, weights.chosen),
            ("rejected", pair.rejected_reference, weights.rejected),
        ):
            assert stored is not None
            expected = float(weight @ next(by_response))
            assert getattr(scores, side).value[index].item() == pytest.approx(expected, abs=1e-5)
            assert getattr(reference, side).value[index].item() == pytest.approx(float(weight @ stored), abs=1e-4)


def test_weights_of_0_and_1_equal_a_cut(pairs: list[PairTokens]) -> None:
    """A causal model gives the first k tokens the same log-probabilities whether or not the rest follows."""
    model = policy("gpt2")
    whole = random_pairs(LENGTHS, VOCAB)
    short = [pair._replace(chosen=pair.chosen[:3], rejected=pair.rejected[:3]) for pair in whole]
    with torch.no_grad():
        weighed = policy_scores(model, collate(whole, "shared", First(3)))
        cut = policy_scores(model, collate(short, "shared", UNIFORM))
    assert torch.allclose(weighed.chosen.value, cut.chosen.value, rtol=0, atol=1e-10)
    assert torch.allclose(weighed.rejected.value, cut.rejected.value, rtol=0, atol=1e-10)


@pytest.mark.parametrize("call", ["decay(gamma=0)", "decay(gamma=1.1)", "tail(alpha=-1)", "first(tokens=0)"])
def test_weights_that_cannot_work_are_refused(call: str) -> None:
    with pytest.raises(UsageError, match="must"):
        build(call, WEIGHTS, "weights")
