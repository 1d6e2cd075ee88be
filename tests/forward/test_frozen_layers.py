"""Training behind frozen layers: states from the store give the numbers of whole forward passes, for every architecture."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from headwater.data.tokens import PairTokens
from headwater.errors import ModelError, ResourceError, UsageError
from headwater.forward import freezing, state_store
from headwater.forward.format_check import row_format_for
from headwater.forward.frozen_layers import join, split_of
from headwater.forward.packing import RowFormat, collate
from headwater.forward.scores import ScoredModel, kind_of
from headwater.forward.segments import Cutting
from headwater.forward.state_store import StateStore
from headwater.models.parts import base_of
from tests.conftest import random_pairs
from tests.forward.test_parity import CONFIGS, UNLIKE, VOCAB, pairs_with_openings

ENCODERS: dict[str, Any] = {
    "bert": transformers.BertConfig,
    "roberta": transformers.RobertaConfig,
    "modernbert": transformers.ModernBertConfig,
    "deberta": transformers.DebertaV2Config,
}
DROPOUT = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3}


def model_of(name: str, reward: bool, layers: int = 3) -> Any:
    """A tiny model in float32 with random weights, larger than usual so that a wrong state shows."""
    torch.manual_seed(0)
    if name in ENCODERS:
        special = {"pad_token_id": 0, "cls_token_id": 1, "sep_token_id": 2, "bos_token_id": 1, "eos_token_id": 2}
        config = ENCODERS[name](
            vocab_size=VOCAB, hidden_size=32, intermediate_size=48, num_attention_heads=4, **special, **DROPOUT
        )
    else:
        config = {**CONFIGS, **UNLIKE}[name]()
        if getattr(config, "layer_types", None):
            config.layer_types = [*config.layer_types, config.layer_types[0]]
    config.num_hidden_layers, config.initializer_range, config.pad_token_id = layers, 0.3, 0
    if not reward:
        return transformers.AutoModelForCausalLM.from_config(config).eval()
    config.num_labels = 1
    return transformers.AutoModelForSequenceClassification.from_config(config).eval()


def frozen(model: Any, count: int, pairs: list[PairTokens], row_format: RowFormat, **named: Any) -> StateStore:
    """Freeze all but the last layers of a model, and give it the states of `pairs`."""
    freezing.freeze(model, count)
    first_only = freezing.check(model, pairs[:2], row_format)
    cutting = Cutting(kind_of(model).causal, prompts=count > 0, first_only=first_only)
    split = split_of(model)
    assert split is not None
    store = split.source = StateStore(model, split, row_format, cutting, 4096, bf16=False)
    store.fill(pairs, named.get("whole", pairs))
    return store


def step(model: Any, pairs: list[PairTokens], row_format: RowFormat) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """The scores of pairs and the gradients of the trained weights, in training mode."""
    torch.manual_seed(7)  # dropout of the trained layers
    scored = ScoredModel(model, kind_of(model).scores).train()
    found = scored(collate(pairs, row_format))
    values = torch.cat([found.chosen.value, found.rejected.value])
    model.zero_grad()
    values.square().mean().backward()
    return values.detach(), {name: p.grad for name, p in model.named_parameters() if p.grad is not None}


def assert_same_steps(model: Any, pairs: list[PairTokens], row_format: RowFormat) -> None:
    """A step from stored states is that of a model whose frozen layers compute, and has the trained weights alone."""
    by_hand = copy.deepcopy(model)
    split = split_of(by_hand)
    assert split is not None
    split.source = None
    learns = {name for name, weight in model.named_parameters() if weight.requires_grad}
    expected, slopes = step(by_hand, pairs, row_format)
    for part in (part for layer in split_of(model).frozen for part in layer.children()):
        part.register_forward_pre_hook(lambda module, inputs: pytest.fail("a frozen layer computes"))
    found, own = step(model, pairs, row_format)
    assert set(own) == set(slopes) == learns
    assert torch.allclose(found, expected, rtol=1e-5, atol=1e-5)
    for name, slope in slopes.items():
        assert torch.allclose(own[name], slope, rtol=1e-4, atol=1e-5 * float(slope.abs().max())), name


@pytest.mark.parametrize("name", [*CONFIGS, *UNLIKE])
def test_policies_train_from_stored_states_as_from_whole_passes(name: str) -> None:
    model, pairs = model_of(name, reward=False), pairs_with_openings()
    row_format = row_format_for(model, pairs)
    frozen(model, 1, pairs, row_format)
    assert_same_steps(model, pairs, row_format)


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("name", ["llama", "gpt2", "falcon"])
def test_causal_reward_models_train_from_stored_states_as_from_whole_passes(name: str, count: int) -> None:
    model, pairs = model_of(name, reward=True), pairs_with_openings()
    row_format = row_format_for(model, pairs)
    frozen(model, count, pairs, row_format)
    assert_same_steps(model, pairs, row_format)


@pytest.mark.parametrize("row_format", ["shared", "packed", "padded", "single"])
def test_every_row_format_finds_its_states(row_format: RowFormat) -> None:
    """One store serves all formats: states are found by tokens, whatever the rows they were computed in."""
    model, pairs = model_of("llama", reward=False), pairs_with_openings()
    split_format = row_format_for(model, pairs)
    store = frozen(model, 1, pairs, split_format)
    row_format_for(model, pairs, allowed=[row_format])
    assert store.read(collate(pairs, row_format)) is not None
    assert_same_steps(model, pairs, row_format)


@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_train_from_stored_states_as_from_whole_passes(name: str, count: int) -> None:
    model, pairs = model_of(name, reward=True), random_pairs([(7, 5, 9), (3, 1, 1), (4, 8, 2)], VOCAB)
    row_format = row_format_for(model, pairs)
    store = frozen(model, count, pairs, row_format)
    states = store.read(collate(pairs, row_format))
    assert states is not None
    # The heads of BERT and its kind read the first token alone, so that nothing else of a row is stored for them.
    assert states.shape[1] == (1 if count == 0 and name != "modernbert" else 16)
    assert_same_steps(model, pairs, row_format)
