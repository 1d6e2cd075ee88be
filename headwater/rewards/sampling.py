"""Sample responses from a local model, reading every prompt once for all its draws; and score them.

A draw depends only on random numbers of its own (`data.sampling.uniforms`): batches, other prompts and a crash in
between do not change it, except for rounding of logits.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from headwater.console import say_notes, say_refusals
from headwater.data.generated import ResponseTexts
from headwater.data.preference import Preference, Response
from headwater.data.sampling import Asked, Drawn, Sampling, uniforms
from headwater.data.tokenizers import Tokenizer
from headwater.data.tokens import OF_PROMPTS, TOKENS_PER_PASS, Ids, PairTokens, tokenize
from headwater.data.turns import EndToken
from headwater.errors import ModelError
from headwater.forward.finite import FiniteLogits, check_scores
from headwater.models import loading
from headwater.models.positions import readable
from headwater.models.turn_ends import end_tokens
from headwater.rewards.generation import Drawing, drawing_for, generate, plain_generation
from headwater.rewards.responses import reward_token_scorer


class InverseTransform(transformers.LogitsProcessor):  # type: ignore[misc]
    """Turns greedy search into sampling: keeps the one token at which a row's cumulative probability passes u.

    At temperature 0 scores are unchanged, and the search stays greedy.
    """

    def __init__(self, u: NDArray[np.float64], sampling: Sampling, prompt: int) -> None:
        """Take `u` [rows, tokens] in [0, 1); `prompt` is the width of the padded prompts."""
        self._u, self._sampling, self._prompt = torch.from_numpy(u), sampling, prompt
        self._nucleus = transformers.TopPLogitsWarper(sampling.top_p) if sampling.top_p < 1 else None

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores [rows, vocabulary] that are 0 at the drawn token and −∞ elsewhere."""
        if self._sampling.temperature == 0:
            return scores
        scores = scores / self._sampling.temperature
        if self._nucleus is not None:
            scores = self._nucleus(input_ids, scores)
        # In float64: a sum of 150,000 float32 terms is too inaccurate for the last tokens.
        cumulative = scores.double().softmax(dim=-1).cumsum(dim=-1)
        u = self._u[:, input_ids.shape[1] - self._prompt].to(scores.device)[:, None]
        # Scaled by the actual sum, so that u never lies beyond the last token with a probability.
        drawn = torch.searchsorted(cumulative, u * cumulative[:, -1:], right=True)
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn, 0.0)


def draw_from(
    name: str, prompts: Sequence[Asked], sampling: Sampling, seed: int, batch: int
) -> Iterator[tuple[Asked, list[Drawn]]]:
    """Yield the prompts with the draws of a model, by name or path; prompts that are too long are left out."""
    model, tokenizer = loading.load(name, "policy", (), seed)
    ids = prompt_ids(prompts, tokenizer, longest_prompt(model, sampling))
    fitting = [(one, found) for one, found in zip(prompts, ids, strict=True) if found is not None]
    yield from draw(model, tokenizer, fitting, sampling, seed, batch)


