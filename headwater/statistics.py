"""Estimates with bootstrap intervals, from plain arrays.

Intervals are percentile bootstrap intervals over **clusters** (prompts), because two pairs that share a prompt are
not independent observations. The same seed gives the same interval on any machine and thread count.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

RESAMPLES = 2000
LEVEL = 0.95
KEPT_DRAWS = 2**22
"""Largest table of resamples that is kept for the next statistic of the same rows: 16 MiB."""


class Estimate(NamedTuple):
    """A figure with its `level` interval; `low` and `high` are None when fewer than two clusters were seen."""

    value: float
    low: float | None
    high: float | None
    n: int
    clusters: int

    def interval(self) -> str:
        """Return the interval as text, or why there is none."""
        return "n too small" if self.low is None else f"[{self.low:.4f}, {self.high:.4f}]"


def widened(found: Estimate, span: float) -> Estimate:
    """Return an estimate of a mean whose interval also holds what few clusters cannot show.

    `span` is the range of a value: 2 for differences of wins, 1 for shares. Where all values are equal, a bootstrap
    gives no interval at all; two more clusters, one at each end of the range, would give one of ±1.96 · span ·
    √½ / (clusters + 2), and that much is added to the interval in squares (after Bonett and Price 2012,
    J. Educ. Behav. Stat. 37, for the difference of paired proportions).
    """
    if found.low is None or found.high is None:
        return found
    more = 1.959964 * span * 0.5**0.5 / (found.clusters + 2)
    low = found.value - float(np.hypot(found.value - found.low, more))
    high = found.value + float(np.hypot(found.high - found.value, more))
    bottom, top = (-1.0, 1.0) if span == 2 else (0.0, 1.0)
    return found._replace(low=max(bottom, low), high=min(top, high))


def mean(values: Sequence[float] | Floats, clusters: Sequence[str], seed: int = 0) -> Estimate:
    """Mean of `values` [n], with a bootstrap interval clustered by `clusters` [n]."""
    x = np.asarray(values, dtype=np.float64)
    return _clustered([x, np.ones_like(x)], clusters, lambda total, count: total / count, seed)


def crossed_mean(values: Floats, clusters: Sequence[str], seed: int = 0) -> Estimate:
    """Mean of `values` [repeats, n], of rows that are measured in repeats such as seeds; NaN where a row was not.

    The interval draws repeats and `clusters` [n] of rows with replacement, each independently, so that it holds for
    other repeats and for other rows (the pigeonhole bootstrap, Owen 2007, arXiv:0712.1111). With one repeat it is that
    of `mean`; with two or three it is too narrow in repeats, by a factor of √(1 − 1 / repeats). n counts rows.
    """
    known = np.isfinite(values)
    some = known.any(axis=0)
    values, known, clusters = values[:, some], known[:, some], np.asarray(clusters)[some].tolist()
    if not len(clusters):
        return Estimate(float("nan"), None, None, 0, 0)
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    count, repeats = int(index.max()) + 1, len(values)
    rows = [np.where(known, values, 0.0), known.astype(np.float64)]
    total, n = (np.stack([np.bincount(index, weights=one, minlength=count) for one in part]) for part in rows)
    value = float(total.sum() / n.sum())
    if count < 2:
        return Estimate(value, None, None, len(clusters), count)
    generator = np.random.default_rng([seed, repeats])
    drawn = []
    for weights in _draws(count, seed, RESAMPLES):
        times = generator.multinomial(repeats, np.full(repeats, 1 / repeats))
        drawn.append(_ratio(float(times @ (total @ weights)), float(times @ (n @ weights))))
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.nanpercentile(drawn, [tail, 100 - tail])
    return Estimate(value, float(low), float(high), len(clusters), count)


def _ratio(total: float, count: float) -> float:
    """Return a mean; NaN for a resample that drew no row that its repeats measured."""
    return total / count if count else float("nan")


def over_repeats(values: Sequence[float]) -> Estimate:
    """Mean of one figure a repeat with Student's interval; n and clusters count repeats, one has no interval."""
    from scipy.stats import t

    n, value = len(values), float(np.mean(values)) if len(values) else float("nan")
    if n < 2:
        return Estimate(value, None, None, n, n)
    reach = float(t.ppf((1 + LEVEL) / 2, n - 1) * np.std(values, ddof=1) / np.sqrt(n))
    return Estimate(value, value - reach, value + reach, n, n)


