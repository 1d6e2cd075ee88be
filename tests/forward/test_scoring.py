"""What scores hold beside log-probabilities: means by weights, score gaps of the data, whole distributions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from headwater.data import reading, token_cache
from headwater.data.layouts import checks
from headwater.data.preference import PAIR_COLUMNS, Message, Preference, Response
from headwater.data.preparation import PrepLog, prepare
from headwater.data.tokenizers import Tokenizer
from headwater.data.tokens import EncodeOptions, PairTokens, tokenize
from headwater.data.truncation import Truncation
from headwater.errors import DataError
from headwater.forward import distributions
from headwater.forward.attention import TREES, attend_with
from headwater.forward.packing import collate
from headwater.forward.scores import divergence_scores, pair_loss, policy_scores, self_likelihood_scores
from headwater.losses import ORPO, LossBase, PairLoss, PairScores, SimPO
from headwater.losses.token_weights import First, Mean
from tests.conftest import random_pairs
from tests.forward.test_parity import LENGTHS, VOCAB, policy

PAIRS = random_pairs(LENGTHS, VOCAB)
FAMILIES = {"gpt2": 1e-9, "gemma2": 1e-6, "cohere": 1e-6}
"""Plain logits, capped ones, scaled ones; and how exact: the latter two normalise in float32 within a float64 model."""


def other_policy(name: str, trees: bool = True) -> torch.nn.Module:
    """A model like `policy(name)` with other weights, always the same."""
    model = policy(name, trees=False)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    if trees:
        attend_with(model, TREES)
    return model


def next_tokens(model: Any, pair: PairTokens, response: Any) -> torch.Tensor:
    """Log-probabilities [tokens, V] along one response, by transformers alone."""
    ids = torch.tensor([[*pair.prompt.tolist(), *response.tolist()]])
    logits: torch.Tensor = model(ids).logits[0, len(pair.prompt) - 1 : -1]
    return logits.log_softmax(1)


@pytest.mark.parametrize("loss", [SimPO(), ORPO()], ids=repr)
def test_a_mean_over_weighted_tokens_is_that_of_the_cut_response(loss: LossBase) -> None:
    model = policy("gpt2")
    short = [pair._replace(chosen=pair.chosen[:3], rejected=pair.rejected[:3]) for pair in PAIRS]
    with torch.no_grad():
        weighed = loss(policy_scores(model, collate(PAIRS, "shared", First(3))), None).loss
        cut = loss(policy_scores(model, collate(short)), None).loss
        mean = loss(policy_scores(model, collate(PAIRS, "shared", Mean())), None).loss
        whole = loss(policy_scores(model, collate(PAIRS)), None).loss
    assert torch.allclose(weighed, cut, rtol=0, atol=1e-10)
    assert torch.allclose(mean, whole, rtol=0, atol=1e-6), "the mean of a mean"
    assert not torch.allclose(cut, whole, rtol=0, atol=1e-2)


def test_score_gaps_come_from_the_data_and_through_the_cache(tokenizer: Tokenizer) -> None:
    def preference(chosen: float | None) -> Preference:
        return Preference(
            prompt=(Message("user", "How are you?"),),
            chosen=Response("Well, thank you.", chosen),
            rejected=Response("No.", 1.5),
            id=f"scored {chosen}",
        )

    data = [preference(4.0), preference(2.0), preference(None)]
    encode_options = EncodeOptions(Truncation(), "complete", 512)
    made = prepare("part", data, encode_options, tokenizer, PrepLog())
    entry = token_cache.load(token_cache.key(data, encode_options, tokenizer), data)
    assert entry is not None
    for pairs in (made, entry.pairs):
        assert [pair.columns.get("score_gap") for pair in pairs] == [2.5, 0.5, None]


def test_score_gaps_are_there_where_every_row_has_one() -> None:
    model = policy("llama")
    every = [pair._replace(columns={"score_gap": 2.5}) for pair in PAIRS]
    gaps = policy_scores(model, collate(every)).columns["score_gap"]
    assert gaps.tolist() == [2.5] * len(PAIRS)
    some = [PAIRS[0], PAIRS[1]._replace(columns={"score_gap": 1.0})]
    assert not policy_scores(model, collate(some)).columns


class Certain(LossBase):
    """A loss that reads a number of the data that no loss of headwater knows."""

    name = "certain"
    needs_reference = False
    needs = frozenset({"confidence"})

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        chosen, rejected = policy.chosen.value, policy.rejected.value
        return PairLoss(self._column("confidence", policy), chosen.detach(), rejected.detach())


def test_a_new_number_of_a_pair_needs_its_name_and_a_loss(
    tokenizer: Tokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is read from a file, kept with the row, and arrives at the loss under its own name."""
    monkeypatch.setattr(checks, "PAIR_COLUMNS", (*PAIR_COLUMNS, "confidence"))
    rows = [{"prompt": f"Is {n} odd?", "chosen": "Yes.", "rejected": "No.", "confidence": n / 4} for n in (1, 3)]
    path = tmp_path / "pairs.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    preferences = reading.load(path).preferences
    assert [checks.canonical_row(preference)["confidence"] for preference in preferences] == [0.25, 0.75]
    encoded = tokenize(preferences, tokenizer, 512).pairs
    ids = {side: [getattr(pair, side) % VOCAB for pair in encoded] for side in ("prompt", "chosen", "rejected")}
    small = [pair._replace(**{side: ids[side][row] for side in ids}) for row, pair in enumerate(encoded)]
    batch = collate(small)
    assert pair_loss(policy("llama"), policy_scores, Certain(), batch).result.loss.tolist() == [0.25, 0.75]
    with pytest.raises(DataError, match="confidence"):
        pair_loss(policy("llama"), policy_scores, Certain(), collate(PAIRS))


