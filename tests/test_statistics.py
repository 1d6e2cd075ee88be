from __future__ import annotations

import math

import numpy as np
import pytest

from headwater import statistics


def test_values_are_exact() -> None:
    x = [1.0, 2.0, 4.0, 9.0]
    clusters = list("abcd")
    assert statistics.mean(x, clusters).value == pytest.approx(4.0)
    assert statistics.std(x, clusters).value == pytest.approx(float(np.std(x, ddof=1)))


def test_std_keeps_its_digits_far_from_zero() -> None:
    x = 1e8 + np.array([1.0, 2.0, 4.0, 9.0])
    assert statistics.std(x, list("abcd")).value == pytest.approx(float(np.std(x, ddof=1)), rel=1e-12)


def test_area_under_the_curve() -> None:
    """Of the six comparisons, four are won, one is a tie: 4.5 / 6; drawn at random it is a half, and covered."""
    values, positive = np.array([3.0, 1.0, 2.0, 0.0, 1.0]), np.array([True, True, False, False, False])
    assert statistics.area_under_curve(values[positive], values[~positive]) == pytest.approx(4.5 / 6)
    assert statistics.auc(values, positive, list("abcde")).value == pytest.approx(4.5 / 6)
    assert math.isnan(statistics.auc(values, np.ones(5, dtype=bool), list("abcde")).value)
    rng = np.random.default_rng(0)
    estimate = statistics.auc(rng.random(200), rng.random(200) < 0.3, [str(i % 150) for i in range(200)])
    assert estimate.low is not None
    assert estimate.high is not None
    assert estimate.low < 0.5 < estimate.high
    assert 0.1 < estimate.high - estimate.low < 0.25, "the standard error is about 0.045"
    assert (estimate.n, estimate.clusters) == (200, 150)


def test_the_interval_covers_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for trial in range(300):
        estimate = statistics.mean(rng.random(60) < 0.7, [str(i) for i in range(60)], seed=trial)
        assert estimate.low is not None
        assert estimate.high is not None
        covered += estimate.low <= 0.7 <= estimate.high
    assert 0.90 <= covered / 300 <= 0.98


def test_clusters_widen_the_interval() -> None:
    """Ten copies of every row carry no more information than the row itself."""
    rng = np.random.default_rng(1)
    x = rng.random(50)
    rows = [str(i) for i in range(50)]
    single = statistics.mean(x, rows)
    copied = statistics.mean(np.repeat(x, 10), [r for r in rows for _ in range(10)])
    naive = statistics.mean(np.repeat(x, 10), [str(i) for i in range(500)])

    def width(e: statistics.Estimate) -> float:
        assert e.low is not None
        assert e.high is not None
        return e.high - e.low

    assert width(copied) == pytest.approx(width(single))
    assert width(naive) < 0.5 * width(copied)


@pytest.mark.fault("J8")
def test_the_same_seed_gives_the_same_interval_and_another_seed_another() -> None:
    x, rows = np.arange(20.0), [str(i % 7) for i in range(20)]
    assert statistics.mean(x, rows, seed=3) == statistics.mean(x, rows, seed=3)
    assert statistics.mean(x, rows, seed=3) != statistics.mean(x, rows, seed=4)


@pytest.mark.fault("J8")
def test_one_cluster_has_no_interval() -> None:
    estimate = statistics.mean([1.0, 0.0], ["a", "a"])
    assert (estimate.value, estimate.low, estimate.clusters) == (0.5, None, 1)
    assert estimate.interval() == "n too small"
    assert math.isnan(statistics.mean([], []).value)


def test_a_missing_label_is_refused() -> None:
    with pytest.raises(ValueError, match="2 values but 1"):
        statistics.mean([1.0, 2.0], ["a"])


def test_a_correlation_is_numpys_and_its_interval_holds_the_truth() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=400) + 1e6  # far from 0: nothing cancels
    y = 0.6 * (x - 1e6) + 0.8 * rng.normal(size=400)
    found = statistics.correlation(x, y, [str(n) for n in range(400)])
    assert found.value == pytest.approx(np.corrcoef(x, y)[0, 1], rel=1e-6)
    assert found.low is not None and found.high is not None
    assert found.low < 0.6 < found.high
    # Fisher: the standard error of the correlation is about (1 − ρ²)/√n.
    assert found.high - found.low == pytest.approx(2 * 1.96 * (1 - found.value**2) / 20, rel=0.2)


def test_a_correlation_with_a_constant_is_undefined() -> None:
    found = statistics.correlation(np.arange(4.0), np.ones(4), list("abcd"))
    assert np.isnan(found.value)
    assert found.low is None


def test_a_weighted_mean_counts_weights_and_draws_clusters() -> None:
    values, weights = np.array([1.0, 0.0, 0.5]), np.array([3.0, 1.0, 0.0])
    found = statistics.weighted_mean(values, weights, ["a", "b", "b"])
    assert found.value == 0.75 and (found.n, found.clusters) == (3, 2)
    assert (found.low, found.high) == (0.0, 1.0)  # either cluster may be drawn twice


def test_resamples_draw_whole_clusters_as_often_as_there_are() -> None:
    clusters = ["a", "a", "b", "c"]
    drawn = list(statistics.resamples(clusters, seed=1, count=50))
    assert len(drawn) == 50
    assert all(times[0] == times[1] and times[0] + times[2] + times[3] == 3 for times in drawn)
    assert len({tuple(times) for times in drawn}) > 5
    again = statistics.resamples(clusters, seed=1, count=50)
    assert all((a == b).all() for a, b in zip(drawn, again, strict=True))


def test_kept_draws_are_the_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    values, prompts = np.random.default_rng(3).normal(size=60), [str(row // 2) for row in range(60)]
    kept = statistics.mean(values, prompts, 5)
    monkeypatch.setattr(statistics, "KEPT_DRAWS", 0)
    assert statistics.mean(values, prompts, 5) == kept
