"""The loop: what it writes is what each model would write alone, whatever the batch, the cache and the drafts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from headwater.config import build
from headwater.decoding import loop
from headwater.decoding.cached_model import CachedModel
from headwater.decoding.loop import DecodedTokens, Loop, decode_requests
from headwater.decoding.options import DecodingOptions
from headwater.decoding.strategies import STRATEGIES
from headwater.errors import ModelError

VOCAB, END = 64, 1
SIZES: dict[str, Any] = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
FAMILIES: dict[str, Any] = {
    "llama": lambda: transformers.LlamaConfig(**SIZES),
    "mistral, sliding": lambda: transformers.MistralConfig(**SIZES, sliding_window=6),
    "gemma 3, sliding": lambda: transformers.Gemma3TextConfig(
        **SIZES, head_dim=8, sliding_window=6, layer_types=["sliding_attention", "full_attention"]
    ),
    "gpt 2": lambda: transformers.GPT2Config(vocab_size=VOCAB, n_embd=32, n_layer=2, n_head=4, n_positions=128),
    "bloom, alibi": lambda: transformers.BloomConfig(
        vocab_size=VOCAB, hidden_size=32, n_layer=2, n_head=4, tie_word_embeddings=False
    ),
}
BOTH = ["kl_threshold(threshold=0.12)", "kl_threshold(threshold=0.12, below=0.5)", "interpolate(weight=1.5)"]
MIXED = ["length_control(first=5)", *BOTH]


def model_of(family: str = "llama", seed: int = 0, spread: float = 4.0) -> Any:
    torch.manual_seed(seed)
    model = transformers.AutoModelForCausalLM.from_config(FAMILIES[family]()).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            parameter.data *= spread  # uneven enough for a token to depend on what precedes it
    return model


def nudged(model: Any, by: float = 0.5, seed: int = 9) -> Any:
    """A policy beside its reference: the same weights, moved a little."""
    torch.manual_seed(seed)
    policy = transformers.AutoModelForCausalLM.from_config(model.config).eval()
    for own, other in zip(policy.parameters(), model.parameters(), strict=True):
        own.data = other.data * (1 + by * torch.randn_like(other))
    return policy


PROMPTS = [np.random.default_rng(length).integers(2, VOCAB, length).tolist() for length in (3, 9, 1, 14, 6, 4)]


def decode(policy: Any, reference: Any, strategy: str, prompts: Sequence[list[int]] = PROMPTS, **options: Any) -> Any:
    settings = DecodingOptions(**({"max_new_tokens": 24, "temperature": 0, "batch_size": 4} | options))
    loop = Loop(policy, reference, build(strategy, STRATEGIES, "strategy"), settings, [END], seed=3)
    keys = [str(prompt) for prompt in prompts]
    found = {(one.request.key, one.request.draw): one for one in loop.run(decode_requests(keys, prompts, settings.n))}
    assert len(found) == len(prompts) * settings.n
    return [found[key, draw] for key in keys for draw in range(settings.n)], loop


def texts(found: tuple[list[DecodedTokens], Loop]) -> list[list[int]]:
    return [one.tokens + ([] if one.end is None else [one.end]) for one in found[0]]


def uncached(policy: Any, reference: Any, strategy: str, prompt: list[int], tokens: int) -> list[int]:
    """The authors' way: both models read the whole text for every token; greedy."""
    speaker, ids = build(strategy, STRATEGIES, "strategy"), list(prompt)
    for position in range(tokens):
        with torch.inference_mode():
            p, r = (m(torch.tensor([ids]), use_cache=False).logits[:, -1].log_softmax(1) for m in (policy, reference))
        turn = speaker.turn(position)
        used = speaker.mix(p, r).log_probs if turn == "both" else {"policy": p, "reference": r}[turn]
        ids.append(int(used.argmax()))
        if ids[-1] == END:
            break
    return ids[len(prompt) :]