def weighted_mean(values: Floats, weights: Floats, clusters: Sequence[str], seed: int = 0) -> Estimate:
    """Mean of `values` [n] by `weights` [n], with a bootstrap interval clustered by `clusters` [n]."""
    return _clustered([values * weights, weights], clusters, lambda total, weight: total / weight, seed)


def kappa(first: Sequence[int], second: Sequence[int], clusters: Sequence[str], seed: int = 0) -> Estimate:
    """Cohen's κ of two raters' categories [n], with an interval clustered by `clusters` [n] (Cohen, 1960).

    It is NaN where chance alone would agree on everything: one category, used by both.
    """
    names = sorted({*first, *second})
    a, b = np.array(first), np.array(second)
    cells = [((a == x) & (b == y)).astype(np.float64) for x in names for y in names]

    def agreement(*sums: Floats) -> Floats:
        table = np.stack(sums).reshape(len(names), len(names), -1)
        total = table.sum(axis=(0, 1))
        observed = np.trace(table) / total
        expected = (table.sum(axis=0) * table.sum(axis=1)).sum(axis=0) / total**2
        # A resample in which both raters use a single category has no κ, and is left out of the percentiles.
        with np.errstate(invalid="ignore", divide="ignore"):
            found: Floats = (observed - expected) / (1 - expected)
            return found

    if len(names) < 2:
        return Estimate(float("nan"), None, None, len(a), len(set(clusters)))
    return _clustered(cells, clusters, agreement, seed)


def resamples(clusters: Sequence[str], seed: int = 0, count: int = RESAMPLES) -> Iterator[Floats]:
    """Yield `count` times how often each of n rows is drawn, [n], when whole clusters are drawn with replacement."""
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    for weights in _draws(int(index.max()) + 1, seed, count):
        yield weights[index].astype(np.float64)


def area_under_curve(positive: Floats, negative: Floats) -> float:
    """Area under the ROC curve: the share of pairs with a `positive` [n] above a `negative` [m], ties counting ½.

    It is NaN where either is empty.
    """
    if not len(positive) or not len(negative):
        return float("nan")
    below = np.sort(negative)
    wins = np.searchsorted(below, positive, "left") + np.searchsorted(below, positive, "right")
    return float(wins.mean() / (2 * len(below)))


def auc(values: Floats, positive: NDArray[np.bool_], clusters: Sequence[str], seed: int = 0) -> Estimate:
    """`area_under_curve` of the `values` [n] that are `positive` [n] against the others.

    The interval is clustered by `clusters` [n]. It is NaN where either kind is missing.
    """
    if positive.all() or not positive.any():
        return Estimate(float("nan"), None, None, len(values), len(set(clusters)))
    _, tie = np.unique(values, return_inverse=True)

    def area(weights: Floats) -> float:
        above, below = (np.bincount(tie, weights * kind) for kind in (positive, ~positive))
        pairs = above.sum() * below.sum()  # none in a resample without one of the kinds
        return float(above @ (below.cumsum() - below / 2) / pairs) if pairs else float("nan")

    value, count = area(np.ones(len(values))), len(set(clusters))
    if count < 2:
        return Estimate(value, None, None, len(values), count)
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.nanpercentile([area(drawn) for drawn in resamples(clusters, seed)], [tail, 100 - tail])
    return Estimate(value, float(low), float(high), len(values), count)


def std(values: Sequence[float] | Floats, clusters: Sequence[str], seed: int = 0) -> Estimate:
    """Standard deviation (ddof = 1) of `values` [n], with a bootstrap interval clustered by `clusters` [n]."""
    x = np.asarray(values, dtype=np.float64)
    centred = x - x.mean() if len(x) else x  # moments about the mean: no cancellation for rewards far from 0

    def spread(total: Floats, squares: Floats, count: Floats) -> Floats:
        # The standard deviation of a resample with a single row is undefined, and left out of the percentiles.
        with np.errstate(invalid="ignore", divide="ignore"):
            return np.sqrt(np.maximum(squares - total**2 / count, 0.0) / (count - 1))

    return _clustered([centred, centred**2, np.ones_like(x)], clusters, spread, seed)


