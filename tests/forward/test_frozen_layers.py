"""Training behind frozen layers: stored states give the numbers of whole forward passes, for every architecture."""

from __future__ import annotations

import copy
import functools
import json
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from headwater.data.tokens import PairTokens
from headwater.errors import ModelError, ResourceError, UsageError
from headwater.files import caches
from headwater.forward import freezing, state_store
from headwater.forward.format_check import row_format_for
from headwater.forward.frozen_layers import join, split_of
from headwater.forward.packing import RowFormat, collate
from headwater.forward.scores import ScoredModel, kind_of
from headwater.forward.segments import Cutting
from headwater.forward.state_store import StateStore
from tests.conftest import random_pairs
from tests.forward.test_parity import CONFIGS, UNLIKE, VOCAB, pairs_with_openings, policy

ENCODERS: dict[str, Any] = {
    "bert": transformers.BertConfig,
    "roberta": transformers.RobertaConfig,
    "modernbert": transformers.ModernBertConfig,
    "modernbert, mean": functools.partial(transformers.ModernBertConfig, classifier_pooling="mean"),
    "deberta": transformers.DebertaV2Config,
}
DROPOUT = {"hidden_dropout_prob": 0.3, "attention_probs_dropout_prob": 0.3}


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path))


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
        if name not in UNLIKE and getattr(config, "layer_types", None):
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


@pytest.mark.parametrize(("name", "count"), [("llama", 0), ("llama", 2), ("gpt2", 1), ("falcon", 0)])
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


@pytest.mark.parametrize("count", [0, 1])
@pytest.mark.parametrize("name", ENCODERS)
def test_encoders_train_from_stored_states_as_from_whole_passes(name: str, count: int) -> None:
    model, pairs = model_of(name, reward=True), random_pairs([(7, 5, 9), (3, 1, 1), (4, 8, 2)], VOCAB)
    row_format = row_format_for(model, pairs)
    store = frozen(model, count, pairs, row_format)
    states = store.read(collate(pairs, row_format))
    assert states is not None
    # The heads of BERT and its kind read the first token alone, so that nothing else of a row is stored for them.
    assert states.shape[1] == (1 if count == 0 and name != "modernbert, mean" else 16)
    assert_same_steps(model, pairs, row_format)


def test_values_are_those_of_the_stored_states() -> None:
    """Other states are other values: nothing of the frozen layers is computed beside."""
    model, pairs = model_of("llama", reward=True), pairs_with_openings()
    store = frozen(model, 1, pairs, row_format_for(model, pairs))
    batch, score = collate(pairs), kind_of(model).scores
    before = score(model, batch).chosen.value
    for name, states in store._arrays.items():
        store._arrays[name] = states[::-1]
    assert not torch.allclose(score(model, batch).chosen.value, before, atol=1e-2)
    join(model)
    assert torch.allclose(score(model, batch).chosen.value, before, rtol=1e-5, atol=1e-5)


def test_rows_that_are_not_stored_are_read_as_a_whole() -> None:
    model, (first, *others) = model_of("llama", reward=True), pairs_with_openings()
    store = frozen(model, 1, others, row_format_for(model, [first, *others]))
    batch, score = collate([first, *others]), kind_of(model).scores
    assert store.read(batch) is None
    found = score(model, batch).chosen.value
    join(model)
    assert torch.equal(found, score(model, batch).chosen.value)


def test_a_shorter_ratio_uses_the_beginnings_of_a_longer_one() -> None:
    """For causal models: states of whole responses serve every cut, and a policy those of a reward model's prompts."""
    model, whole = model_of("llama", reward=True), random_pairs([(7, 5, 9), (3, 4, 6), (4, 8, 2)], VOCAB)
    row_format = row_format_for(model, whole)
    store = frozen(model, 1, whole, row_format)
    files = sorted(store.folder.iterdir())
    short = [pair._replace(chosen=pair.chosen[:2], rejected=pair.rejected[:1]) for pair in whole]
    store.fill(short, whole)
    assert sorted(store.folder.iterdir()) == files
    assert_same_steps(model, short, row_format)


def test_prompts_are_stored_once() -> None:
    model, (pair, *_) = model_of("llama", reward=True), random_pairs([(7, 5, 9), (3, 4, 6)], VOCAB)
    others = [pair, pair._replace(chosen=pair.rejected, rejected=pair.chosen), pair._replace(chosen=pair.chosen[:3])]
    store = frozen(model, 1, others, row_format_for(model, others))
    assert sum(len(states) for states in store._arrays.values()) == 7 + 5 + 9 + 3


def test_a_policy_and_a_reward_model_of_one_checkpoint_share_states() -> None:
    policy, reward, pairs = model_of("llama", reward=False), model_of("llama", reward=True), pairs_with_openings()
    reward.model.load_state_dict(policy.model.state_dict())
    row_format = row_format_for(policy, pairs), row_format_for(reward, pairs)
    ours, theirs = frozen(policy, 1, pairs, row_format[0]), frozen(reward, 1, pairs, row_format[1])
    assert ours.folder == theirs.folder
    with torch.no_grad():
        policy.model.embed_tokens.weight[7] += 1
    assert frozen(policy, 1, pairs, row_format[0]).folder != ours.folder


