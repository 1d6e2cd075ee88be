"""Segments of a batch: its prompts and responses, where they stand in the rows, and keys that identify their tokens.

A token of a causal model does not see what follows it. The states of a prompt therefore hold for every response to it,
and those of a response for every beginning of it. A token of an encoder sees its whole row, so that its segment is the
prompt with the response.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from headwater.data.tokens import Ids, PairTokens
from headwater.forward.packing import PairBatch


class Segment(NamedTuple):
    """Tokens whose states are stored together."""

    key: bytes
    places: NDArray[np.int64]
    """Where its states stand in the rows of a batch, counted over all rows."""


class Wanted(NamedTuple):
    """A segment of a pair, and how many states it has."""

    key: bytes
    tokens: int


@dataclass(frozen=True, slots=True)
class Cutting:
    """How the rows of a model are divided into segments."""

    causal: bool
    prompts: bool = True
    """Whether what lies behind the frozen layers of a causal model reads the states of prompts."""
    first_only: bool = False
    """Whether what lies behind them reads the first token of a row only."""

    def of_pair(self, pair: PairTokens) -> Iterator[Wanted]:
        """Yield the segments of a pair."""
        if self.causal and self.prompts:
            yield Wanted(prompt_key(pair.prompt), len(pair.prompt))
        for response in (pair.chosen, pair.rejected):
            if len(response):
                length = len(response) if self.causal else len(pair.prompt) + len(response)
                yield Wanted(response_key(pair.prompt, response), 1 if self.first_only else length)

    def of_batch(self, batch: PairBatch) -> Iterator[Segment]:
        """Yield the segments of a batch, which may repeat those of other batches and each other."""
        ids = batch["input_ids"].cpu().numpy().astype(np.int32)
        rows, width = ids.shape
        token, position, predictor = (batch[name].cpu().numpy() for name in ("token", "position", "predictor"))
        trees = [tree.length for tree in batch["trees"]]
        starts = np.cumsum([0, *trees[:-1]]) if trees else np.arange(rows) * width
        flat, at, before, end = ids.reshape(-1), position[token], predictor[token], 0
        for length in batch["lengths"].tolist():
            if not length:
                continue
            places, last = at[end : end + length], before[end]
            end += length
            # A response begins behind its prompt, whose last token predicts its first one.
            number = int(np.searchsorted(starts, last, side="right")) - 1
            prompt = np.arange(starts[number], last + 1)
            key = response_key(flat[prompt], flat[places])
            if self.first_only:
                yield Segment(key, np.array([number]))
            elif not self.causal:
                yield Segment(key, np.concatenate([prompt, places]))
            else:
                if self.prompts:
                    yield Segment(prompt_key(flat[prompt]), prompt)
                yield Segment(key, places)


def prompt_key(prompt: Ids) -> bytes:
    """Return the key of a prompt."""
    return xxhash.xxh3_128_digest(b"prompt" + np.ascontiguousarray(prompt, dtype=np.int32).tobytes())


def response_key(prompt: Ids, response: Ids) -> bytes:
    """Return the key of a response to a prompt."""
    ids = np.concatenate([np.array([len(prompt)], dtype=np.int32), prompt, response]).astype(np.int32)
    return xxhash.xxh3_128_digest(ids.tobytes())
