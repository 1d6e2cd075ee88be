"""The start-up check notices what it is there for: each layout is broken in turn, and must not be taken any more."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import transformers
from transformers import AttentionInterface

from headwater.data.tokens import PairTokens
from headwater.errors import ModelError
from headwater.forward import attention, check_sample, format_check
from headwater.forward.attention import TREES, Plan, attend_with, tree_attention
from headwater.forward.check_sample import Sample, limits_of
from headwater.forward.format_check import checked, common_row_format, row_format_for
from headwater.forward.packing import PairBatch, RowFormat, Tree, collate
from headwater.forward.passes import score_pairs
from headwater.forward.scores import policy_scores, token_log_probs, token_rewards
from headwater.losses import DPO
from tests.conftest import random_pairs
from tests.forward.test_parity import GROUPED, VOCAB, policy, reward, separate_log_probs

PAIRS = random_pairs([(7, 5, 9), (3, 1, 4), (12, 8, 2)], VOCAB)
EQUAL_SIDES = [pair._replace(rejected=pair.chosen) for pair in PAIRS[:1]]
"""All that `score` has to offer: no branch, one length."""


def llama(**rope: Any) -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=VOCAB, max_position_embeddings=32, pad_token_id=0, initializer_range=0.3, **GROUPED, **rope
    )
    return transformers.AutoModelForCausalLM.from_config(config).eval()


def dynamic() -> Any:
    return llama(rope_parameters={"rope_type": "dynamic", "factor": 4.0, "rope_theta": 100.0})


def longrope() -> Any:
    factors = {"short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 4.0, 8.0], "factor": 4.0}
    rope = {"rope_type": "longrope", "original_max_position_embeddings": 32, "rope_theta": 100.0, **factors}
    return llama(rope_parameters=rope)


# What is broken: each takes a MonkeyPatch, and breaks one thing.


def sibling_branches_seen(patch: pytest.MonkeyPatch) -> None:
    def seen(tree: Tree, window: int | None, device: torch.device) -> torch.Tensor:
        return torch.ones(tree.length, tree.length, dtype=torch.bool, device=device).tril()

    patch.setattr(attention, "visible", seen)


def window_ignored(patch: pytest.MonkeyPatch) -> None:
    right = attention.visible
    patch.setattr(attention, "visible", lambda tree, window, device: right(tree, None, device))


def batches_changed(patch: pytest.MonkeyPatch, change: Callable[[PairBatch], None]) -> None:
    def changed(pairs: Any, row_format: RowFormat) -> PairBatch:
        batch = collate(pairs, row_format)
        if row_format == "shared":
            change(batch)
        return batch

    patch.setattr(format_check, "collate", changed)


def position_off_by_one(patch: pytest.MonkeyPatch) -> None:
    def change(batch: PairBatch) -> None:
        first = batch["trees"][0]
        batch["position_ids"][0, first.length - first.branches[1] : first.length] += 1

    batches_changed(patch, change)


def left_neighbour_predicts(patch: pytest.MonkeyPatch) -> None:
    batches_changed(patch, lambda batch: batch.update(predictor=batch["position"] - 1))


def branch_lost(patch: pytest.MonkeyPatch) -> None:
    def change(batch: PairBatch) -> None:
        first = batch["trees"][0]
        whole = Tree(first.trunk + first.branches[0], (first.branches[1],))
        batch["trees"] = (whole, *batch["trees"][1:])

    batches_changed(patch, change)


def tokens_exchanged(patch: pytest.MonkeyPatch) -> None:
    """The sum over a response stays what it is."""
    batches_changed(patch, lambda batch: batch["token"][:2].copy_(batch["token"][:2].flip(0)))


def items_leak(patch: pytest.MonkeyPatch) -> None:
    right = Plan.__init__
    patch.setattr(Plan, "__init__", lambda plan, trees: right(plan, [Tree(sum(t.length for t in trees), (0,))]))


def attention_without(patch: pytest.MonkeyPatch, setting: str) -> None:
    def changed(*args: Any, **settings: Any) -> Any:
        return tree_attention(*args, **{**settings, setting: None})

    patch.setitem(AttentionInterface._global_mapping, TREES, changed)


BROKEN: dict[str, tuple[str, Callable[[pytest.MonkeyPatch], None]]] = {
    "a branch sees its sibling": ("llama", sibling_branches_seen),
    "a position of the second branch": ("llama", position_off_by_one),
    "the predictor of the second branch": ("llama", left_neighbour_predicts),
    "a branch that continues the other one": ("llama", branch_lost),
    "two tokens exchanged": ("llama", tokens_exchanged),
    "an item sees the one before it": ("llama", items_leak),
    "a window that is ignored": ("mistral", window_ignored),
    "a scale that is ignored": ("granite", lambda patch: attention_without(patch, "scaling")),
    "a cap that is ignored": ("gemma2", lambda patch: attention_without(patch, "softcap")),
}


def made(name: str) -> Any:
    if name != "granite":
        return policy(name, torch.float32, trees=False)
    torch.manual_seed(0)
    config = transformers.GraniteConfig(
        vocab_size=VOCAB, attention_multiplier=0.7, pad_token_id=0, initializer_range=0.3, **GROUPED
    )
    return transformers.AutoModelForCausalLM.from_config(config).eval()


@pytest.mark.parametrize("pairs", [PAIRS, EQUAL_SIDES, []], ids=["pairs", "one with equal sides", "none"])
@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_is_not_taken(what: str, pairs: list[PairTokens], monkeypatch: pytest.MonkeyPatch) -> None:
    name, breaking = BROKEN[what]
    assert row_format_for(made(name), pairs) == "shared"
    breaking(monkeypatch)
    assert row_format_for(made(name), pairs) not in (
        "shared",
        "packed" if what == "an item sees the one before it" else "",
    )


@pytest.mark.parametrize("what", ["a branch sees its sibling", "an item sees the one before it"])
def test_what_is_broken_is_not_taken_for_rewards(what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert row_format_for(reward("llama", torch.float32, trees=False), EQUAL_SIDES) == "shared"
    BROKEN[what][1](monkeypatch)
    assert row_format_for(reward("llama", torch.float32, trees=False), EQUAL_SIDES) != "shared"


def test_an_encoder_that_sees_padding_is_read_one_response_at_a_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def encoder() -> Any:
        torch.manual_seed(0)
        config = transformers.BertConfig(
            vocab_size=VOCAB, num_hidden_layers=1, num_attention_heads=2, hidden_size=32, intermediate_size=48,
            max_position_embeddings=64, num_labels=1, initializer_range=0.3,
        )  # fmt: skip
        return transformers.AutoModelForSequenceClassification.from_config(config).eval()

    assert row_format_for(encoder(), PAIRS) == "padded"
    forward = transformers.BertModel.forward
    monkeypatch.setattr(
        transformers.BertModel, "forward", lambda self, input_ids, *mask, **inputs: forward(self, input_ids)
    )
    assert row_format_for(encoder(), PAIRS) == "single"
    assert "BertForSequenceClassification is read one response at a time" in capsys.readouterr().err


@pytest.mark.parametrize("make", [dynamic, longrope])
def test_what_the_longest_text_decides_is_read_one_response_at_a_time(
    make: Callable[[], Any], capsys: pytest.CaptureFixture[str]
) -> None:
    """Positions of all texts restart in a row, and still one text changes the frequencies of the others."""
    model, long = make(), random_pairs([(20, 30, 4), (5, 6, 7), (30, 3, 20), (9, 31, 30)], VOCAB)
    assert row_format_for(model, PAIRS) == "shared", "none is longer than what the model was trained for"
    assert row_format_for(model, long) == "single"
    assert "one response at a time" in capsys.readouterr().err
    with torch.no_grad():
        # A new model for every response: what was read before would change it.
        sides = (turned(pair, side) for pair in long for side in (0, 1))
        expected = torch.cat([separate_log_probs(make(), side)[0] for side in sides])
        found = token_log_probs(model, collate(long, "single"))
    assert torch.allclose(found, expected, rtol=0, atol=1e-5)
    loss = DPO(beta=0.1)
    pairs = [pair._replace(chosen_reference=np.zeros(len(pair.chosen), np.float32),
                           rejected_reference=np.zeros(len(pair.rejected), np.float32)) for pair in long]  # fmt: skip
    scores = [score_pairs(model, policy_scores, loss, pairs, max_tokens, "single") for max_tokens in (1, 10_000)]
    backwards = score_pairs(model, policy_scores, loss, pairs[::-1], 70, "single")[::-1]
    assert np.abs(scores[0] - scores[1]).max() < 1e-6
    assert np.abs(scores[0] - backwards).max() < 1e-6


def turned(pair: PairTokens, side: int) -> PairTokens:
    return pair._replace(chosen=pair.rejected, rejected=pair.chosen) if side else pair


def test_a_model_that_remembers_other_texts_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.forward.hidden_states.forget_longer_texts", lambda model: None)
    with pytest.raises(ModelError, match="remembers texts that it read before"):
        row_format_for(dynamic(), random_pairs([(20, 30, 4), (5, 6, 7)], VOCAB))


def test_a_head_of_another_kind_is_refused() -> None:
    model = policy("llama", torch.float32, trees=False)
    head = model.lm_head.forward
    forward = type(model).forward

    def scaled(self: Any, *args: Any, **settings: Any) -> Any:
        found = forward(self, *args, **settings)
        found.logits = found.logits * 1.1
        return found

    model.forward = scaled.__get__(model)  # type: ignore[method-assign]
    assert head is not None
    with pytest.raises(ModelError, match="has a head that headwater cannot compute"):
        row_format_for(model, PAIRS)


def test_a_model_that_does_not_look_back_shares_nothing() -> None:
    """Where no token depends on another, nothing can leak today, and everything after a step of training."""
    model = policy("llama", torch.float32, trees=False)
    for layer in model.model.layers:
        torch.nn.init.zeros_(layer.self_attn.o_proj.weight)
    assert row_format_for(model, PAIRS) == "single"


def test_one_model_may_be_asked_twice(capsys: pytest.CaptureFixture[str]) -> None:
    model = policy("bloom", torch.float32, trees=False)
    own = model.config._attn_implementation
    assert row_format_for(model, PAIRS) == row_format_for(model, PAIRS) == "padded"
    assert model.config._attn_implementation == own
    assert capsys.readouterr().err.count("gets padded rows") == 1
    shared = policy("llama", torch.float32, trees=False)
    own = shared.config._attn_implementation
    assert row_format_for(shared, PAIRS) == "shared"
    assert row_format_for(shared, PAIRS, allowed=format_check.ROWS_OF_ONE) == "padded"
    assert shared.config._attn_implementation == own
    assert common_row_format([shared, model], PAIRS) == "padded"
    assert row_format_for(copy.deepcopy(shared), PAIRS) == "shared"


def test_a_check_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    model = policy("llama", torch.float32, trees=False)
    row_format_for(model, PAIRS)
    monkeypatch.setattr(Sample, "of", None)
    row_format_for(model, PAIRS)
    row_format_for(copy.deepcopy(model), PAIRS[:1])
    with pytest.raises(TypeError):
        row_format_for(model, random_pairs([(100, 30, 20)], VOCAB))


def test_what_is_kept_does_not_go_into_files(tmp_path: Any) -> None:
    model = policy("llama", torch.float32, trees=False)
    row_format_for(model, PAIRS)
    model.save_pretrained(tmp_path)
    text = (tmp_path / "config.json").read_text()
    assert "headwater" not in text
    assert checked(model).problems == {("shared", False): ""}


def test_the_sample_has_what_a_check_needs() -> None:
    model = policy("llama", torch.float32, trees=False)
    sample = Sample.of(model, EQUAL_SIDES, 40, 300)
    lengths = {len(pair.prompt) + len(side) for pair in sample.pairs for side in (pair.chosen, pair.rejected)}
    assert len(lengths) >= 3
    assert max(lengths) == 40
    assert any(pair.chosen[0] == pair.rejected[0] for pair in sample.short)
    assert all(not np.array_equal(pair.chosen, pair.rejected) for pair in [*sample.short, *sample.long])
    batch = collate([sample.pairs[place] for place in sample.order("shared")], "shared")
    assert batch["input_ids"].shape[1] >= 250, "a row as long as rows are"
    again = Sample.of(model, EQUAL_SIDES, 40, 300)
    assert all(np.array_equal(a.chosen, b.chosen) for a, b in zip(sample.pairs, again.pairs, strict=True))


def test_ids_with_a_meaning_are_not_drawn() -> None:
    model = policy("llama", torch.float32, trees=False)
    model.config.bos_token_id, model.config.eos_token_id = 3, [4, 5]
    ids, end = check_sample.ordinary_ids(model)
    assert end == 4
    assert not {0, 3, 4, 5} & set(ids.tolist())


def test_limits_are_those_that_a_configuration_names() -> None:
    assert {32} <= set(limits_of(longrope().config))
    assert 4 in limits_of(policy("mistral").config)


def test_autocast_is_compared_with_plain_forwards_under_autocast(monkeypatch: pytest.MonkeyPatch) -> None:
    assert row_format_for(policy("llama", torch.float32, trees=False), PAIRS, bf16=True) == "shared"

    def broken(*args: Any, **settings: Any) -> Any:
        found, _ = tree_attention(*args, **settings)
        return found * 1.05 if found.dtype == torch.bfloat16 else found, None

    monkeypatch.setitem(AttentionInterface._global_mapping, TREES, broken)
    model = policy("llama", torch.float32, trees=False)
    assert row_format_for(model, PAIRS) == "shared", "right in float32"
    assert row_format_for(model, PAIRS, bf16=True) == "padded"


def test_training_in_single_layout_has_the_same_loss_and_gradient() -> None:
    pairs = random_pairs([(7, 5, 9), (3, 2, 4)], VOCAB)
    found = {}
    for row_format in ("shared", "single"):
        model = policy("llama", torch.float32, trees=row_format == "shared")
        scores = policy_scores(model, collate(pairs, row_format))  # type: ignore[arg-type]
        loss = -torch.nn.functional.logsigmoid(0.1 * (scores.chosen.value - scores.rejected.value)).mean()
        loss.backward()
        gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
        found[row_format] = (loss.detach(), gradient)
    assert torch.allclose(found["single"][0], found["shared"][0], rtol=1e-6)
    off = torch.linalg.norm(found["single"][1] - found["shared"][1])
    assert off <= 1e-5 * torch.linalg.norm(found["shared"][1])


def test_rewards_of_the_single_layout_are_those_of_others() -> None:
    model = reward("llama", torch.float32, trees=False)
    with torch.no_grad():
        single = token_rewards(model, collate(PAIRS, "single"))
        attend_with(model, TREES)
        shared = token_rewards(model, collate(PAIRS, "shared"))
    assert torch.allclose(single, shared, atol=1e-5)
