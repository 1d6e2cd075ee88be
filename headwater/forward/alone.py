"""Compare log-probabilities from a cache or a batch with those of each text read alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import torch

from headwater.errors import HeadwaterError, first_line
from headwater.forward.format_check import REFUSALS, difference, distance, last_bits_changed
from headwater.forward.hidden_states import text_logits

Reading = tuple[Sequence[int], torch.Tensor]
"""Token ids of a text, and logits [last, vocabulary] after its last tokens."""


def differs(model: Any, readings: Iterable[Reading]) -> str:
    """Describe how the logits of `readings` differ from those of separate forward passes; empty when they agree.

    An exception raised while the readings are computed counts as a difference: architectures signal unsupported input
    by different exception types.
    """
    texts: list[tuple[Sequence[int], int]] = []
    found, expected = [], []
    try:
        with torch.inference_mode():
            for ids, logits in readings:
                texts.append((ids, len(logits)))
                found.append(logits.double().log_softmax(-1).cpu())
                expected.append(_alone(model, ids, len(logits)))
            wanted = torch.cat(expected)

            def rounding() -> float:
                with last_bits_changed(model):
                    moved = torch.cat([_alone(model, ids, last) for ids, last in texts])
                return float(distance(moved, wanted).max())

            return difference(torch.cat(found), wanted, wanted.abs().clamp(min=1), rounding, "log-probabilities")
    except (*REFUSALS, HeadwaterError) as error:
        return f"{type(error).__name__}: {first_line(error)[:120]}"


def _alone(model: Any, ids: Sequence[int], last: int) -> torch.Tensor:
    # Each prefix is a forward pass of its own, since a rotary embedding may depend on the length of the text.
    prefixes = [ids[: len(ids) - rest] for rest in reversed(range(last))]
    return torch.cat([text_logits(model, prefix, 1) for prefix in prefixes]).double().log_softmax(-1).cpu()