@pytest.mark.parametrize("family", FAMILIES)
def test_greedy_equals_generate(family: str) -> None:
    model = model_of(family)
    settings = transformers.GenerationConfig(max_new_tokens=24, do_sample=False, eos_token_id=END, pad_token_id=END)
    expected = [
        model.generate(torch.tensor([prompt]), generation_config=settings)[0, len(prompt) :].tolist()
        for prompt in PROMPTS
    ]
    assert texts(decode(model, model_of(family, seed=1), "policy")) == expected
    assert len({tuple(row) for row in expected}) == len(PROMPTS), "models that say one thing show nothing"


@pytest.mark.parametrize("strategy", MIXED)
@pytest.mark.parametrize("family", FAMILIES)
def test_cached_uncached_and_drafted_agree(family: str, strategy: str) -> None:
    reference = model_of(family)
    policy = nudged(reference)
    expected = [uncached(policy, reference, strategy, prompt, 24) for prompt in PROMPTS]
    pure = [[uncached(policy, reference, who, prompt, 24) for prompt in PROMPTS] for who in ("policy", "reference")]
    assert pure[0] != pure[1], "models that agree show nothing"
    for draft, batch in ((1, 4), (3, 1), (16, 6)):
        found = decode(policy, reference, strategy, draft=draft, batch_size=batch)
        assert texts(found) == expected, (draft, batch)
        assert strategy not in BOTH or found[1].taken < found[1].drafted, "where all drafts stand, none is replaced"


@pytest.mark.parametrize("strategy", ["policy", *MIXED])
def test_a_sample_depends_on_its_prompt_and_draw_alone(strategy: str) -> None:
    reference = model_of()
    policy = nudged(reference)
    sampled = {"temperature": 0.9, "top_k": 40, "top_p": 0.95, "min_p": 0.01, "n": 2}
    together = texts(decode(policy, reference, strategy, batch_size=12, **sampled))
    assert len({tuple(row) for row in together}) == 2 * len(PROMPTS), "draws that never differ show nothing"
    for batch, draft in ((1, 1), (3, 5), (5, 16)):
        assert texts(decode(policy, reference, strategy, batch_size=batch, draft=draft, **sampled)) == together
    alone = texts(decode(policy, reference, strategy, PROMPTS[3:4], **sampled))
    assert alone == together[6:8]


LIMITS = {
    "policy": [
        "length_control(first=1000)",
        "kl_threshold(threshold=-1)",
        "kl_threshold(threshold=0.3, below=1)",
        "interpolate(weight=1)",
    ],
    "reference": ["length_control(first=0)", "interpolate(weight=0)"],
}


@pytest.mark.parametrize(("pure", "strategy"), [(pure, each) for pure, limits in LIMITS.items() for each in limits])
@pytest.mark.parametrize("temperature", [0, 1.0])
def test_the_limits_are_the_pure_models(pure: str, strategy: str, temperature: float) -> None:
    reference = model_of()
    policy = nudged(reference)
    found = decode(policy, reference, strategy, temperature=temperature)
    assert texts(found) == texts(decode(policy, reference, pure, temperature=temperature))
    silent = found[1].reference if pure == "policy" else found[1].policy
    assert silent.tokens == 0, "a model that is not asked costs nothing"


def test_a_model_asked_late_reads_what_it_missed_once() -> None:
    reference = model_of()
    policy = nudged(reference)
    found, loop = decode(policy, reference, "length_control(first=5)", PROMPTS[:1], max_new_tokens=12)
    assert len(found[0].tokens) == 12, "the row has to be whole for the counts below"
    assert loop.policy.tokens == len(PROMPTS[0]) + 4
    assert loop.reference.tokens == len(PROMPTS[0]) + 11


def test_drafts_are_taken_where_the_models_agree_and_save_readings() -> None:
    reference = model_of()
    calls: list[int] = []
    policy = nudged(reference, by=0.0)
    strategy = "kl_threshold(threshold=0.5)"
    decode(policy, reference, strategy, PROMPTS[:1], max_new_tokens=24, draft=16)  # the check of the cache, once
    forward = policy.forward
    policy.forward = lambda *a, **k: (calls.append(1), forward(*a, **k))[1]
    found, loop = decode(policy, reference, strategy, PROMPTS[:1], max_new_tokens=24, draft=16, temperature=1.0)
    assert loop.taken == loop.drafted >= len(found[0].tokens)
    assert len(calls) <= 4  # 1 + 3 + 9 + 11 tokens


