"""Sample pairs for the start-up check (forward/format_check.py): random token ids, and a few pairs of the data."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.data.tokens import PairTokens
from headwater.forward.packing import RowFormat
from headwater.models.parts import base_of

SHAPES = ((7, 5, 9, 2), (3, 1, 4, 0), (12, 8, 2, 1), (1, 6, 3, 0))
"""Numbers of tokens of prompt, chosen and rejected response, and of the common prefix of the responses."""
LEAST = 512
"""Minimum number of tokens of the tested row, where rows of the data may be as long."""
SHARE = 100
"""The tested row has at least 1/SHARE of the tokens of the data, which keeps the check cheap compared with the run."""
CHARACTERS = 256
"""Number of ids to draw from for a model without a vocabulary, which reads characters (CANINE)."""
LIMIT = re.compile("position|window|chunk|block|length|context|local")
"""Names of configuration entries that hold a length at which behaviour may change."""


@dataclass(frozen=True)
class Sample:
    """Pairs that are read in one batch and one by one."""

    short: list[PairTokens]
    """Random ids: sides of different lengths, some with a common prefix."""
    long: list[PairTokens]
    """One pair as long as the longest of the data; empty where the short ones are as long."""
    data: list[PairTokens]
    again: list[int]
    """Indices of pairs that are read a second time, to find state left by earlier texts."""
    row: int
    """Number of tokens of the tested row."""
    ids: NDArray[np.int32]

    @classmethod
    def of(cls, model: Any, pairs: Sequence[PairTokens], longest: int, row: int) -> Sample:
        """Build the sample for a model that is about to read `pairs`."""
        ids, end = ordinary_ids(model)
        rng = np.random.default_rng(0)
        short = [_random_pair(rng, ids, end, shape) for shape in SHAPES]
        long = []
        if longest > max(each.length for each in short):
            prompt = longest // 2
            rest = longest - prompt - 3 - (end is not None)
            # The rejected side is three tokens shorter; both sides exceed every limit that only long texts reach.
            long = [_random_pair(rng, ids, end, (prompt, rest, rest - 3, 3))]
        by_length = sorted(pairs, key=lambda pair: pair.length)
        data = [*by_length[:1], *by_length[len(by_length) // 2 :][:1]]
        data = [pair._replace(chosen_mask=None, rejected_mask=None) for pair in data]  # every token is compared
        again = [0, len(short)] if long and any(limit < longest for limit in limits_of(base_of(model).config)) else [0]
        return cls(short, long, data, again, row, ids)

    @property
    def pairs(self) -> list[PairTokens]:
        """All pairs."""
        return [*self.short, *self.long, *self.data]

    def order(self, row_format: RowFormat) -> list[int]:
        """Return the indices of the pairs in the row: short ones before and behind the long one.

        In packed rows they repeat until the row has as many tokens as rows of the data will have.
        """
        short, rest = list(range(len(self.short))), list(range(len(self.short), len(self.pairs)))
        if row_format == "padded":
            # Every padded row is as wide as the longest, so a few rows suffice.
            return [0, *rest, 1]
        order = [*short[:2], *rest, *short[2:]]
        lengths = [pair.length for pair in self.pairs]
        while sum(lengths[place] for place in order) < self.row:
            order += [*short, *rest[len(self.long) :]]
        return order

    def with_other_beginning(self, pair: PairTokens) -> PairTokens:
        """Return a pair whose prompt has another first token."""
        prompt = pair.prompt.copy()
        prompt[0] = self.ids[(np.flatnonzero(self.ids == prompt[0])[0] + 1) % len(self.ids)]
        return pair._replace(prompt=prompt)

    @staticmethod
    def row_tokens(pairs: Sequence[PairTokens], max_tokens: int, limits: Sequence[int]) -> int:
        """Return the length of the tested row: beyond every limit that rows of `max_tokens` tokens can exceed."""
        total = sum(pair.length for pair in pairs)
        beyond = max((limit + 1 for limit in limits if limit < min(max_tokens, total)), default=0)
        return min(max_tokens, max(beyond, min(LEAST, total), total // SHARE))


def _random_pair(
    rng: np.random.Generator, ids: NDArray[np.int32], end: int | None, shape: tuple[int, int, int, int]
) -> PairTokens:
    prompt, chosen, rejected, common = shape
    draw = [rng.choice(ids, size) for size in (prompt, common, chosen, rejected)]
    sides = [np.concatenate([draw[1], side]) for side in draw[2:]]
    # The sides must differ right after their common prefix, so an equal draw is replaced.
    if draw[2][0] == draw[3][0]:
        sides[1][common] = ids[(np.flatnonzero(ids == draw[3][0])[0] + 1) % len(ids)]
    if end is not None:
        sides = [np.append(side, np.int32(end)) for side in sides]
    return PairTokens(draw[0], sides[0], sides[1], id="check", source="", conversation_id="")


def ordinary_ids(model: Any) -> tuple[NDArray[np.int32], int | None]:
    """Return the token ids of `model` that its configuration gives no special meaning, and its end-of-text id.

    The end-of-text id is None for a model that has none, or that pads with it.
    """
    config = base_of(model).config.get_text_config()
    named = {value for name, value in _numbers(base_of(model).config.to_dict()) if "token_id" in name}
    size = int(getattr(config, "vocab_size", None) or CHARACTERS)
    ids = np.setdiff1d(np.arange(size), list(named)).astype(np.int32)
    ends: Any = getattr(config, "eos_token_id", None)
    end: Any = ends[0] if isinstance(ends, list) and ends else ends
    usable = isinstance(end, int) and 0 <= end < size and end != getattr(config, "pad_token_id", None)
    return (ids if len(ids) > 1 else np.arange(size, dtype=np.int32)), (int(end) if usable else None)


def limits_of(config: Any) -> list[int]:
    """Return the lengths named in a configuration, in rising order."""
    found = {value for name, value in _numbers(config.to_dict()) if LIMIT.search(name) and value > 1}
    return sorted(found)


def _numbers(values: Any, name: str = "") -> Iterator[tuple[str, int]]:
    """Yield the whole numbers of nested settings with their names."""
    if isinstance(values, Mapping):
        for key, value in values.items():
            yield from _numbers(value, str(key))
    elif isinstance(values, list | tuple):
        for value in values:
            yield from _numbers(value, name)
    elif isinstance(values, int) and not isinstance(values, bool):
        yield name, values


def longest_of(pairs: Sequence[PairTokens]) -> int:
    """Return the tokens of the longest response with its prompt."""
    return max((len(pair.prompt) + max(len(pair.chosen), len(pair.rejected)) for pair in pairs), default=0)
