"""Responses of several turns: only the assistant's tokens are scored, in every row format and by every reader."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from headwater.data.tokens import PairTokens
from headwater.data.turns import Closing
from headwater.forward.packing import RowFormat, collate
from headwater.forward.passes import starts_of, token_values, with_reference
from headwater.forward.scores import (
    policy_scores,
    reference_scores,
    reward_scores,
    self_likelihood_scores,
    token_log_probs,
    token_rewards,
)
from headwater.losses.token_weights import Tail
from headwater.models.fingerprint import of_pairs
from headwater.rewards.responses import TokenScorer
from headwater.signals.prefix_scorers import implicit_reward_prefix_scorer
from headwater.training.kl_estimate import deranged
from headwater.training.reference import _from_whole
from tests.forward.test_parity import pairs_with_openings, policy, reward, separate_log_probs


def masked(pairs: list[PairTokens]) -> list[PairTokens]:
    """Pairs in which some responses hold tokens of others; the first and the last token are the assistant's."""
    rng = np.random.default_rng(0)

    def mask(length: int) -> np.ndarray:
        found = rng.random(length) < 0.5
        found[1:2] = False
        found[[0, -1]] = True
        return found

    found = [
        pair._replace(chosen_mask=mask(len(pair.chosen)), rejected_mask=mask(len(pair.rejected))) for pair in pairs
    ]
    return [*found[:-1], pairs[-1]]


PAIRS = masked(pairs_with_openings())
assert any(0 < each.scored[0] < len(each.chosen) for each in PAIRS)


def scored(values: torch.Tensor, mask: np.ndarray | None) -> torch.Tensor:
    return values if mask is None else values[torch.from_numpy(mask)]


def expected() -> list[torch.Tensor]:
    """The log-probabilities of the scored tokens, each response alone in a plain forward pass."""
    oracle = policy("llama", trees=False)
    with torch.no_grad():
        return [
            scored(values, mask)
            for pair in PAIRS
            for values, mask in zip(separate_log_probs(oracle, pair), pair.masks, strict=True)
        ]


@pytest.mark.parametrize("row_format", ["shared", "packed", "padded", "single"])
def test_scores_are_sums_over_the_assistants_tokens(row_format: RowFormat) -> None:
    model = policy("llama", trees=row_format in ("shared", "packed"))
    values = expected()
    batch = collate(PAIRS, row_format)
    with torch.no_grad():
        scores = policy_scores(model, batch)
        assert torch.allclose(token_log_probs(model, batch), torch.cat(values), atol=1e-9)
        likelihood = self_likelihood_scores(model, batch).chosen
    assert torch.allclose(scores.chosen.value, torch.stack([each.sum() for each in values[::2]]), atol=1e-9)
    assert torch.allclose(scores.rejected.value, torch.stack([each.sum() for each in values[1::2]]), atol=1e-9)
    assert scores.chosen.tokens.tolist() == [pair.scored[0] for pair in PAIRS] == [len(each) for each in values[::2]]
    assert likelihood.self_likelihood is not None and likelihood.self_likelihood.isfinite().all()
    weight = collate(PAIRS, row_format, Tail(1))["weight"]
    assert len(weight) == sum(map(len, values)) == starts_of(PAIRS)[-1], "weights count the assistant's tokens too"


@pytest.mark.parametrize("row_format", ["shared", "packed"])
def test_gradients_are_those_of_the_assistants_tokens(row_format: RowFormat) -> None:
    model, oracle = policy("llama"), policy("llama", trees=False)
    policy_scores(model, collate(PAIRS, row_format)).chosen.value.sum().backward()
    sum(scored(separate_log_probs(oracle, pair)[0], pair.chosen_mask).sum() for pair in PAIRS).backward()  # type: ignore[union-attr]
    for mine, theirs in zip(model.parameters(), oracle.parameters(), strict=True):
        assert mine.grad is not None and theirs.grad is not None
        assert torch.allclose(mine.grad, theirs.grad, atol=1e-9)


def test_a_reward_is_read_at_the_last_token_behind_all_turns() -> None:
    model, plain = reward("llama"), [pair._replace(chosen_mask=None, rejected_mask=None) for pair in PAIRS]
    with torch.no_grad():
        assert torch.equal(
            reward_scores(model, collate(PAIRS)).chosen.value, reward_scores(model, collate(plain)).chosen.value
        )
        every = token_rewards(model, collate(plain))
        masks = [np.ones(len(ids), dtype=bool) if m is None else m for p in PAIRS for ids, m in _sides(p)]
        assert torch.equal(token_rewards(model, collate(PAIRS)), every[torch.from_numpy(np.concatenate(masks))])


def _sides(pair: PairTokens) -> list[tuple[np.ndarray, np.ndarray | None]]:
    return list(zip((pair.chosen, pair.rejected), pair.masks, strict=True))


def test_the_reference_and_prefixes_hold_the_assistants_tokens() -> None:
    model, other = policy("llama"), policy("qwen2")
    pairs = with_reference(model, PAIRS, 4096, "shared")
    with torch.no_grad():
        stored = reference_scores(collate(pairs), torch.float64)
        assert stored is not None
        assert torch.allclose(stored.chosen.value, policy_scores(model, collate(PAIRS)).chosen.value, atol=1e-4)
    own, theirs = (token_values(each, token_log_probs, PAIRS, 4096, "shared", "") for each in (model, other))
    found = implicit_reward_prefix_scorer(PAIRS, own, theirs, 1.0, Closing((-1,)))
    assert found.whole.tolist() == [list(pair.scored) for pair in PAIRS]
    first = PAIRS[0]
    assert found.common[0] == min(first.chosen_mask[:2].sum(), first.rejected_mask[:2].sum())  # type: ignore[index]
    last = found.rewards[found.starts[:, 0] + found.whole[:, 0] - 1]
    assert np.allclose(last, [(a.chosen.astype(float) - b.chosen).sum() for a, b in zip(own, theirs, strict=True)])


def test_a_cut_pair_takes_the_reference_of_the_whole_one_up_to_its_last_scored_token() -> None:
    whole = with_reference(policy("llama"), PAIRS, 4096, "shared")[0]
    cut = PAIRS[0]._replace(chosen=PAIRS[0].chosen[:3], chosen_mask=PAIRS[0].chosen_mask[:3])  # type: ignore[index]
    found = _from_whole(cut, whole)
    assert found.chosen_reference is not None and len(found.chosen_reference) == cut.scored[0]
    assert whole.chosen_reference is not None
    assert found.chosen_reference.tolist() == whole.chosen_reference[: cut.scored[0]].tolist()
    assert _from_whole(cut._replace(chosen_mask=np.zeros(3, dtype=bool)), whole).chosen_reference is None
    assert _from_whole(cut._replace(chosen_mask=None), whole).chosen_reference is None


def test_single_responses_partners_and_fingerprints_follow_the_mask() -> None:
    model = policy("llama", trees=False)
    one = PAIRS[0]._replace(rejected=PAIRS[0].chosen, rejected_mask=PAIRS[0].chosen_mask)
    (value,) = TokenScorer(model, token_log_probs, lambda values: float(values.sum())).read([one], 4096)
    assert value == pytest.approx(float(expected()[0].sum()), abs=1e-6)
    for partner in deranged(PAIRS, 100):
        for ids, mask in _sides(partner):
            assert mask is None or len(mask) == len(ids)
    assert of_pairs(PAIRS) != of_pairs([PAIRS[0]._replace(chosen_mask=None), *PAIRS[1:]])
