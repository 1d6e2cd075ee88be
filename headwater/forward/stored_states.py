"""Score rows with a model that was trained behind frozen layers, from hidden states that its training stored."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

from headwater.data.tokens import PairTokens
from headwater.forward import freezing
from headwater.forward.frozen_layers import join, split_of
from headwater.forward.packing import RowFormat
from headwater.forward.scores import kind_of
from headwater.forward.segments import Cutting
from headwater.forward.state_store import StateStore

SAMPLE = 3
"""Number of rows by which the split is checked."""


@contextlib.contextmanager
def stored_states(
    model: Any, trained_layers: int, rows: Sequence[PairTokens], row_format: RowFormat, max_tokens: int
) -> Iterator[None]:
    """Let `model` read `rows` from the states before its last `trained_layers` inside; missing ones are computed first.

    They are those of other models of the same run, seed, loss or data with the same frozen layers. Errors: those of
    `freezing.check` and `StateStore.fill`.
    """
    learns = [(weight, weight.requires_grad) for weight in model.parameters()]
    freezing.freeze(model, trained_layers)
    split = split_of(model)
    assert split is not None
    try:
        by_length = sorted(rows, key=lambda row: row.length)
        first_only = freezing.check(model, by_length[:SAMPLE], row_format)
        cutting = Cutting(kind_of(model).causal, prompts=trained_layers > 0, first_only=first_only)
        split.source = store = StateStore(model, split, row_format, cutting, max_tokens, bf16=False)
        store.fill(rows, rows)
        yield
    finally:
        join(model)
        for weight, before in learns:
            weight.requires_grad_(before)
