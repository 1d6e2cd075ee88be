"""Frozen first layers of a training job (`--freeze-layers`), and the hidden states that enter its trained layers."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

from accelerate.utils import str_to_bool

from headwater.console import say
from headwater.data.tokenizers import Tokenizer
from headwater.data.tokens import EncodeOptions
from headwater.errors import UsageError
from headwater.forward import freezing
from headwater.forward.freezing import Frozen
from headwater.forward.frozen_layers import split_of
from headwater.forward.packing import RowFormat
from headwater.forward.scores import kind_of
from headwater.forward.segments import Cutting
from headwater.forward.state_store import StateStore
from headwater.training import examples, readback
from headwater.training.examples import Examples, Pairs
from headwater.training.job import TrainingJob


class FrozenPart(NamedTuple):
    """The frozen part of a model: its size, and where its states are stored."""

    size: Frozen
    states: StateStore

    def fill(self, data: Examples, pairs: Pairs, encode_options: EncodeOptions, tokenizer: Tokenizer) -> None:
        """Compute the states of both parts of the data that are not stored. Errors: those of `StateStore.fill`."""
        self.states.fill(*examples.with_whole(pairs, data, encode_options, tokenizer))


def freeze(job: TrainingJob, model: Any, pairs: Pairs, row_format: RowFormat) -> FrozenPart | None:
    """Freeze the first layers of `model`, whose forward passes then begin at stored states; None without the option.

    Prints what is trained. Errors: `UsageError` under FSDP; those of `freezing.freeze` and `freezing.check`.
    """
    count = job.options.freeze_layers
    if count is None:
        return None
    if str_to_bool(os.environ.get("ACCELERATE_USE_FSDP", "false")):
        raise UsageError("--freeze-layers", "does not work with FSDP, which shards frozen layers too", "leave it out")
    if any(mask is not None for part in (pairs.train, pairs.held_out) for pair in part for mask in pair.masks):
        problem = "stores the hidden states of responses of one turn, and some have several"
        raise UsageError("--freeze-layers", problem, "compare last turns (--turns last), or leave it out")
    size = freezing.freeze(model, count)
    split = split_of(model)
    assert split is not None
    first_only = freezing.check(model, readback.sample_of(pairs.train), row_format)
    cutting = Cutting(kind_of(model).causal, prompts=count > 0, first_only=first_only)
    tokens = job.options.tokens_per_pass
    states = split.source = StateStore(model, split, row_format, cutting, tokens, bf16=job.arguments.bf16)
    say(str(size))
    return FrozenPart(size, states)
