"""Selectors: frozen dataclasses that give every row of a pool a score. To add one, list it in `SELECTORS`.

A selector states what it `needs`, and which end of the ranking its source `takes`. The sources contradict each other
(large margins: arXiv:2510.13022, 2502.14560; small ones: 2508.04149; easy pairs: 2502.09650; random is hard to beat:
2604.02766): compare with `random()` at the same budget.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import ClassVar, Literal, Protocol

import numpy as np

from headwater.data.selection.pool import Pool
from headwater.data.selection.variance import Floats, PairMean, pair_mean, preference_variance
from headwater.errors import DataError, UsageError

Need = Literal["rewards", "implicit", "likelihood", "pairs"]
End = Literal["top", "bottom"]


class Selector(Protocol):
    """Gives rows a score; a frozen dataclass whose fields are its settings."""

    needs: ClassVar[frozenset[Need]]
    """`rewards`, `implicit` rewards, `likelihood`, and `pairs`: that the data says which response is better."""
    takes: ClassVar[End]
    """Which end of the ranking its source keeps."""

    def __call__(self, pool: Pool) -> Floats:
        """Return a number for every row, NaN where it is not defined."""
        ...


def unit_of(pool: Pool, tau: float, scale: str) -> float:
    """Return the difference of rewards that makes a preference of σ(1): τ, or τ standard deviations of all rewards."""
    if scale == "none":
        return tau
    spread = float(np.nanstd(pool.reward, ddof=1)) if np.count_nonzero(~np.isnan(pool.reward)) > 1 else 0.0
    if not spread > 0:
        raise DataError('scale="corpus"', "the rewards do not vary", 'use scale="none"')
    return tau * spread


def _check_temperature(name: str, tau: float, scale: str) -> None:
    if not (tau > 0 and np.isfinite(tau)):
        raise UsageError(f"{name}(tau={tau:g})", "expected a temperature above 0")
    if scale not in ("none", "corpus"):
        raise UsageError(f"{name}(scale={scale!r})", "expected none or corpus")


@dataclass(frozen=True, slots=True)
class PVar:
    """Preference variance (arXiv:2510.13022), by the unbiased U-statistic.

    `tau` is the temperature of the preferences; with `scale="corpus"` it counts in standard deviations of all rewards.
    For differences far below it, PVar is Var(r) / (8 τ²): the ranking is that of reward variance; far above, it
    saturates at ¼ and ties.
    """

    tau: float = 1.0
    scale: str = "none"
    needs: ClassVar[frozenset[Need]] = frozenset({"rewards"})
    takes: ClassVar[End] = "top"

    def __post_init__(self) -> None:
        """Refuse settings that cannot work. Errors: `UsageError`."""
        _check_temperature("pvar", self.tau, self.scale)

    def measured(self, pool: Pool) -> PairMean:
        """Return PVar with its standard error, [rows]."""
        return preference_variance(pool.rewards, pool.offsets, unit_of(pool, self.tau, self.scale))

    def __call__(self, pool: Pool) -> Floats:
        """Return PVar, [rows]."""
        return self.measured(pool).value


@dataclass(frozen=True, slots=True)
class Uncertainty:
    """How undecided the preferences are: ½ − |p − ½|, averaged over the pairs of a prompt's responses.

    Uncertainty sampling of active learning (Lewis and Gale, 1994); 2604.02766 finds it seldom better than random.
    """

    tau: float = 1.0
    scale: str = "none"
    needs: ClassVar[frozenset[Need]] = frozenset({"rewards"})
    takes: ClassVar[End] = "top"

    def __post_init__(self) -> None:
        """Refuse settings that cannot work. Errors: `UsageError`."""
        _check_temperature("uncertainty", self.tau, self.scale)

    def __call__(self, pool: Pool) -> Floats:
        """Return the mean of ½ − |p − ½|, [rows]."""
        unit = unit_of(pool, self.tau, self.scale)
        return pair_mean(lambda half: 0.5 - np.abs(half), pool.rewards, pool.offsets, unit).value


@dataclass(frozen=True, slots=True)
class Random:
    """Any rows: the baseline that is hard to beat (arXiv:2604.02766). Repeat it with several seeds."""

    seed: int = 0
    needs: ClassVar[frozenset[Need]] = frozenset()
    takes: ClassVar[End] = "top"

    def __call__(self, pool: Pool) -> Floats:
        """Return a uniform draw, [rows]."""
        return np.random.default_rng(self.seed).random(len(pool))


@dataclass(frozen=True, slots=True)
class RewardGap:
    """Reward of the best minus that of the worst response, |r₁ − r₂| of a pair (Lin et al., AAAI 2025)."""

    needs: ClassVar[frozenset[Need]] = frozenset({"rewards"})
    takes: ClassVar[End] = "top"

    def __call__(self, pool: Pool) -> Floats:
        """Return the gap, [rows]."""
        return pool.widest(pool.reward)


@dataclass(frozen=True, slots=True)
class ImplicitGap:
    """Implicit margin of a pair, β (Δ_chosen − Δ_rejected), smallest first (arXiv:2508.04149).

    It has a sign, so that its bottom end begins with pairs that the policy orders against their label.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"implicit", "pairs"})
    takes: ClassVar[End] = "bottom"

    def __call__(self, pool: Pool) -> Floats:
        """Return the margin, averaged over the models that scored the row, [rows]."""
        return _mean_of_known(_margins(pool, pool.implicit))


