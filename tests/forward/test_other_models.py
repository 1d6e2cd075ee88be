"""A row format, or token ids, of one model used with another: an error, where the loss would be wrong in silence."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
import transformers

from headwater.data.preference import Preference
from headwater.data.preparation import PrepLog, prepare
from headwater.data.tokenizers import ScratchTokenizer, texts_of
from headwater.data.tokens import EncodeOptions, PairTokens, tokenize
from headwater.data.truncation import Truncation
from headwater.errors import ModelError
from headwater.forward.format_check import attend_as_it_came, row_format_for
from headwater.forward.packing import collate
from headwater.forward.passes import score_pairs
from headwater.forward.scores import pair_loss, policy_scores
from headwater.losses import DPO, SimPO
from headwater.models import loading

VOCAB = 40


def llama(seed: int = 0, **more: Any) -> Any:
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=VOCAB, hidden_size=16, intermediate_size=24, num_hidden_layers=2, num_attention_heads=2, **more
    )
    return transformers.LlamaForCausalLM(config).eval()


@pytest.fixture(scope="module")
def pairs() -> list[PairTokens]:
    draw = np.random.default_rng(1)

    def ids(count: int) -> Any:
        return draw.integers(3, VOCAB, count).astype(np.int32)

    return [PairTokens(ids(5 + n), ids(4 + n), ids(6 - n), f"r{n}", "", f"c{n}") for n in range(3)]


@pytest.mark.parametrize("row_format", ["shared", "packed"])
def test_rows_of_another_model_are_refused(row_format: Any, pairs: list[PairTokens]) -> None:
    model, other = llama(0), llama(1)
    assert row_format_for(model, pairs, allowed=[row_format]) == row_format
    batch, loss = collate(pairs, row_format), SimPO()
    pair_loss(model, policy_scores, loss, batch)
    with pytest.raises(ModelError, match=rf"attends by 'sdpa', which does not read {row_format} rows.*row_format_for"):
        pair_loss(other, policy_scores, loss, batch)
    with pytest.raises(ModelError, match="row_format_for"):
        score_pairs(other, policy_scores, loss, pairs, 4096, row_format)
    assert row_format_for(other, pairs, allowed=[row_format]) == row_format
    found = pair_loss(other, policy_scores, loss, batch).result.loss
    alone = []
    attend_as_it_came(other)
    for pair in pairs:
        alone.append(pair_loss(other, policy_scores, loss, collate([pair], "single")).result.loss)
    assert torch.allclose(found, torch.cat(alone), atol=1e-5)


def test_rows_of_one_response_are_refused_by_attention_within_trees(pairs: list[PairTokens]) -> None:
    model = llama()
    row_format_for(model, pairs, allowed=["shared"])
    with pytest.raises(ModelError, match="attends by 'headwater', which does not read padded rows"):
        pair_loss(model, policy_scores, DPO(), collate(pairs, "padded"))


def test_tokens_of_a_larger_vocabulary_are_refused(pairs: list[PairTokens]) -> None:
    wrong = [pairs[0], pairs[1]._replace(rejected=np.array([3, VOCAB], dtype=np.int32))]
    with pytest.raises(ModelError, match=f"has {VOCAB} tokens, and the rows hold the token {VOCAB}"):
        row_format_for(llama(), wrong)


def test_rows_of_another_tokenizer_with_as_many_tokens_are_refused(corpus: list[Preference]) -> None:
    name = "scratch(hidden=32, layers=1, vocab=300)"
    half = len(corpus) // 2
    model, own = loading.load(name, "policy", corpus[:half], 0)
    other = ScratchTokenizer(300).train(text[::-1] for text in texts_of(corpus[half:]))
    options = EncodeOptions(Truncation(), "complete")
    assert len(own) == len(other) == 300 and row_format_for(model, tokenize(corpus[:2], own, 512).pairs)
    for _ in range(2):  # made, and from the cache
        wrong = prepare("part", corpus[:2], options, other, PrepLog())
        with pytest.raises(ModelError, match="another vocabulary than the tokenizer that encoded the rows"):
            row_format_for(model, wrong)
    own.add_special_tokens({"pad_token": "<|another pad|>"})
    own.add_tokens(["<|a tag|>"])
    assert row_format_for(model, tokenize(corpus[2:4], own, 512).pairs)
