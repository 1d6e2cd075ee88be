"""The account of a response: by hand from plain forward passes, and estimators against each other."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headwater.config import build
from headwater.decoding.draws import Shaping
from headwater.decoding.options import DecodingOptions
from headwater.decoding.strategies import STRATEGIES
from headwater.decoding.token_statistics import StatisticsReader, TokenStatistics
from tests.decoding.test_loop import FAMILIES, PROMPTS, decode, model_of, nudged

STRATEGY = {
    "length": "length_control(first=5)",
    "threshold": "kl_threshold(threshold=0.12, below=0.5)",
    "mixture": "interpolate(weight=1.5)",
    "policy": "policy",
    "reference": "reference",
}


def row_counts_by_stage(
    text: str, family: str = "llama", draws: int = 0, **options: float
) -> tuple[list[TokenStatistics], list[list[int]]]:
    reference = model_of(family)
    policy = nudged(reference)
    settings = {"temperature": 1.0, "max_new_tokens": 12} | options
    found, _ = decode(policy, reference, text, **settings)
    accountant = StatisticsReader(policy, reference, build(text, STRATEGIES, "strategy"), DecodingOptions(**settings))  # type: ignore[arg-type]
    tokens = [one.tokens + ([] if one.end is None else [one.end]) for one in found]
    return list(accountant.read(found, draws)), tokens


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("name", ["length", "threshold", "mixture"])
def test_accounts_are_those_of_plain_forward_passes(name: str, family: str) -> None:
    reference = model_of(family)
    policy, strategy = nudged(reference), build(STRATEGY[name], STRATEGIES, "strategy")
    shaping = Shaping(DecodingOptions(temperature=0.8, top_k=20))
    found, tokens = row_counts_by_stage(STRATEGY[name], family, temperature=0.8, top_k=20)
    for spoken, prompt, row in zip(found, PROMPTS, tokens, strict=True):
        for place, token in enumerate(row):
            ids = torch.tensor([[*prompt, *row[:place]]])
            with torch.inference_mode():
                p, r = (model(ids).logits[:, -1].double().log_softmax(1) for model in (policy, reference))
            turn = strategy.turn(place)
            said = strategy.mix(p, r).log_probs if turn == "both" else {"policy": p, "reference": r}[turn]
            used = shaping(said)[0]
            kl = sum(float(q * (q.log() - o)) for q, o in zip(used, r[0], strict=True) if q > 0)
            assert spoken.kl[place] == pytest.approx(kl, abs=1e-4)
            assert spoken.kl_policy[place] == pytest.approx(float((p.exp() * (p - r)).sum()), abs=1e-4)
            assert spoken.log_ratio[place] == pytest.approx(float(used[token].log() - r[0, token]), abs=1e-4)


@pytest.mark.parametrize("name", STRATEGY)
def test_kl_is_never_below_0_and_0_only_where_the_reference_spoke(name: str) -> None:
    found, _ = row_counts_by_stage(STRATEGY[name])
    shares = np.concatenate([spoken.policy_share for spoken in found])
    kl = np.concatenate([spoken.kl for spoken in found])
    assert (kl >= 0).all()
    assert (kl[shares == 0] < 1e-9).all()
    assert (kl[shares != 0] > 1e-6).all()
    own = np.concatenate([spoken.kl_policy for spoken in found])
    np.testing.assert_allclose(kl[shares == 1], own[shares == 1], atol=1e-9)
    if name == "length":
        assert [spoken.policy_share[:6] for spoken in found if len(spoken.kl) > 5] == [[1, 1, 1, 1, 1, 0]] * 6
    if name == "threshold":
        np.testing.assert_array_equal(shares, np.where(own > 0.12, 1.0, 0.5))
        assert len(set(shares)) == 2


def test_monte_carlo_comes_to_the_exact_divergence() -> None:
    """Unbiased: within four standard errors at 100,000 draws a token, and much nearer than at 10."""
    rough, near = (row_counts_by_stage("policy", draws=draws)[0] for draws in (10, 100_000))
    exact = np.concatenate([spoken.kl_policy for spoken in near])
    errors = [np.concatenate([spoken.monte_carlo for spoken in each]) - exact for each in (rough, near)]
    assert abs(errors[1]).max() < 0.05
    assert np.std(errors[0]) > 30 * np.std(errors[1])
    assert not row_counts_by_stage("policy")[0][0].monte_carlo


def test_the_sampled_log_ratio_has_the_exact_divergence_as_its_mean() -> None:
    found, _ = row_counts_by_stage("policy", n=100, max_new_tokens=6, batch_size=64)
    ratio, kl = (np.array([sum(getattr(spoken, name)) for spoken in found]) for name in ("log_ratio", "kl"))
    assert len(found) == 600
    error = (ratio - kl).std() / np.sqrt(len(found))
    assert abs((ratio - kl).mean()) < 3.5 * error
    assert ratio.std() > kl.std()
    assert (ratio < 0).any()


def test_a_greedy_token_costs_its_surprise_under_the_reference() -> None:
    found, _ = row_counts_by_stage("policy", temperature=0)
    for spoken in found:
        assert spoken.kl == pytest.approx(spoken.log_ratio)
        assert np.isfinite(spoken.kl).all()