@dataclass(frozen=True, slots=True)
class HeldOutLoss:
    """DPO loss of a pair under models that were not trained on it, easiest first (SelectiveDPO, arXiv:2502.09650).

    Name as --implicit one `evaluate` run of each model: `evaluate` leaves out what a model was trained on, so that the
    models trained on one half of the data score the other.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"implicit", "pairs"})
    takes: ClassVar[End] = "bottom"

    def __call__(self, pool: Pool) -> Floats:
        """Return −log σ(margin), averaged over the models that scored the row, [rows]."""
        with np.errstate(invalid="ignore"):  # NaN where a model did not score a row
            losses = np.logaddexp(0, -_margins(pool, pool.implicit))
        return _mean_of_known(losses)


@dataclass(frozen=True, slots=True)
class DualMargin:
    """External and implicit margins of a pair joined as probabilities (BeeS, arXiv:2502.14560), positive ones only.

    p = (clip(m, low, U) − low) / (U − low) for each, and p₁p₂ / (p₁p₂ + (1 − p₁)(1 − p₂)). U is the largest margin
    divided by 1.5 (external) or 2 (implicit), raised until fewer than `TAIL` margins lie above it.
    """

    low: float = -2.0
    needs: ClassVar[frozenset[Need]] = frozenset({"rewards", "implicit", "pairs"})
    takes: ClassVar[End] = "top"
    TAIL: ClassVar[int] = 30

    def __post_init__(self) -> None:
        """Refuse settings that cannot work. Errors: `UsageError`."""
        if not (np.isfinite(self.low) and self.low <= 0):
            raise UsageError(f"dual_margin(low={self.low:g})", "expected a margin of 0 or less")

    def __call__(self, pool: Pool) -> Floats:
        """Return the joint probability, NaN where a margin is not positive, [rows]."""
        external = _margins(pool, pool.rewards).mean(axis=0)
        implicit = _mean_of_known(_margins(pool, pool.implicit))
        first, second = self._probability(external, 1.5), self._probability(implicit, 2.0)
        both, neither = first * second, (1 - first) * (1 - second)
        positive = (external > 0) & (implicit > 0)  # so that no probability is 0 where the other is 1
        joined: Floats = np.divide(both, both + neither, out=np.full(len(pool), np.nan), where=positive)
        return joined

    def _probability(self, margins: Floats, divisor: float) -> Floats:
        known = np.sort(margins[~np.isnan(margins)])[::-1]
        largest = float(known[0]) if len(known) else float("nan")
        high = largest / divisor
        if len(known) >= self.TAIL:
            high = max(high, float(known[self.TAIL - 1]))
        if not high > max(self.low, 0.0):
            raise DataError("dual_margin", f"the largest margin is {largest:g}", "expected positive margins")
        return (np.clip(margins, self.low, high) - self.low) / (high - self.low)


@dataclass(frozen=True, slots=True)
class Likelihood:
    """How likely a policy is to write the responses: their mean log-probability, likeliest first.

    As `score --value log_prob` (summed over tokens) or `mean_log_prob` recorded it. WPO (arXiv:2406.11827) weights a
    pair by it, so that the pairs that a policy would write itself count; the bottom end is what is new to it.
    """

    needs: ClassVar[frozenset[Need]] = frozenset({"likelihood"})
    takes: ClassVar[End] = "top"

    def __call__(self, pool: Pool) -> Floats:
        """Return the mean over a row's responses, and over the policies that scored it, [rows]."""
        known = ~np.isnan(pool.likelihood)
        starts = pool.offsets[:-1]
        sums, counts = (np.add.reduceat(each, starts, axis=1) for each in (np.nan_to_num(pool.likelihood), known * 1))
        means = np.divide(sums, counts, out=np.full(sums.shape, np.nan), where=counts > 0)
        return _mean_of_known(means)


