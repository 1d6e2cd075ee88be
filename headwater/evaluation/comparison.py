"""Figures of rewards on pairs: accuracy, means, spread and margin, accuracy in groups, and another model's accuracy.

Every figure has n and a bootstrap interval over conversations. A tie, in rewards or in lengths, counts ½.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.stats

from headwater import noninferiority, statistics
from headwater.evaluation.calibration import brier
from headwater.results.evaluation import BaselineComparison, EvaluationFigures, Group
from headwater.statistics import Estimate, Floats

GROUPS = 5
"""Number of groups of about equal size into which pairs are sorted, by length difference or by margin."""


def summarise_rewards(
    rewards: Floats, lengths: Floats, conversation_ids: Sequence[str], seed: int
) -> EvaluationFigures:
    """Return the figures of rewards [pairs, 2] of chosen and rejected responses of `lengths` [pairs, 2] tokens.

    Mean and standard deviation (ddof = 1) are pooled over chosen and rejected, as align-anything prints them.
    The baseline that a model has to beat is the better of always preferring the longer response, `length_accuracy`,
    and always the shorter one; `length_gain` is how far it is above that. `length_correlation` is 0 for a model whose
    rewards do not depend on length. Intervals are bootstrapped over `conversation_ids` [pairs].
    """
    chosen, rejected = rewards.T
    won, longer = wins(chosen, rejected), wins(*lengths.T)
    by_length: Floats = longer if longer.sum() >= len(longer) / 2 else 1 - longer
    pooled, twice = rewards.T.reshape(-1), [*conversation_ids, *conversation_ids]
    return EvaluationFigures(
        accuracy=statistics.mean(won, conversation_ids, seed),
        length_accuracy=statistics.mean(longer, conversation_ids, seed),
        length_gain=noninferiority.paired(won, by_length, conversation_ids, seed=seed).difference,
        length_correlation=length_correlation(rewards, lengths, conversation_ids, seed),
        margin_mean=statistics.mean(chosen - rejected, conversation_ids, seed),
        reward_mean=statistics.mean(pooled, twice, seed),
        reward_std=statistics.std(pooled, twice, seed),
        chosen_reward_mean=statistics.mean(chosen, conversation_ids, seed),
        rejected_reward_mean=statistics.mean(rejected, conversation_ids, seed),
        brier=brier(chosen - rejected, conversation_ids, seed),
    )


def wins(chosen: Floats, rejected: Floats) -> Floats:
    """Return 1 where chosen is above rejected, ½ where they tie, 0 elsewhere, [pairs]."""
    return (np.sign(chosen - rejected) + 1) / 2


def length_correlation(rewards: Floats, lengths: Floats, conversation_ids: Sequence[str], seed: int) -> Estimate:
    """Return Pearson's correlation of reward and length [pairs, 2], each less the mean of its pair."""
    within = [(values - values.mean(axis=1, keepdims=True)).T.reshape(-1) for values in (rewards, lengths)]
    return statistics.correlation(within[0], within[1], [*conversation_ids, *conversation_ids], seed)


def accuracy_by(values: Floats, won: Floats, conversation_ids: Sequence[str], seed: int) -> list[Group]:
    """Return the mean of `won` [pairs] in groups of rising `values` [pairs]; equal values share a group."""
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


def compare(name: str, won: Floats, theirs: Floats, conversation_ids: Sequence[str], seed: int) -> BaselineComparison:
    """Compare a model with the model `name`, by what each `won` of the same pairs: 1, ½ or 0, [pairs]."""
    better, worse = int((won > theirs).sum()), int((won < theirs).sum())
    p_value = float(scipy.stats.binomtest(better, better + worse).pvalue) if better + worse else 1.0
    difference = noninferiority.paired(won, theirs, conversation_ids, seed=seed).difference
    return BaselineComparison(name, float(theirs.mean()), difference, better, worse, p_value)
