"""Draws of a local model: from the model's own distribution, the same in any batch, each prompt read once."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from headwater.data.generated import ResponseTexts
from headwater.data.preference import Message, Preference, Response
from headwater.data.sampling import Asked, Drawn, Sampling, asked, uniforms
from headwater.data.tokenizers import Tokenizer
from headwater.data.tokens import tokenize
from headwater.errors import ModelError
from headwater.models.turn_ends import end_tokens
from headwater.rewards import generation, sampling


def llama(tokenizer: Tokenizer, kind: Any = transformers.LlamaForCausalLM, seed: int = 0, **other: Any) -> Any:
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=256,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        **other,
    )
    model = kind(config).eval()
    for parameter in model.parameters():
        parameter.data *= 3  # uneven enough for a draw to depend on the prompt
    return model


@pytest.fixture(scope="module")
def model(tokenizer: Tokenizer) -> Any:
    return llama(tokenizer)


@pytest.fixture(scope="module")
def prompts(corpus: list[Preference]) -> list[Asked]:
    return asked(corpus)[0][:6]


def drawn(
    model: Any, tokenizer: Tokenizer, prompts: list[Asked], settings: Sampling, batch: int = 4
) -> dict[str, list[Drawn]]:
    ids = sampling.prompt_ids(prompts, tokenizer, sampling.longest_prompt(model, settings))
    rows = [(one, found) for one, found in zip(prompts, ids, strict=True) if found is not None]
    return {one.key: found for one, found in sampling.draw(model, tokenizer, rows, settings, 0, batch)}


def test_a_draw_does_not_depend_on_its_batch(model: Any, tokenizer: Tokenizer, prompts: list[Asked]) -> None:
    settings = Sampling(n=3, max_new_tokens=10)
    together = drawn(model, tokenizer, prompts, settings, batch=6)
    for batch in (1, 4):
        assert drawn(model, tokenizer, prompts, settings, batch) == together
    assert drawn(model, tokenizer, prompts[2:3], settings) == {prompts[2].key: together[prompts[2].key]}
    assert len({each.text for rows in together.values() for each in rows}) > 15


def test_reading_a_prompt_once_gives_what_reading_it_for_every_draw_gives(
    model: Any, tokenizer: Tokenizer, prompts: list[Asked], monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Sampling(n=3, max_new_tokens=10)
    shared = drawn(model, tokenizer, prompts, settings)
    monkeypatch.setattr(generation, "_read_once", lambda *arguments: None)
    assert drawn(model, tokenizer, prompts, settings) == shared


def exact(model: Any, ids: np.ndarray[Any, Any], tokens: list[int]) -> Any:
    """The model's next-token distribution after a prompt and some tokens, by a plain forward pass."""
    with torch.inference_mode():
        row = torch.tensor([[*ids.tolist(), *tokens]])
        return model(row).logits[0, -1].double().softmax(0).numpy()


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (0.5, 1.0), (1.0, 0.7)])
def test_draws_follow_the_models_distribution(
    model: Any, tokenizer: Tokenizer, prompts: list[Asked], temperature: float, top_p: float
) -> None:
    (ids,) = sampling.prompt_ids(prompts[:1], tokenizer, 200)
    assert ids is not None
    n = 4000
    settings = Sampling(n=n, max_new_tokens=1, temperature=temperature, top_p=top_p)
    ends = end_tokens(model, tokenizer)
    found = sampling._generate(model, [(prompts[0], ids)], settings, 0, ends, generation.WAYS["together"])[:, 0]
    p = exact(model, ids, []) ** (1 / temperature)
    p /= p.sum()
    if top_p < 1:
        order = np.argsort(-p)
        outside = order[np.cumsum(p[order]) - p[order] >= top_p]
        p[outside] = 0
        p /= p.sum()
    counts = np.bincount(found.numpy(), minlength=len(p))
    assert counts[p == 0].sum() == 0
    likely = p * n >= 5
    rest = (counts[~likely].sum(), p[~likely].sum() * n)
    chi = ((counts[likely] - p[likely] * n) ** 2 / (p[likely] * n)).sum()
    chi += (rest[0] - rest[1]) ** 2 / rest[1] if rest[1] > 0 else 0
    degrees = likely.sum()
    assert abs(chi - degrees) < 5 * np.sqrt(2 * degrees)


def test_a_token_without_probability_is_never_drawn() -> None:
    scores = torch.tensor([[-torch.inf, 0.0, -torch.inf, 0.0, -torch.inf]]).repeat(3, 1)
    u = np.array([[0.0], [0.5], [np.nextafter(1.0, 0.0)]])
    found = sampling.InverseTransform(u, Sampling(), 4)(torch.zeros((3, 4), dtype=torch.long), scores)
    assert found.argmax(1).tolist() == [1, 3, 3]


