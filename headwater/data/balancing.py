"""Balance pairs by length, so that the preferred response is the longer one as often as the shorter one.

Otherwise length predicts the preference, and a reward model learns to use it. Pairs of the more frequent kind are left
out at random until both are equally many; pairs of equal length stay.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from headwater.data.reading import RowCounts
from headwater.data.tokens import PairTokens
from headwater.errors import DataError


class Balanced(NamedTuple):
    """The remaining pairs, in order, and the number left out, by which response was preferred."""

    pairs: list[PairTokens]
    row_counts: RowCounts


def balanced_by_length(pairs: Sequence[PairTokens], seed: int) -> Balanced:
    """Leave out surplus pairs, by lengths in tokens. Errors: `DataError` where one kind is missing."""
    longer = np.array([pair.scored[0] - pair.scored[1] for pair in pairs])
    kinds = {"preferred_longer": np.flatnonzero(longer > 0), "preferred_shorter": np.flatnonzero(longer < 0)}
    size = min(map(len, kinds.values()))
    if not size:
        missing = next(name for name, rows in kinds.items() if not len(rows)).replace("_", " ")
        raise DataError(f"{len(pairs)} training pairs", f"none has the {missing}", "train without --length-balanced")
    random = np.random.default_rng(seed)
    left_out: set[int] = set()
    row_counts = RowCounts(rows_in=len(pairs))
    for name, rows in kinds.items():
        surplus = random.permutation(rows)[size:]
        left_out.update(surplus.tolist())
        if len(surplus):
            row_counts.dropped[name] = len(surplus)
    kept = [pair for place, pair in enumerate(pairs) if place not in left_out]
    row_counts.kept = len(kept)
    return Balanced(kept, row_counts)