def test_every_response_begins_with_short_drafts() -> None:
    reference, policy = model_of(), model_of()
    prompts = [[place, 5, 7] for place in (3, 4, 6)]
    decode(policy, reference, "kl_threshold(threshold=0.05)", prompts, draft=16)  # the check of the cache, once
    forward = policy.forward

    def early(*args: Any, position_ids: torch.Tensor, **settings: Any) -> Any:
        """Say something else at the first token of every response."""
        found = forward(*args, position_ids=position_ids, **settings)
        first = position_ids[:, -found.logits.shape[1] :] == len(prompts[0]) - 1
        found.logits[first] = found.logits[first].roll(7, -1)
        return found

    policy.forward = early
    strategy = "kl_threshold(threshold=0.05)"
    expected = decode(policy, reference, strategy, prompts, batch_size=1, draft=1)
    found = decode(policy, reference, strategy, prompts, batch_size=1, draft=16)
    assert texts(found) == texts(expected) != texts(decode(reference, reference, strategy, prompts))
    assert found[1].drafted - found[1].taken == len(prompts), "a token a response drafted in vain"
    assert found[1].policy.tokens == expected[1].policy.tokens


def test_drafts_of_many_rows_are_no_longer_than_may_be_held(monkeypatch: pytest.MonkeyPatch) -> None:
    reference, policy = model_of(), model_of()
    prompts = [[place, 5, 7] for place in (3, 4)]
    checked: list[int] = []
    forward = policy.forward

    def counted(*args: Any, logits_to_keep: int, **settings: Any) -> Any:
        checked.append(logits_to_keep)
        return forward(*args, logits_to_keep=logits_to_keep, **settings)

    policy.forward = counted
    strategy = "kl_threshold(threshold=0.05)"
    expected = decode(policy, reference, strategy, prompts, draft=16)
    assert max(checked) > 2
    monkeypatch.setattr(loop, "KEPT", 2 * 2 * VOCAB)
    checked.clear()
    assert texts(decode(policy, reference, strategy, prompts, draft=16)) == texts(expected)
    assert max(checked) == 2


def test_rows_of_unlike_vocabularies_are_refused() -> None:
    sizes = SIZES | {"vocab_size": VOCAB + 1}
    other = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes))
    with pytest.raises(ModelError, match="64 and 65 embeddings"):
        decode(model_of(), other, "policy")


def test_a_model_without_an_ordinary_cache_is_read_anew(capsys: pytest.CaptureFixture[str]) -> None:
    mamba = transformers.MambaForCausalLM(
        transformers.MambaConfig(vocab_size=VOCAB, hidden_size=32, num_hidden_layers=2, state_size=4)
    ).eval()
    found, _ = decode(mamba, mamba, "policy", max_new_tokens=5)
    assert capsys.readouterr().err.count("MambaForCausalLM reads every text anew") == 1
    for one in found:
        assert one.tokens == greedy(mamba, one.request.prompt, len(one.tokens))


