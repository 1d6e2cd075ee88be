"""Check that rows continued from a shared cache get the logits of separate forward passes.

A cache may hold what cannot be cut back (a recurrent state), what padding changes, or keys that were computed for a
shorter text (a rotary embedding that changes at some length). A short script starts rows, continues them, cuts them
back and joins them, and all logits are compared with forward passes of one text each. A model that fails the check is
read from the beginning for every token: slower, and correct.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from headwater.console import say
from headwater.decoding.cached_model import CachedModel
from headwater.forward import alone
from headwater.forward.check_sample import limits_of, ordinary_ids
from headwater.forward.format_check import attend_as_it_came, checked, reached
from headwater.models.parts import base_of
from headwater.rewards.generation import FURTHER, SHORT


def settle(reader: CachedModel, longest: int) -> None:
    """Allow a model to continue rows of up to `longest` tokens from its cache, or print why it cannot."""
    model = reader.model
    attend_as_it_came(model)
    found, limits = checked(model), limits_of(base_of(model).config)
    before, problem = found.cached.get("rows", (0, ""))
    if not problem and reached(before, longest, limits):
        problem = alone.differs(model, _script(model, [limit for limit in limits if FURTHER < limit < longest]))
        found.cached["rows"] = (longest, problem)
    reader.anew = bool(problem)
    line = f"decoding: {type(base_of(model)).__name__} reads every text anew for each token, slower (cache: {problem})"
    if problem and line not in found.said:
        found.said.add(line)
        say(line)


@dataclass(eq=False)
class _Text:
    ids: list[int]
    prompt: Sequence[int] = field(default_factory=list)


def _script(model: Any, limits: Sequence[int]) -> Iterator[alone.Reading]:
    """Yield pairs of a row and its last logits, while rows start, continue, are cut back, leave and join."""
    rng, (ids, _) = np.random.default_rng(0), ordinary_ids(model)

    def draw(size: int) -> list[int]:
        return [int(token) for token in rng.choice(ids, size)]

    prompts = [draw(size) for size in (*SHORT, *(limit - FURTHER for limit in limits))]
    rows = [_Text(list(prompt), prompt) for prompt in prompts]
    reader = CachedModel(model)

    def read(rows: Sequence[_Text], last: Sequence[int]) -> Iterator[alone.Reading]:
        yield from zip([list(row.ids) for row in rows], reader.read(rows, last), strict=True)

    yield from read(rows, [1] * len(rows))
    for row in rows:
        row.ids += draw(1)
    yield from read(rows, [1] * len(rows))
    sizes = [2 + place % 4 for place in range(len(rows))]
    for row, size in zip(rows, sizes, strict=True):
        row.ids += draw(size)
    yield from read(rows, sizes)
    rows[0].ids[-2:] = draw(1)
    rows[2].ids += draw(2)
    yield from read(rows, [1] * len(rows))
    joined = _Text([*rows[0].prompt, *draw(2)], rows[0].prompt)
    yield from read([rows[1], rows[2], joined], [1, 1, 1])
