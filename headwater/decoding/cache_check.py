"""Whether rows that are read on from a shared cache say what each says when it is read anew and alone.

A cache may hold what cannot be cut back (a state), what padding changes, or keys that were made for a shorter text (a
rotary embedding that changes at some length). A short script of rows that begin, go on, are cut back and are joined is
played through the reader, and all of it is compared with forwards of one text each. A model that fails is read anew for
every token: slower, and right.
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
from headwater.forward.hidden_states import base_of
from headwater.rewards.generation import FURTHER, SHORT


def settle(reader: CachedModel, longest: int) -> None:
    """Let a reader of rows of up to `longest` tokens go on from its cache where that is right, and say where not."""
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
    """Yield what a reader says of rows that begin, go on, are cut back, leave and join: a row, and its last logits."""
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