@dataclass(frozen=True, slots=True)
class LengthGap:
    """Length of the longest minus that of the shortest response, smallest first: pairs that length cannot decide."""

    needs: ClassVar[frozenset[Need]] = frozenset()
    takes: ClassVar[End] = "bottom"

    def __call__(self, pool: Pool) -> Floats:
        """Return the gap, [rows]."""
        return pool.widest(pool.lengths.astype(np.float64))


def _margins(pool: Pool, rewards: Floats) -> Floats:
    """Return chosen minus rejected of pairs, [models, rows]."""
    return np.asarray(rewards[:, 0::2] - rewards[:, 1::2], dtype=np.float64)


def _mean_of_known(values: Floats) -> Floats:
    """Average `values` [models, rows] over the models that have one; NaN where none has."""
    known = ~np.isnan(values)
    counts = known.sum(axis=0)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.where(counts > 0, total / np.maximum(counts, 1), np.nan)


def lacking(selector: Selector, pool: Pool) -> Need | None:
    """Return what a selector needs and the pool does not have; None where nothing is missing."""
    if "pairs" in selector.needs and not pool.paired:
        return "pairs"
    if "rewards" in selector.needs and np.isnan(pool.reward).all():
        return "rewards"
    if "likelihood" in selector.needs and np.isnan(pool.likelihood).all():
        return "likelihood"
    return "implicit" if "implicit" in selector.needs and np.isnan(pool.implicit).all() else None


def alternatives(selector: Selector, pool: Pool, models: Sequence[str]) -> Iterator[tuple[str, Selector, Pool]]:
    """Yield what to compare a selector with, and the pool that each one sees.

    All others that the pool serves, at their defaults; and the selector itself under each of several `models` alone.
    A random draw is left out: what it shares with a choice by chance is known.
    """
    for name, kind in SELECTORS.items():
        if kind not in (type(selector), Random) and lacking(kind(), pool) is None:
            yield name, kind(), pool
    if len(models) > 1 and "rewards" in selector.needs:
        for model, rewards in zip(models, pool.rewards, strict=True):
            yield f"the same, by {model} alone", selector, replace(pool, rewards=rewards[None])


SELECTORS: dict[str, type[Selector]] = {
    "pvar": PVar,
    "random": Random,
    "reward_gap": RewardGap,
    "implicit_gap": ImplicitGap,
    "dual_margin": DualMargin,
    "held_out_loss": HeldOutLoss,
    "uncertainty": Uncertainty,
    "likelihood": Likelihood,
    "length_gap": LengthGap,
}
