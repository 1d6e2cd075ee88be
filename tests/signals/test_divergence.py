from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from headwater.data.preference import Preference
from headwater.data.tokens import PairTokens
from headwater.models import loading
from headwater.signals import divergence
from headwater.signals.divergence import profile, read_divergence, sampled_pairs


def policy(corpus: list[Preference], seed: int, scale: float = 8.0) -> Any:
    """A tiny model with opinions: random weights are nearly uniform."""
    model = loading.load("scratch(hidden=32, layers=1, vocab=512)", "policy", corpus, seed).model
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(scale)
    return model


def by_forward(model: Any, prompt: np.ndarray, response: np.ndarray) -> torch.Tensor:
    """Log-probabilities [tokens, V] that a plain forward gives at the positions before each response token."""
    ids = torch.from_numpy(np.concatenate([prompt, response]).astype(np.int64))[None]
    with torch.inference_mode():
        logits = model(ids).logits[0, len(prompt) - 1 : -1]
    return logits.log_softmax(-1)


def test_exact_values_are_those_of_the_whole_distributions(
    corpus: list[Preference], pairs: list[PairTokens], monkeypatch: pytest.MonkeyPatch
) -> None:
    own, other = policy(corpus, 0), policy(corpus, 1)
    few = pairs[:4]
    expected, log_ratios = [], []
    for ids, prompt in [(ids, p.prompt) for p in few for ids in (p.chosen, p.rejected)]:
        p, q = (torch.distributions.Categorical(logits=by_forward(m, prompt, ids)) for m in (own, other))
        following = torch.from_numpy(ids.astype(np.int64))
        log_ratios.append((p.log_prob(following) - q.log_prob(following)).numpy())
        expected.append(torch.distributions.kl_divergence(p, q).numpy())
    monkeypatch.setattr(divergence, "LOGITS", 7 * len(own.get_output_embeddings().weight))  # several chunks
    found = read_divergence(own, other, few, 4096, draws=0)
    assert found.drawn is None
    for one, wanted in zip(found.exact, expected, strict=True):
        np.testing.assert_allclose(one, wanted, rtol=1e-4, atol=1e-6)
    assert min(wanted.min() for wanted in expected) > 0.01
    for one, wanted in zip(found.log_ratio, log_ratios, strict=True):
        np.testing.assert_allclose(one, wanted, rtol=1e-4, atol=1e-5)
        assert np.std(wanted) > 0.1


def test_a_policy_has_not_moved_from_itself(corpus: list[Preference], pairs: list[PairTokens]) -> None:
    found = read_divergence(policy(corpus, 0), policy(corpus, 0), pairs[:3], 4096, draws=5)
    assert max(np.abs(one).max() for each in found for one in each or [np.inf]) < 1e-6


def test_monte_carlo_comes_to_the_exact_value(corpus: list[Preference], pairs: list[PairTokens]) -> None:
    """Over 2,000 draws at each of some 700 positions; their errors are independent."""
    torch.manual_seed(0)
    found = read_divergence(policy(corpus, 0), policy(corpus, 1), pairs[:4], 4096, 2000)
    assert found.drawn is not None
    exact, drawn = np.concatenate(found.exact), np.concatenate(found.drawn)
    errors = drawn - exact
    assert np.abs(errors).max() > 0
    assert abs(errors.mean()) < 4 * errors.std() / np.sqrt(len(errors))
    assert errors.std() < 0.1 * exact.mean()


def test_samples_end_where_an_end_token_is_drawn(corpus: list[Preference], pairs: list[PairTokens]) -> None:
    torch.manual_seed(0)
    model = policy(corpus, 0, scale=1.0)
    ends = list(range(50))  # so many of a vocabulary of 512 that samples are short
    found = sampled_pairs(model, pairs[:6], 40, ends, batch=4)
    assert sorted(p.id for p in found) == sorted(p.id for p in pairs[:6])
    sides = [side for pair in found for side in (pair.chosen, pair.rejected)]
    assert all(not np.isin(side[:-1], ends).any() for side in sides)
    assert any(side[-1] in ends for side in sides)
    assert len({side.tobytes() for side in sides}) == len(sides)


def test_samples_are_drawn_from_the_policy(corpus: list[Preference], pairs: list[PairTokens]) -> None:
    """First tokens of 400 draws: each token's count is within five standard errors of its probability."""
    torch.manual_seed(0)
    model = policy(corpus, 0)
    prompt = pairs[0]
    expected = by_forward(model, prompt.prompt, prompt.chosen[:1])[0].exp().numpy()
    found = sampled_pairs(model, [prompt] * 200, 1, [0], batch=50)
    counts = np.bincount([int(side[0]) for pair in found for side in (pair.chosen, pair.rejected)], minlength=512)
    error = np.sqrt(expected * (1 - expected) * 400)
    assert (np.abs(counts - 400 * expected) < 5 * error + 1).all()
    assert expected.max() > 0.05


def test_a_models_own_generation_settings_do_not_change_its_samples(
    corpus: list[Preference], pairs: list[PairTokens]
) -> None:
    found = []
    for settings in ({}, {"repetition_penalty": 5.0, "suppress_tokens": list(range(200)), "min_new_tokens": 20}):
        torch.manual_seed(0)
        model = policy(corpus, 0, scale=1.0)
        model.generation_config.update(**settings)
        drawn = sampled_pairs(model, pairs[:4], 20, list(range(50)), batch=4)
        found.append([side.tolist() for pair in drawn for side in (pair.chosen, pair.rejected)])
    assert found[0] == found[1]


def test_a_profile_by_hand() -> None:
    values = [np.array([4.0, 2.0, 2.0]), np.array([6.0, 0.0])]
    found = profile(values, ["a", "b"], 0)
    assert found.total.value == pytest.approx((8 + 6) / 2)
    assert [(s.first, s.last) for s in found.stretches] == [(1, 1), (2, 4)]
    assert [s.mean.value for s in found.stretches] == pytest.approx([5.0, 4 / 3])
    assert [s.mean.n for s in found.stretches] == [2, 2]
    assert [(s.tokens, s.share.value) for s in found.shares] == [(1, pytest.approx(10 / 14))]


def test_stretches_hold_every_token_once() -> None:
    rng = np.random.default_rng(0)
    values = [rng.random(length) for length in (1, 4, 30, 700)]
    found = profile(values, list("abcd"), 0)
    tokens = [sum(max(0, min(len(v), s.last or 10**9) - s.first + 1) for v in values) for s in found.stretches]
    assert sum(tokens) == 735
    total = sum(s.mean.value * n for s, n in zip(found.stretches, tokens, strict=True))
    assert total == pytest.approx(sum(v.sum() for v in values))
    assert found.stretches[-1].last is None
    assert [s.share.value for s in found.shares] == sorted(s.share.value for s in found.shares)