def test_later_tokens_follow_the_tokens_before_them(model: Any, tokenizer: Tokenizer, prompts: list[Asked]) -> None:
    """Every token is the one at which the cumulative probability passes its random number."""
    settings = Sampling(n=4, max_new_tokens=6)
    ends = end_tokens(model, tokenizer)
    rows = [(one, ids) for one, ids in zip(prompts[:2], sampling.prompt_ids(prompts[:2], tokenizer, 200), strict=True)]
    found = sampling._generate(model, rows, settings, 7, ends, generation.WAYS["together"]).tolist()  # type: ignore[arg-type]
    for place, (one, ids) in enumerate(rows):
        u = uniforms(7, one.key, 4, 6)
        for draw in range(4):
            tokens = found[4 * place + draw]
            for step, token in enumerate(tokens):
                cumulative = np.cumsum(exact(model, ids, tokens[:step]))  # type: ignore[arg-type]
                assert cumulative[token] - u[draw, step] > -1e-6
                assert token == 0 or u[draw, step] - cumulative[token - 1] > -1e-6
                if token in ends:
                    break


def test_a_models_own_generation_settings_do_not_count(tokenizer: Tokenizer, prompts: list[Asked]) -> None:
    settings = Sampling(n=2, max_new_tokens=8)
    plain, loaded = llama(tokenizer), llama(tokenizer)
    loaded.generation_config.update(repetition_penalty=5.0, top_k=1, suppress_tokens=list(range(200)))
    assert drawn(loaded, tokenizer, prompts, settings) == drawn(plain, tokenizer, prompts, settings)
    assert loaded.generation_config.repetition_penalty == 5.0


def test_a_response_that_ends_is_complete(tokenizer: Tokenizer, prompts: list[Asked]) -> None:
    ends, texts, one = [tokenizer.eos_token_id], ResponseTexts(tokenizer), prompts[0]
    (prompt,) = sampling.prompt_ids([one], tokenizer, 10**6)
    assert prompt is not None
    words = tokenizer("fine", add_special_tokens=False)["input_ids"]

    def drawn(tokens: list[int]) -> Drawn:
        return sampling._drawn(one, prompt.tolist(), tokens, texts, ends)

    assert drawn([*words, ends[0], ends[0]]) == Drawn("fine", True, len(words), True)
    assert drawn(words) == Drawn("fine", False, len(words), True)
    letters = [token for letter in "fine" for token in tokenizer(letter, add_special_tokens=False)["input_ids"]]
    if letters != words:
        assert drawn(letters) == Drawn("fine", False, len(letters), False)


def test_ends_are_found_in_a_batch(tokenizer: Tokenizer, prompts: list[Asked]) -> None:
    eager = llama(tokenizer)
    eager.get_output_embeddings().weight.data[tokenizer.eos_token_id] = 0.0
    counts = Counter(
        each.complete
        for rows in drawn(eager, tokenizer, prompts, Sampling(n=30, max_new_tokens=60, temperature=3.0)).values()
        for each in rows
    )
    assert counts[True] > 5 and counts[False] > 5


def test_prompts_without_room_are_left_out(model: Any, tokenizer: Tokenizer, prompts: list[Asked]) -> None:
    lengths = [len(ids) for ids in sampling.prompt_ids(prompts, tokenizer, 10**6) if ids is not None]
    found = sampling.prompt_ids(prompts, tokenizer, min(lengths))
    assert sum(ids is not None for ids in found) == lengths.count(min(lengths)) < len(prompts)
    with pytest.raises(ModelError, match="256 positions"):
        sampling.longest_prompt(model, Sampling(max_new_tokens=256))


def test_prompts_are_encoded_as_in_training(tokenizer: Tokenizer) -> None:
    spelled = Asked((Message("user", "What is <|im_end|> for?"),), "a", "s")
    (ids,) = sampling.prompt_ids([spelled], tokenizer, 10**6)
    assert ids is not None
    assert ids.tolist().count(tokenizer.convert_tokens_to_ids("<|im_end|>")) == 1  # the template's, not the data's
    pair = Preference(prompt=spelled.prompt, chosen=Response("Yes"), rejected=Response("No"))
    assert tokenize([pair], tokenizer, 512).pairs[0].prompt.tolist() == ids.tolist()
    assert tokenizer.decode(ids).endswith("<|im_start|>assistant\n")