@pytest.mark.parametrize("damage", ["a flipped bit", "other states", "half a file"])
def test_damaged_states_are_made_anew(damage: str, capsys: pytest.CaptureFixture[str]) -> None:
    model, pairs = model_of("qwen2", reward=False), pairs_with_openings()
    row_format = row_format_for(model, pairs)
    store = frozen(model, 1, pairs, row_format)
    (path,) = store.folder.glob("*.npy")
    states = np.load(path)
    if damage == "other states":
        np.save(path, 2 * states)
        about = json.loads(path.with_suffix(".json").read_text())
        about["checksum"] = state_store._checksum(2 * states)
        path.with_suffix(".json").write_text(json.dumps(about))
    elif damage == "a flipped bit":
        content = bytearray(path.read_bytes())
        content[-3] ^= 1
        path.write_bytes(content)
    else:
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    again = frozen(model, 1, pairs, row_format)
    assert "made anew" in capsys.readouterr().err
    (anew,) = again.folder.glob("*.npy")
    assert np.array_equal(np.load(anew), states)
    assert_same_steps(model, pairs, row_format)


def test_a_disk_that_is_too_small_is_refused_before_anything_is_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    model, pairs = model_of("opt", reward=False), pairs_with_openings()
    row_format = row_format_for(model, pairs)
    monkeypatch.setattr(state_store.shutil, "disk_usage", lambda path: SimpleNamespace(free=1000))
    with pytest.raises(ResourceError, match=r"the hidden states of 5 rows take 0.00 GiB, and 0.00 GiB are free"):
        frozen(model, 1, pairs, row_format)
    assert not list(split_of(model).source.folder.iterdir())  # type: ignore[union-attr]


def test_folders_that_were_not_used_for_a_month_are_removed() -> None:
    model, pairs = model_of("llama", reward=False), random_pairs([(3, 2, 2)], VOCAB, seed=5)
    old = caches.home() / "states" / "old"
    old.mkdir(parents=True, exist_ok=True)
    os.utime(old, (0, 0))
    store = frozen(model, 2, pairs, row_format_for(model, pairs))
    assert store.folder.is_dir()
    assert not old.exists()


def test_every_process_computes_its_share_and_finds_those_of_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two processes, one after the other; the first one says which pairs are missing."""
    pairs = random_pairs([(3, 2, 4), (5, 1, 2), (2, 2, 2), (6, 3, 1)], VOCAB, seed=6)
    state = SimpleNamespace(num_processes=2, process_index=0, wait_for_everyone=lambda: None)
    monkeypatch.setattr(state_store, "PartialState", lambda: state)
    # Nothing is missing any more when the first process looks again, since the second one has worked meanwhile.
    said = [[[0, 1, 2, 3], []], [[0, 1, 2, 3], []]]

    def broadcast(places: list[list[int]]) -> None:
        places[0] = said[state.process_index].pop(0)

    monkeypatch.setattr(state_store, "broadcast_object_list", broadcast)
    first, second = model_of("llama", reward=True), model_of("llama", reward=True)
    row_format = row_format_for(first, pairs), row_format_for(second, pairs)
    store = frozen(first, 1, pairs, row_format[0])
    assert [store.read(collate([pair])) is None for pair in pairs] == [False, True, False, True]
    state.process_index = 1
    frozen(second, 1, pairs, row_format[1])
    assert_same_steps(second, pairs, row_format[1])


@pytest.mark.parametrize(
    ("name", "reward", "count", "problem"),
    [("llama", True, 3, "has 3 layers · give 2 or fewer"), ("llama", False, 0, "leaves no layer of a policy to train")],
)
def test_numbers_of_layers_that_cannot_be_trained_are_refused(
    name: str, reward: bool, count: int, problem: str
) -> None:
    with pytest.raises(UsageError, match=problem):
        freezing.freeze(model_of(name, reward), count)


def test_layers_that_share_their_weights_are_refused() -> None:
    config = transformers.AlbertConfig(
        vocab_size=VOCAB, embedding_size=8, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=48, num_labels=1,
    )  # fmt: skip
    with pytest.raises(ModelError, match="does not keep its 3 layers in one list"):
        freezing.freeze(transformers.AlbertForSequenceClassification(config), 1)


def test_a_model_whose_last_layer_reads_the_first_one_is_refused() -> None:
    """What enters a trained layer beside the hidden states is not stored: the check finds that values differ."""
    model, pairs = model_of("llama", reward=True), pairs_with_openings()
    row_format = row_format_for(model, pairs)
    first: list[torch.Tensor] = []
    model.model.layers[0].register_forward_hook(lambda module, inputs, output: first.append(output))
    model.model.layers[2].register_forward_hook(lambda module, inputs, output: output + first[-1])
    freezing.freeze(model, 1)
    with pytest.raises(ModelError, match=r"cannot be split behind layer 2: its values differ by"):
        freezing.check(model, pairs, row_format)


def test_frozen_weights_do_not_learn_and_tied_output_layers_are_among_them() -> None:
    tied, own = (policy("llama", torch.float32, tied=value) for value in (True, False))
    sizes = [freezing.freeze(model, 1) for model in (tied, own)]
    learn = [{name for name, each in model.named_parameters() if each.requires_grad} for model in (tied, own)]
    assert learn[1] - learn[0] == {"lm_head.weight"}
    assert all(name.startswith(("model.layers.1.", "model.norm.")) for name in learn[0])
    assert str(sizes[0]).startswith("training the last 1 of 2 layers (0.0")