def prompt_ids(prompts: Sequence[Asked], tokenizer: Tokenizer, longest: int) -> list[Ids | None]:
    """Render prompts by the chat template up to the answer; None for more than `longest` tokens.

    None too for prompts that the template refuses, which is printed, as are the rules that apply to others. Prompts are
    encoded as in training: control tokens spelled out in the data are text. Errors: `ModelError`.
    """
    found: dict[str, Ids] = {}
    # The prompt is rendered with two different answers; their common prefix is the prompt.
    stand_ins = [
        Preference(prompt=one.prompt, chosen=Response("A"), rejected=Response("B"), id=one.key) for one in prompts
    ]
    pairs, row_counts, notes = tokenize(stand_ins, tokenizer, 10**9, "never")
    say_refusals(row_counts)
    say_notes({note: count // 2 for note, count in notes.items() if note.startswith(OF_PROMPTS)}, "prompts")
    for pair in pairs:
        found[pair.id] = pair.prompt
    kept = ((one.key, found.get(one.key)) for one in prompts)
    return [ids if ids is not None and len(ids) <= longest else None for _, ids in kept]


def longest_prompt(model: Any, sampling: Sampling) -> int:
    """Return the maximum length of a prompt in tokens. Errors: `ModelError` when it is 0."""
    positions = readable(model)
    max_tokens = positions - sampling.max_new_tokens
    if max_tokens < 1:
        raise ModelError(
            f"--max-new-tokens {sampling.max_new_tokens}", f"the model has {positions} positions", "draw fewer tokens"
        )
    return int(max_tokens)


def draw(
    model: Any, tokenizer: Tokenizer, prompts: Sequence[tuple[Asked, Ids]], sampling: Sampling, seed: int, batch: int
) -> Iterator[tuple[Asked, list[Drawn]]]:
    """Yield every prompt with its draws, sorted by length, up to `batch` prompts at a time.

    Errors: `ModelError` for a model that cannot be sampled correctly (rewards/generation.py).
    """
    ends, texts = end_tokens(model, tokenizer), ResponseTexts(tokenizer)
    ordered = sorted(prompts, key=lambda one: len(one[1]))
    model.eval()
    longest = max((len(ids) for _, ids in ordered), default=0) + sampling.max_new_tokens
    way = drawing_for(model, longest)
    batch = batch if way.together else 1
    for start in range(0, len(ordered), batch):
        chunk = ordered[start : start + batch]
        tokens = _generate(model, chunk, sampling, seed, ends, way)
        drawn = iter(tokens.tolist())
        for one, prompt in chunk:
            yield one, [_drawn(one, prompt.tolist(), next(drawn), texts, ends) for _ in range(sampling.n)]


def _generate(
    model: Any, chunk: Sequence[tuple[Asked, Ids]], sampling: Sampling, seed: int, ends: list[int], way: Drawing
) -> torch.Tensor:
    """Sample for some prompts; returns new tokens [prompts · n, at most max_new_tokens], padded by an end token."""
    width = max(len(ids) for _, ids in chunk)
    u = np.concatenate([uniforms(seed, one.key, sampling.n, sampling.max_new_tokens) for one, _ in chunk])
    settings = transformers.GenerationConfig(
        do_sample=False, max_new_tokens=sampling.max_new_tokens, eos_token_id=ends, pad_token_id=ends[0]
    )
    names = [one.id for one, _ in chunk for _ in range(sampling.n)]
    processors = [FiniteLogits(names, "sampling"), InverseTransform(u, sampling, width)]
    with plain_generation(model):
        found = generate(model, [ids.tolist() for _, ids in chunk], sampling.n, way, settings, processors)
    tokens: torch.Tensor = found[:, width:].cpu()
    return tokens


def _drawn(
    one: Asked, prompt: Sequence[int], tokens: Sequence[int], texts: ResponseTexts, ends: Sequence[int]
) -> Drawn:
    """Cut new tokens at the first end token, and decode them."""
    end = next((place for place, token in enumerate(tokens) if token in ends), len(tokens))
    text, same_tokens = texts.of(one.prompt, prompt, tokens[:end])
    return Drawn(text, end < len(tokens), end, same_tokens)


def scores(
    model: Any,
    tokenizer: Tokenizer,
    one: Asked,
    drawn: Sequence[Drawn],
    longest: int,
    batch: int,
    end: EndToken = "complete",
) -> list[float | None]:
    """Return the reward of every draw at its last token; None for one that is empty or too long.

    Draws are tokenized as by `headwater score`, in batches of `batch`. `end` is the end-of-turn rule
    (`turn_ends.end_rule`).
    """
    rows: list[PairTokens | None] = []
    for each in drawn:
        # Encoded as training encodes a pair; the other side is ignored.
        pair = Preference(prompt=one.prompt, chosen=each.response(), rejected=Response("-"), id=one.id)
        found = tokenize([pair], tokenizer, longest, end).pairs if each.text.strip() else []
        rows.append(found[0] if found else None)
    usable = [place for place, row in enumerate(rows) if row is not None]
    rewards: list[float | None] = [None] * len(rows)
    token_scorer = reward_token_scorer(model)
    for start in range(0, len(usable), batch):
        places = usable[start : start + batch]
        responses = [row for place in places if (row := rows[place]) is not None]
        read = token_scorer.read(responses, TOKENS_PER_PASS)
        check_scores(np.array(read), [one.id] * len(read), "rewards")
        for place, reward in zip(places, read, strict=True):
            rewards[place] = reward
    return rewards
