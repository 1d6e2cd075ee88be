"""One set of bootstrap resamples for everything that is measured on the same pairs.

Every curve, control and group sees the same resamples of whole clusters (prompts), so the difference of two of them
is a paired one. The resamples are those of `headwater.statistics`: an interval here is the interval there.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from headwater.statistics import LEVEL, RESAMPLES, Estimate, Floats

CELLS = 4_000_000
"""Counts held at a time (32 MB): memory does not grow with resamples × clusters."""


@dataclass(frozen=True)
class Means:
    """k means or ratios of sums, and the same in every resample."""

    value: Floats  # [k]
    draws: Floats  # [resamples, k]; NaN where a resample holds no outcome of the row
    n: NDArray[np.int64]  # [k] rows that count
    clusters: NDArray[np.int64]  # [k] clusters that hold any

    def estimates(self) -> list[Estimate]:
        """Return each mean with its percentile interval; None for bounds where there are fewer than two clusters."""
        return [self._estimate(row) for row in range(len(self.value))]

    def _estimate(self, row: int) -> Estimate:
        n, clusters, value = int(self.n[row]), int(self.clusters[row]), float(self.value[row])
        if clusters < 2:
            return Estimate(value, None, None, n, clusters)
        tail = 100 * (1 - LEVEL) / 2
        low, high = np.nanpercentile(self.draws[:, row], [tail, 100 - tail])
        return Estimate(value, float(low), float(high), n, clusters)


class Bootstrap:
    """Draws clusters with replacement; the same seed gives the same resamples on any machine."""

    def __init__(self, clusters: Sequence[str], seed: int) -> None:
        names, index = np.unique(np.asarray(clusters), return_inverse=True)
        self._clusters, self._seed = len(names), seed
        self._order = np.argsort(index, kind="stable")
        self._starts = np.searchsorted(index[self._order], np.arange(len(names)))

    def means(self, outcomes: Floats) -> Means:
        """Return the means of `outcomes` [k, rows]; NaN marks what does not belong to a mean."""
        counted = ~np.isnan(outcomes)
        return self.ratios(np.where(counted, outcomes, 0.0), counted.astype(np.float64))

    def ratios(self, numerators: Floats, denominators: Floats) -> Means:
        """Return sums of `numerators` over sums of `denominators`, both [k, rows]; n counts denominators above 0."""
        above, below = self._by_cluster(numerators), self._by_cluster(denominators)
        with np.errstate(invalid="ignore", divide="ignore"):  # nothing below, in all or in a resample of it
            value = above.sum(axis=1) / below.sum(axis=1)
            draws = np.concatenate([(counts @ above.T) / (counts @ below.T) for counts in self._counts()])
        return Means(value, draws, (denominators > 0).sum(axis=1), (below > 0).sum(axis=1))

    def _by_cluster(self, rows: Floats) -> Floats:
        """Sum rows [k, pairs] over clusters: [k, clusters]."""
        return np.asarray(np.add.reduceat(rows[:, self._order], self._starts, axis=1))

    def _counts(self) -> Iterator[Floats]:
        """Yield how often every cluster is drawn, [some resamples, clusters], until all resamples are there."""
        generator = np.random.default_rng(self._seed)
        step = max(1, CELLS // self._clusters)
        for start in range(0, RESAMPLES, step):
            rows = min(step, RESAMPLES - start)
            drawn = generator.integers(0, self._clusters, (rows, self._clusters))
            cells = (drawn + self._clusters * np.arange(rows)[:, None]).ravel()
            yield np.bincount(cells, minlength=rows * self._clusters).reshape(rows, -1).astype(np.float64)