def correlation(x: Floats, y: Floats, clusters: Sequence[str], seed: int = 0) -> Estimate:
    """Pearson's correlation of `x` and `y` [n] (of ranks: Spearman's), with an interval clustered by `clusters` [n].

    It is NaN where either does not vary. Ranks are not ranked again within a resample.
    """
    x, y = (v - v.mean() if len(v) else v for v in (x, y))

    def pearson(x: Floats, y: Floats, xx: Floats, yy: Floats, xy: Floats, count: Floats) -> Floats:
        # The correlation of a resample with a single value is undefined, and left out of the percentiles.
        with np.errstate(invalid="ignore", divide="ignore"):
            spread = np.sqrt(np.maximum(xx - x**2 / count, 0.0) * np.maximum(yy - y**2 / count, 0.0))
            found: Floats = (xy - x * y / count) / spread
            return found

    if not (x.any() and y.any()):
        return Estimate(float("nan"), None, None, len(x), len(set(clusters)))
    return _clustered([x, y, x**2, y**2, x * y, np.ones_like(x)], clusters, pearson, seed)


def of_sums(
    columns: Sequence[Floats], statistic: Callable[..., Floats], clusters: Sequence[str], seed: int = 0
) -> Estimate:
    """Any statistic of the sums of k `columns` [n] each, with an interval clustered by `clusters` [n].

    `statistic` maps k arrays of sums [resamples] to values [resamples]; those that are NaN are left out.
    """
    return _clustered(list(columns), clusters, statistic, seed)


def _clustered(columns: list[Floats], clusters: Sequence[str], statistic: Callable[..., Floats], seed: int) -> Estimate:
    """Bootstrap a statistic of column sums by drawing whole clusters with replacement.

    `columns` are k arrays [n]; `statistic` maps k arrays of sums [resamples] to values [resamples].
    """
    n = len(columns[0])
    if len(clusters) != n:
        raise ValueError(f"{n} values but {len(clusters)} cluster labels")
    if n == 0:
        return Estimate(float("nan"), None, None, 0, 0)
    _, index = np.unique(np.asarray(clusters), return_inverse=True)
    count = int(index.max()) + 1
    sums = np.stack([np.bincount(index, weights=column, minlength=count) for column in columns]).astype(np.float64)
    value = float(statistic(*sums.sum(axis=1, keepdims=True))[0])
    if count < 2:
        return Estimate(value, None, None, n, count)
    resampled = statistic(*_resampled_sums(sums, seed).T)
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.nanpercentile(resampled, [tail, 100 - tail])
    return Estimate(value, float(low), float(high), n, count)


def _resampled_sums(sums: Floats, seed: int) -> Floats:
    """Draw clusters with replacement; `sums` [k, clusters] gives [resamples, k]. Memory stays at one draw."""
    drawn = np.empty((RESAMPLES, sums.shape[0]))
    for row, weights in enumerate(_draws(sums.shape[1], seed, RESAMPLES)):
        drawn[row] = sums @ weights
    return drawn


def _draws(clusters: int, seed: int, resamples: int) -> Iterator[NDArray[np.int64]]:
    """Yield how often each cluster is drawn, [clusters]; the same seed gives the same draws to every statistic."""
    if clusters * resamples <= KEPT_DRAWS:
        yield from (row.astype(np.int64) for row in _kept_draws(clusters, seed, resamples))
        return
    generator = np.random.default_rng(seed)
    for _ in range(resamples):
        yield np.bincount(generator.integers(0, clusters, clusters), minlength=clusters)


@functools.lru_cache(maxsize=2)
def _kept_draws(clusters: int, seed: int, resamples: int) -> NDArray[np.uint32]:
    """Return the draws as one table, [resamples, clusters]: a run has dozens of statistics of the same rows."""
    generator = np.random.default_rng(seed)
    drawn = np.empty((resamples, clusters), dtype=np.uint32)
    for row in drawn:
        row[:] = np.bincount(generator.integers(0, clusters, clusters), minlength=clusters)
    return drawn