def greedy(model: Any, prompt: Sequence[int], tokens: int) -> list[int]:
    """The oracle: every token from a forward of its own, without a cache."""
    ids = list(prompt)
    for _ in range(tokens):
        with torch.no_grad():
            ids.append(int(model(torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    return ids[len(prompt) :]


def test_a_rotary_embedding_that_changes_with_length_is_read_anew() -> None:
    """In the middle of a response the frequencies of all its tokens become others, and a cache holds the old ones."""
    factors = {"short_factor": [1.0] * 4, "long_factor": [1.0, 2.0, 4.0, 8.0], "factor": 4.0}
    rope = {"rope_type": "longrope", "original_max_position_embeddings": 16, "rope_theta": 100.0, **factors}
    torch.manual_seed(0)
    config = transformers.LlamaConfig(**SIZES | {"rope_parameters": rope, "initializer_range": 0.3, "head_dim": 8})
    model = transformers.LlamaForCausalLM(config).eval()
    prompts = [[5, 9, 11, 3, 8, 6, 7], [4, 6, 7, 12, 9, 8, 10, 11, 5, 3, 6, 7]]
    found, _ = decode(model, model, "policy", prompts, max_new_tokens=12)
    assert max(len(one.request.prompt) + len(one.tokens) for one in found) > 16
    for one in found:
        assert one.tokens == greedy(model, one.request.prompt, len(one.tokens))


class Line:
    def __init__(self, ids: list[int]) -> None:
        self.ids = ids
        self.prompt: list[int] = []


@pytest.mark.parametrize("family", FAMILIES)
def test_a_reader_that_is_cut_back_and_joined_reads_as_from_the_start(family: str) -> None:
    model, rng = model_of(family), np.random.default_rng(0)
    reader, lines = CachedModel(model), [Line(list(prompt)) for prompt in PROMPTS]
    for _ in range(12):
        chosen = [lines[i] for i in sorted(rng.choice(len(lines), rng.integers(1, len(lines) + 1), replace=False))]
        last = [int(rng.integers(1, min(4, len(line.ids)) + 1)) for line in chosen]
        for line, logits, count in zip(chosen, reader.read(chosen, last), last, strict=True):
            with torch.inference_mode():
                expected = model(torch.tensor([line.ids])).logits[0, -count:]
            torch.testing.assert_close(logits, expected, atol=2e-4, rtol=2e-4)
        for line in chosen:
            cut = int(rng.integers(0, min(4, len(line.ids))))
            if cut:  # as after a draft that was not taken: shorter, and another token at its end
                line.ids[-cut - 1 :] = rng.integers(2, VOCAB, 1).tolist()
            else:
                line.ids += rng.integers(2, VOCAB, rng.integers(1, 4)).tolist()


@pytest.mark.parametrize("strategy", ["length_control(first=5)", BOTH[0]])
@pytest.mark.parametrize("family", ["llama", "gemma 3, sliding"])
def test_a_prompt_is_read_once_for_its_draws(family: str, strategy: str) -> None:
    reference = model_of(family)
    policy = nudged(reference)
    sampled = {"temperature": 1.0, "n": 4, "max_new_tokens": 12}
    alone = texts(decode(policy, reference, strategy, n=4, batch_size=1, max_new_tokens=12, temperature=1.0))
    for batch in (3, 8):
        found, loop = decode(policy, reference, strategy, batch_size=batch, **sampled)
        assert texts((found, loop)) == alone


def test_draws_together_read_fewer_tokens() -> None:
    reference = model_of()
    prompts = [list(range(2, 42)), list(range(60, 10, -1))]
    found, loop = decode(reference, reference, "reference", prompts, n=4, batch_size=8, temperature=1.0)
    said = sum(len(one.tokens) + (one.end is not None) for one in found)
    # Each prompt once, its last token again for each draw, and all that is said but the last token.
    assert loop.reference.tokens == sum(map(len, prompts)) + said
    one, loop = decode(reference, reference, "reference", prompts, n=4, batch_size=2, temperature=1.0)
    assert loop.reference.tokens <= sum(map(len, prompts)) + said
    assert texts((one, loop)) == texts((found, loop))


def test_a_row_goes_on_from_what_is_said() -> None:
    reference = model_of()
    policy = nudged(reference)
    whole, _ = decode(policy, reference, "length_control(first=5)", temperature=1.0)
    begun, _ = decode(policy, policy, "policy", temperature=1.0, max_new_tokens=5)
    settings = DecodingOptions(max_new_tokens=24, batch_size=4)
    rest = [one.request._replace(said=one.tokens) for one in begun if one.end is None]
    loop = Loop(reference, reference, build("reference", STRATEGIES, "strategy"), settings, [END], seed=3)
    ended = {one.request.key: one for one in loop.run(rest)} | {one.request.key: one for one in begun if one.end}
    assert texts(([ended[one.request.key] for one in whole], loop)) == texts((whole, loop))
    assert any(one.end is None for one in begun)
