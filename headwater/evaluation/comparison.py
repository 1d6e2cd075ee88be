"""What rewards say about pairs: accuracy, means, spread and margin, where they fail, and who is better at it.

Every figure has n and an interval, bootstrapped over openings. A tie, in rewards or in lengths, counts ½.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.stats

from headwater import statistics
from headwater.evaluation.calibration import brier
from headwater.statistics import Estimate, Floats

GROUPS = 5
"""Pairs are sorted into so many groups of like size, by length difference or by margin."""


def summarise_rewards(
    rewards: Floats, lengths: Floats, conversation_ids: Sequence[str], seed: int
) -> dict[str, Estimate]:
    """Summarise rewards [pairs, 2] of chosen and rejected responses of `lengths` [pairs, 2] tokens.

    Mean and standard deviation (ddof = 1) are pooled over chosen and rejected, as align-anything prints them.
    `length_accuracy` is the accuracy of always preferring the longer response: the ruler to beat. `length_correlation`
    is that of reward and length within pairs: 0 for a model that does not care. Ties count ½. Intervals are
    bootstrapped over `conversation_ids` [pairs].
    """
    chosen, rejected = rewards.T
    pooled, twice = rewards.T.reshape(-1), [*conversation_ids, *conversation_ids]
    return {
        "accuracy": statistics.mean(wins(chosen, rejected), conversation_ids, seed),
        "length_accuracy": statistics.mean(wins(*lengths.T), conversation_ids, seed),
        "length_correlation": length_correlation(rewards, lengths, conversation_ids, seed),
        "margin_mean": statistics.mean(chosen - rejected, conversation_ids, seed),
        "reward_mean": statistics.mean(pooled, twice, seed),
        "reward_std": statistics.std(pooled, twice, seed),
        "chosen_reward_mean": statistics.mean(chosen, conversation_ids, seed),
        "rejected_reward_mean": statistics.mean(rejected, conversation_ids, seed),
        "brier": brier(chosen - rejected, conversation_ids, seed),
    }


def wins(chosen: Floats, rejected: Floats) -> Floats:
    """Return 1 where chosen is above rejected, ½ where they tie, 0 elsewhere, [pairs]."""
    return (np.sign(chosen - rejected) + 1) / 2


def length_correlation(rewards: Floats, lengths: Floats, conversation_ids: Sequence[str], seed: int) -> Estimate:
    """Pearson's correlation of reward and length within pairs [pairs, 2]: of what each has above its pair's mean."""
    within = [(values - values.mean(axis=1, keepdims=True)).T.reshape(-1) for values in (rewards, lengths)]
    return statistics.correlation(within[0], within[1], [*conversation_ids, *conversation_ids], seed)


class Group(NamedTuple):
    """Pairs that lie between two values, both included, and the accuracy on them."""

    low: float
    high: float
    accuracy: Estimate


def accuracy_by(values: Floats, won: Floats, conversation_ids: Sequence[str], seed: int) -> list[Group]:
    """Return the accuracy of `won` [pairs] in groups of rising `values` [pairs]; equal values share a group."""
    edges = np.unique(np.quantile(values, np.linspace(0, 1, GROUPS + 1)[1:-1]))
    place = np.searchsorted(edges, values, side="left")
    groups = []
    for each in np.unique(place):
        inside = place == each
        accuracy = statistics.mean(won[inside], _those(conversation_ids, inside.tolist()), seed)
        groups.append(Group(float(values[inside].min()), float(values[inside].max()), accuracy))
    return groups


def by_who_is_longer(won: Floats, lengths: Floats, conversation_ids: Sequence[str], seed: int) -> dict[str, Estimate]:
    """Return the accuracy where the preferred response is the longer one, the shorter one, or neither."""
    longer = np.sign(lengths[:, 0] - lengths[:, 1])
    sides = {"longer": longer > 0, "shorter": longer < 0, "as_long": longer == 0}
    return {
        name: statistics.mean(won[inside], _those(conversation_ids, inside.tolist()), seed)
        for name, inside in sides.items()
    }


def _those(conversation_ids: Sequence[str], inside: Sequence[bool]) -> list[str]:
    return [conversation_id for conversation_id, there in zip(conversation_ids, inside, strict=True) if there]


class BaselineComparison(NamedTuple):
    """Two models on the same pairs."""

    difference: Estimate
    """Accuracy of the first less that of the second; the bootstrap is paired."""
    only_first: int
    """Pairs that the first judges better than the second."""
    only_second: int
    p_value: float
    """McNemar's exact test of whether these two counts differ (Psychometrika 12, 1947); it takes pairs as independent,
    which the interval does not."""


def compare(first: Floats, second: Floats, conversation_ids: Sequence[str], seed: int) -> BaselineComparison:
    """Compare what two models won [pairs] of the same pairs."""
    better, worse = int((first > second).sum()), int((first < second).sum())
    p_value = float(scipy.stats.binomtest(better, better + worse).pvalue) if better + worse else 1.0
    return BaselineComparison(statistics.mean(first - second, conversation_ids, seed), better, worse, p_value)
