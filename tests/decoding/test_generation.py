"""The hook for `model.generate`: the same tokens as the loop, and a refusal of what it does not do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from headwater.decoding.generation import two_models
from headwater.errors import UsageError
from tests.decoding.test_loop import END, PROMPTS, decode, model_of, nudged, texts

STRATEGY = "kl_threshold(threshold=0.12)"


def generate(
    strategy: str = STRATEGY, prompts: Sequence[Sequence[int]] = PROMPTS, masked: bool = True, **settings: Any
) -> list[list[int]]:
    reference = model_of()
    width = max(map(len, prompts))
    ids = torch.tensor([[*[0] * (width - len(prompt)), *prompt] for prompt in prompts])
    mask = torch.tensor([[*[0] * (width - len(prompt)), *[1] * len(prompt)] for prompt in prompts])
    given: dict[str, Any] = {"max_new_tokens": 24, "do_sample": False, "eos_token_id": END, "pad_token_id": END}
    found = nudged(reference).generate(
        ids,
        attention_mask=mask if masked else None,
        custom_generate=two_models,
        reference=reference,
        strategy=strategy,
        **(given | settings),
    )
    assert found[:, :width].tolist() == ids.tolist()
    rows = found[:, width:].tolist()
    return [row[: row.index(END) + 1] if END in row else row for row in rows]


@pytest.mark.parametrize("strategy", [STRATEGY, "length_control(first=5)"])
def test_generate_gives_what_the_loop_gives(strategy: str) -> None:
    reference = model_of()
    assert generate(strategy) == texts(decode(nudged(reference), reference, strategy))


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize("kind", ["one prompt", "equal lengths"])
def test_prompts_without_padding_are_read_with_and_without_a_mask(kind: str, masked: bool) -> None:
    """transformers hands over None for a mask that is all ones, and looks for padding where there is none given."""
    prompts = [PROMPTS[0]] if kind == "one prompt" else [PROMPTS[0], [*reversed(PROMPTS[0])]]
    whole = generate(prompts=[*prompts, [7, *PROMPTS[0]]])  # the longer prompt pads the others
    assert generate(prompts=prompts, masked=masked) == whole[: len(prompts)]


def test_sampling_heeds_the_generation_configuration() -> None:
    reference = model_of()
    settings = {"temperature": 0.8, "top_k": 20, "top_p": 0.9}
    found = generate(do_sample=True, seed=3, **settings)
    assert found == texts(decode(nudged(reference), reference, STRATEGY, **settings))
    assert found != generate(do_sample=True, seed=4, **settings)


@pytest.mark.parametrize(
    "settings", [{"num_beams": 2}, {"repetition_penalty": 1.5}, {"return_dict_in_generate": True}, {"max_time": 5.0}]
)
def test_what_the_loop_does_not_do_is_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="cannot do"):
        generate(**settings)
