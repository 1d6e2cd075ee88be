"""Figures of labelled responses, by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from headwater import statistics
from headwater.evaluation.labels import difference, summarise_labels

REWARDS = np.array([3.0, 1.0, 2.0, 0.0, 1.0])
DESIRABLE = np.array([True, True, False, False, False])
LENGTHS = np.array([5.0, 7.0, 7.0, 9.0, 9.0])


def test_figures_by_hand() -> None:
    """Six comparisons: of rewards four are won and one is a tie; of lengths one is a tie and none is won."""
    found = summarise_labels(REWARDS, DESIRABLE, LENGTHS, list("abcde"), seed=0).known()
    assert found["auc"].value == pytest.approx(4.5 / 6)
    assert found["length_auc"].value == pytest.approx(0.5 / 6)
    assert found["reward_difference"].value == pytest.approx(2 - 1)
    assert found["desirable_reward_mean"].value == pytest.approx(2.0)
    assert found["undesirable_reward_mean"].value == pytest.approx(1.0)
    assert found["reward_mean"].value == pytest.approx(7 / 5)
    assert found["reward_std"].value == pytest.approx(float(np.std(REWARDS, ddof=1)))
    counts = {name: figure.n for name, figure in found.items()}
    assert (counts["auc"], counts["desirable_reward_mean"], counts["undesirable_reward_mean"]) == (5, 2, 3)
    assert not {"accuracy", "margin_mean", "brier", "length_correlation"} & set(found), "there are no pairs"


@pytest.mark.parametrize("kind", [True, False])
def test_what_needs_both_labels_is_absent_where_one_is_missing(kind: bool) -> None:
    found = summarise_labels(REWARDS, np.full(5, kind), LENGTHS, list("abcde"), seed=0).known()
    assert set(found) == {"reward_mean", "reward_std", "desirable_reward_mean" if kind else "undesirable_reward_mean"}
    assert not any(math.isnan(figure.value) for figure in found.values())


def test_the_interval_of_a_difference_is_that_of_two_means_and_is_clustered() -> None:
    """The standard error of two independent means of unit variance is √(1/100 + 1/300)."""
    rng = np.random.default_rng(0)
    first = np.arange(400) < 100
    values = rng.normal(size=400) + first
    found = difference(values, first, [str(row) for row in range(400)], 0)
    expected = 2 * 1.96 * math.sqrt(1 / 100 + 1 / 300)
    assert width(found) == pytest.approx(expected, rel=0.15)
    assert found.low is not None and 0.5 < found.low < found.value
    clusters = [str(row) for row in range(400)] * 4
    repeated = difference(np.tile(values, 4), np.tile(first, 4), clusters, 0)
    assert repeated.value == pytest.approx(found.value)
    assert (repeated.n, repeated.clusters) == (1600, 400)
    assert width(repeated) == pytest.approx(width(found), rel=0.02), "copies say nothing new"


def width(found: statistics.Estimate) -> float:
    assert found.low is not None and found.high is not None
    return found.high - found.low
