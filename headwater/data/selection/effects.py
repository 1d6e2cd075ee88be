"""Effects of a selection on the data, and agreement of selectors, with intervals."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

import numpy as np

from headwater import statistics
from headwater.data.selection.pool import Pool
from headwater.data.selection.variance import Floats, Ints
from headwater.statistics import Estimate

BLOCKS = 10_000
"""Most clusters of the bootstrap. More conversations are assigned to this many blocks at random, which changes the
width of intervals by about 1 % and bounds the cost."""


class Effect(NamedTuple):
    """A mean over all rows and over those taken."""

    all: Estimate
    taken: Estimate


class Agreement(NamedTuple):
    """Comparison of another selector with the one that chose, on the rows that both score."""

    other: str
    correlation: Estimate
    """Spearman's rank correlation of the two scores."""
    overlap: Estimate
    """Share of the rows taken that the other one would have taken too."""
    chance: float
    """Expected overlap of two unrelated choices."""


def blocks(conversation_ids: Sequence[str]) -> list[str]:
    """Return the block of every row: rows that share a conversation share a block, [rows]."""
    if len(set(conversation_ids)) <= BLOCKS:
        return list(conversation_ids)
    names = [str(number) for number in range(BLOCKS)]
    return [names[int(conversation_id, 16) % BLOCKS] for conversation_id in conversation_ids]


def effects(pool: Pool, columns: Mapping[str, Floats], taken: Ints, seed: int) -> dict[str, Effect]:
    """Compare the mean of every column [rows] over all rows and over those taken; rows with NaN are left out."""
    clusters = np.array(blocks(pool.conversation_ids))

    def mean(values: Floats, rows: Ints) -> Estimate:
        rows = rows[~np.isnan(values[rows])]
        return statistics.mean(values[rows], clusters[rows].tolist(), seed)

    every = np.arange(len(pool))
    return {name: Effect(mean(values, every), mean(values, taken)) for name, values in columns.items()}


def columns_of(pool: Pool) -> dict[str, Floats]:
    """Return lengths and reward gaps, which a selection may change unintentionally, [rows] each."""
    lengths = pool.lengths.astype(np.float64)
    starts, counts = pool.offsets[:-1], np.diff(pool.offsets)
    found = {f"response_{pool.unit}": np.add.reduceat(lengths, starts) / counts}
    if pool.paired:
        found[f"chosen_minus_rejected_{pool.unit}"] = lengths[0::2] - lengths[1::2]
    gap = pool.widest(pool.reward)
    return found | ({"reward_gap": gap} if not np.isnan(gap).all() else {})


def by_source(pool: Pool, taken: Ints) -> dict[str, tuple[int, int]]:
    """Return how many rows each source has, and how many of them were taken; the largest source first."""
    chosen = Counter(pool.sources[row] for row in taken)
    return {source: (count, chosen[source]) for source, count in Counter(pool.sources).most_common()}


def agreement(
    pool: Pool, other: str, scores: Floats, others: Floats, taken: Ints, also_taken: Ints, seed: int
) -> Agreement:
    """Compare two selectors by their scores [rows] and by the rows that each takes."""
    clusters = np.array(blocks(pool.conversation_ids))
    both = np.flatnonzero(~np.isnan(scores) & ~np.isnan(others))
    shared = np.isin(taken, also_taken).astype(np.float64)
    return Agreement(
        other,
        statistics.correlation(ranks(scores[both]), ranks(others[both]), clusters[both].tolist(), seed),
        statistics.mean(shared, clusters[taken].tolist(), seed),
        len(also_taken) / len(pool),
    )


def ranks(values: Floats) -> Floats:
    """Return the rank of every value from 1; equal values share the mean of their ranks."""
    _, place, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return np.asarray((last - (counts - 1) / 2)[place], dtype=np.float64)


class MeasuredGradient(Protocol):
    """A measured gradient norm with its bound and the score of a selector, such as `results.selection.GradientRow`."""

    @property
    def norm(self) -> float: ...  # noqa: D102
    @property
    def bound(self) -> float: ...  # noqa: D102
    @property
    def score(self) -> float | None: ...  # noqa: D102
    @property
    def opening(self) -> str: ...  # noqa: D102


def gradient_figures(rows: Sequence[MeasuredGradient], seed: int) -> dict[str, Estimate]:
    """Return the rank correlations of measured gradient norms with the bound and with the score of a selector.

    Rows without a score, or whose bound is 0, are left out; {} where none stays. Correlations are Spearman's.
    """
    known = [row for row in rows if row.bound > 0 and row.score is not None]
    if not known:
        return {}
    norm, bound, score = (np.array([getattr(row, name) for row in known]) for name in ("norm", "bound", "score"))
    clusters = [row.opening for row in known]
    found = {"gradient_over_bound": statistics.mean(norm / bound, clusters, seed)}
    for name, values in (("bound", bound), ("score", score)):
        rank = statistics.correlation(ranks(values), ranks(norm), clusters, seed)
        found[f"gradient_rank_correlation_with_{name}"] = rank
    return found
