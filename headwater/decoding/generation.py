"""Two-model decoding as a custom generation function for `model.generate` of transformers.

    policy.generate(**inputs, custom_generate=two_models, reference=reference, strategy="kl_threshold(threshold=0.5)")

Length, temperature and filters come from the generation configuration. Options that the loop does not implement (beams,
penalties, custom stopping criteria, …) are refused.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
import transformers
from transformers.generation.stopping_criteria import EosTokenCriteria, MaxLengthCriteria

from headwater.config import build
from headwater.decoding.loop import DecodeRequest, Loop
from headwater.decoding.options import DecodingOptions
from headwater.decoding.strategies import STRATEGIES
from headwater.errors import UsageError

FILTERS = (
    transformers.TemperatureLogitsWarper,
    transformers.TopKLogitsWarper,
    transformers.TopPLogitsWarper,
    transformers.MinPLogitsWarper,
)


def two_models(
    model: Any,
    input_ids: torch.Tensor,
    logits_processor: Any,
    stopping_criteria: Any,
    generation_config: Any,
    reference: Any,
    strategy: str,
    seed: int = 42,
    draft: int = DecodingOptions.draft,
    **others: Any,
) -> torch.Tensor:
    """Return prompts and responses [rows, tokens], padded on the right; `model` is the policy.

    `seed` determines the draws; torch's global generator is not used. Equal prompts get different draws by their order.
    Errors: `UsageError` for options that the loop does not implement.
    """
    _refuse(logits_processor, stopping_criteria, generation_config, others)
    # Popped from the settings: as a named argument, generate would treat it as one of its own and pass it twice.
    # It is None where no token is padding: transformers drops a mask that is all ones.
    mask = others.get("attention_mask")
    mask = torch.ones_like(input_ids) if mask is None else mask
    prompts = [row[kept.bool()].tolist() for row, kept in zip(input_ids, mask, strict=True)]
    ends = torch.as_tensor([] if generation_config.eos_token_id is None else generation_config.eos_token_id).flatten()
    sampled = generation_config.do_sample
    options = DecodingOptions(
        temperature=generation_config.temperature if sampled else 0.0,
        top_k=(generation_config.top_k or None) if sampled else None,
        top_p=(1.0 if generation_config.top_p is None else generation_config.top_p) if sampled else 1.0,
        min_p=(generation_config.min_p or 0.0) if sampled else 0.0,
        max_new_tokens=generation_config.max_length - input_ids.shape[1],
        batch_size=len(prompts),
        draft=draft,
    )
    loop = Loop(model, reference, build(strategy, STRATEGIES, "strategy"), options, ends.tolist(), seed)
    seen: Counter[str] = Counter()
    requests = []
    for prompt in prompts:
        requests.append(DecodeRequest(str(prompt), seen[str(prompt)], prompt))
        seen[str(prompt)] += 1
    places = {(request.key, request.draw): place for place, request in enumerate(requests)}
    found: list[list[int]] = [[] for _ in prompts]
    for one in loop.run(requests):
        tail = [] if one.end is None else [one.end]
        found[places[one.request.key, one.request.draw]] = one.tokens + tail
    padding = generation_config.pad_token_id
    filler = int(ends[0]) if padding is None and len(ends) else int(padding or 0)
    width = max(map(len, found))
    new = [[*tokens, *[filler] * (width - len(tokens))] for tokens in found]
    return torch.cat([input_ids, torch.tensor(new, dtype=input_ids.dtype, device=input_ids.device)], dim=1)


def _refuse(processors: Any, criteria: Any, config: Any, others: dict[str, Any]) -> None:
    """Refuse options that would have no effect. Errors: `UsageError`."""
    strange = [type(each).__name__ for each in processors if not isinstance(each, FILTERS)]
    strange += [type(each).__name__ for each in criteria if not isinstance(each, (MaxLengthCriteria, EosTokenCriteria))]
    strange += [f"num_beams={config.num_beams}"] if (config.num_beams or 1) > 1 else []
    strange += ["return_dict_in_generate"] if config.return_dict_in_generate else []
    strange += ["a streamer"] if others.get("streamer") is not None else []
    if strange:
        raise UsageError("generate with two models", f"cannot do {', '.join(strange)}", "leave it out")
