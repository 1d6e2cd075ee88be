"""Generate through `model.generate`: in batches where results stay correct, else one prompt at a time.

Prompts of different lengths are padded on the left, and each is read once for all its draws. Whether a model then gives
the results of separate forward passes is tested on random prompts; a cache of recurrent states, positions moved by
padding, or a rotary embedding that changes with length would give other tokens.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
import transformers

from headwater.console import say
from headwater.errors import ModelError
from headwater.forward import alone
from headwater.forward.check_sample import limits_of, ordinary_ids
from headwater.forward.format_check import attend_as_it_came, checked, reached
from headwater.forward.hidden_states import forget_longer_texts
from headwater.models.parts import base_of

SHORT = (9, 4, 14)
"""Numbers of tokens of the tested prompts."""
FURTHER = 2
"""Another tested prompt ends this many tokens below a length named in the configuration, so that responses cross it."""
STEPS = 5
"""Number of tokens generated in the test."""


class Drawing(NamedTuple):
    """How prompts are passed to generation."""

    together: bool
    """Several in one batch, padded on the left, each read once for its draws."""
    cached: bool
    """With a key–value cache, instead of reading everything again for each token."""


WAYS = {
    "together": Drawing(together=True, cached=True),
    "one prompt at a time": Drawing(together=False, cached=True),
    "one prompt at a time, read anew for every token": Drawing(together=False, cached=False),
}
"""From the fastest to the slowest."""


def drawing_for(model: Any, longest: int) -> Drawing:
    """Return the fastest way to generate texts of up to `longest` tokens that agrees with separate forward passes.

    Sets the model's attention to its own. Errors: `ModelError` where no way does.
    """
    attend_as_it_came(model)
    found, limits = checked(model), limits_of(base_of(model).config)
    problems: list[str] = []
    for name, way in WAYS.items():
        before, problem = found.cached.get(name, (0, ""))
        if not problem and reached(before, longest, limits):
            problem = alone.differs(model, _tried(model, way, [limit for limit in limits if FURTHER < limit < longest]))
            found.cached[name] = (longest, problem)
        if not problem:
            line = f"drawing: {type(base_of(model)).__name__} takes {name}, slower ({'; '.join(problems)})"
            if problems and line not in found.said:
                found.said.add(line)
                say(line)
            return way
        problems.append(f"{name}: {problem}")
    raise ModelError(type(base_of(model)).__name__, f"cannot be drawn from: {problems[-1]}", "use another model")


def _tried(model: Any, way: Drawing, limits: Sequence[int]) -> Iterator[alone.Reading]:
    """Yield greedy generations after prompts, with their logits."""
    rng, (ids, _) = np.random.default_rng(0), ordinary_ids(model)
    sizes = (*SHORT, *(limit - FURTHER for limit in limits))
    prompts = [[int(token) for token in rng.choice(ids, size)] for size in sizes]
    settings = {"do_sample": False, "max_new_tokens": STEPS, "output_logits": True, "return_dict_in_generate": True}
    for part in [prompts] if way.together else [[prompt] for prompt in prompts]:
        with plain_generation(model):
            found = generate(model, part, 2, way, transformers.GenerationConfig(**settings, pad_token_id=0))
        steps = torch.stack(found.logits, dim=1)
        new = found.sequences[:, -steps.shape[1] :].tolist()
        for row, (logits, said) in enumerate(zip(steps, new, strict=True)):
            yield [*part[row // 2], *said[:-1]], logits


@torch.inference_mode()
def generate(
    model: Any, prompts: Sequence[Sequence[int]], n: int, way: Drawing, settings: Any, processors: Any = None
) -> Any:
    """Return n generations of `model.generate` for each prompt; prompts are padded on the left.

    Without `way.together`, give one prompt.
    """
    device = next(model.parameters()).device
    width, filler = max(map(len, prompts)), settings.pad_token_id
    input_ids = torch.full((len(prompts), width), filler, device=device)
    mask = torch.zeros_like(input_ids)
    for row, ids in enumerate(prompts):
        input_ids[row, width - len(ids) :] = torch.tensor(np.asarray(ids, dtype=np.int64), device=device)
        mask[row, width - len(ids) :] = 1
    forget_longer_texts(model)
    cache = {"past_key_values": _read_once(model, input_ids, mask, n)} if way.together else {}
    settings = copy.deepcopy(settings)
    settings.use_cache = way.cached
    return model.generate(
        input_ids.repeat_interleave(n, 0),
        attention_mask=mask.repeat_interleave(n, 0),
        logits_processor=transformers.LogitsProcessorList(processors or []),
        generation_config=settings,
        **cache,
    )


def _read_once(model: Any, input_ids: torch.Tensor, mask: torch.Tensor, n: int) -> Any:
    """Return a cache of all prompt tokens but the last, computed once and repeated n times."""
    if input_ids.shape[1] < 2:
        return None
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    cache = transformers.DynamicCache(config=model.config)
    model.base_model(
        input_ids=input_ids[:, :-1],
        attention_mask=mask[:, :-1],
        position_ids=positions[:, :-1],
        past_key_values=cache,
        use_cache=True,
    )
    cache.batch_repeat_interleave(n)
    return cache


class plain_generation:  # noqa: N801 - used as a with-statement
    """Disable a model's own generation settings (penalties, suppressed tokens, …), which change the distribution."""

    def __init__(self, model: Any) -> None:
        self._model, self._before = model, copy.deepcopy(model.generation_config)

    def __enter__(self) -> None:
        self._model.generation_config = transformers.GenerationConfig()

    def __exit__(self, *error: object) -> None:
        self._model.generation_config = self._before
