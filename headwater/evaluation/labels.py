"""Figures of rewards on single responses with a label, desirable or undesirable.

Such responses answer prompts of their own, so that no two of them make a pair: there is no accuracy, and no other
figure that compares within pairs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from headwater import statistics
from headwater.results.evaluation import EvaluationFigures
from headwater.statistics import Estimate, Floats


def summarise_labels(
    rewards: Floats, desirable: NDArray[np.bool_], lengths: Floats, conversation_ids: Sequence[str], seed: int
) -> EvaluationFigures:
    """Return the figures of `rewards` [rows] of responses of `lengths` [rows] tokens; `desirable` [rows] are labels.

    `auc` is how often a desirable response is rewarded above an undesirable one, whatever their prompts, ties ½;
    `length_auc`, of taking the longer response, or 1 less it, is the baseline that a model has to beat.
    Figures that need both labels are None where one is missing. Intervals are bootstrapped over `conversation_ids`
    [rows].
    """
    found: dict[str, Estimate] = {}
    if desirable.any() and not desirable.all():
        found["auc"] = statistics.auc(rewards, desirable, conversation_ids, seed)
        found["length_auc"] = statistics.auc(lengths, desirable, conversation_ids, seed)
        found["reward_difference"] = difference(rewards, desirable, conversation_ids, seed)
    found["reward_mean"] = statistics.mean(rewards, conversation_ids, seed)
    found["reward_std"] = statistics.std(rewards, conversation_ids, seed)
    for name, inside in (("desirable", desirable), ("undesirable", ~desirable)):
        if inside.any():
            theirs = [
                conversation_id
                for conversation_id, there in zip(conversation_ids, inside.tolist(), strict=True)
                if there
            ]
            found[f"{name}_reward_mean"] = statistics.mean(rewards[inside], theirs, seed)
    return EvaluationFigures(**found)


def difference(values: Floats, first: NDArray[np.bool_], clusters: Sequence[str], seed: int) -> Estimate:
    """Return the mean of those of `values` [n] that are `first` [n] less that of the others.

    The interval is clustered by `clusters` [n]; resamples without one of the kinds are left out of it.
    """

    def apart(total: Floats, count: Floats, other_total: Floats, other_count: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):
            found: Floats = total / count - other_total / other_count
            return found

    columns = [values * first, first.astype(np.float64), values * ~first, (~first).astype(np.float64)]
    return statistics.of_sums(columns, apart, clusters, seed)