@pytest.mark.parametrize("chunk", [1, 2**24])
@pytest.mark.parametrize("name", FAMILIES)
def test_typicality_is_the_mean_log_probability_less_that_of_agreeing_draws(
    name: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(distributions, "LOGITS", chunk)
    oracle = policy(name, trees=False)
    scores, plain = (score(policy(name), collate(PAIRS)) for score in (self_likelihood_scores, policy_scores))
    for side in ("chosen", "rejected"):
        found = getattr(scores, side)
        assert torch.equal(found.value, getattr(plain, side).value)
        assert not found.self_likelihood.requires_grad
        for index, pair in enumerate(PAIRS):
            response = getattr(pair, side)
            log_p = next_tokens(oracle, pair, response)
            own = log_p[np.arange(len(response)), response]
            expected = (own - log_p.exp().square().sum(1).log()).mean().item()
            assert found.self_likelihood[index].item() == pytest.approx(expected, abs=FAMILIES[name])


@pytest.mark.parametrize("chunk", [1, 2**24])
@pytest.mark.parametrize("name", FAMILIES)
def test_divergence_is_the_forward_kl_along_each_response(
    name: str, chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The KL and its gradient are those of whole distributions, written out by transformers alone."""
    monkeypatch.setattr(distributions, "LOGITS", chunk)
    model, reference = policy(name), other_policy(name)
    scores = divergence_scores(reference)(model, collate(PAIRS))
    oracle, other = policy(name, trees=False), other_policy(name, trees=False)
    expected = [
        torch.nn.functional.kl_div(
            next_tokens(oracle, pair, response),
            next_tokens(other, pair, response).detach(),
            log_target=True,
            reduction="sum",
        )
        for pair in PAIRS
        for response in (pair.chosen, pair.rejected)
    ]
    assert scores.chosen.divergence is not None
    assert scores.rejected.divergence is not None
    found = torch.stack([scores.chosen.divergence, scores.rejected.divergence], dim=1).flatten()
    assert torch.allclose(found, torch.stack(expected), rtol=0, atol=FAMILIES[name])
    assert found.min() > 1e-3, "models that agree would hide a mistake"
    found.sum().backward()
    torch.stack(expected).sum().backward()
    for mine, theirs in zip(model.parameters(), oracle.parameters(), strict=True):
        assert mine.grad is not None
        assert theirs.grad is not None
        assert torch.allclose(mine.grad, theirs.grad, rtol=FAMILIES[name], atol=FAMILIES[name])
    assert all(parameter.grad is None for parameter in reference.parameters())


def test_divergence_is_weighed_like_the_log_probabilities() -> None:
    model, reference = policy("gpt2"), other_policy("gpt2")
    score = divergence_scores(reference)
    short = [pair._replace(chosen=pair.chosen[:3], rejected=pair.rejected[:3]) for pair in PAIRS]
    weighed, cut = score(model, collate(PAIRS, "shared", First(3))), score(model, collate(short))
    for side in ("chosen", "rejected"):
        assert torch.allclose(getattr(weighed, side).divergence, getattr(cut, side).divergence, rtol=0, atol=1e-10)


def test_no_more_of_the_vocabulary_is_in_memory_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[int] = []
    whole = distributions.log_distribution

    def counted(model: Any, hidden: torch.Tensor) -> torch.Tensor:
        seen.append(len(hidden) * VOCAB)
        return whole(model, hidden)

    monkeypatch.setattr(distributions, "LOGITS", 5 * VOCAB)
    monkeypatch.setattr(distributions, "log_distribution", counted)
    scores = divergence_scores(other_policy("gpt2"))(policy("gpt2"), collate(PAIRS))
    self_likelihood_scores(policy("gpt2"), collate(PAIRS))
    assert scores.chosen.divergence is not None
    scores.chosen.divergence.sum().backward()
    assert max(seen) == 5 * VOCAB
    assert sum(seen) > 100 * VOCAB
