from __future__ import annotations

import numpy as np
import pytest

from headwater import statistics
from headwater.signals import bootstrap
from headwater.signals.bootstrap import Bootstrap


@pytest.fixture
def outcomes() -> np.ndarray:
    return (np.random.default_rng(0).random((3, 200)) < 0.6).astype(float)


CLUSTERS = [f"c{number % 83}" for number in range(200)]


def test_intervals_are_those_of_the_statistics_module(outcomes: np.ndarray) -> None:
    found = Bootstrap(CLUSTERS, 7).means(outcomes).estimates()
    assert found == [statistics.mean(row, CLUSTERS, 7) for row in outcomes]


def test_memory_bounds_do_not_change_figures(outcomes: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = Bootstrap(CLUSTERS, 7).means(outcomes)
    monkeypatch.setattr(bootstrap, "CELLS", 83 * 7)
    np.testing.assert_array_equal(Bootstrap(CLUSTERS, 7).means(outcomes).draws, whole.draws)


def test_rows_share_their_resamples(outcomes: np.ndarray) -> None:
    draws = Bootstrap(CLUSTERS, 7).means(np.stack([outcomes[0], outcomes[0], 1 - outcomes[0]])).draws
    np.testing.assert_array_equal(draws[:, 0], draws[:, 1])
    np.testing.assert_allclose(draws[:, 0], 1 - draws[:, 2])
    assert draws[:, 0].std() > 0


def test_a_group_counts_its_members_alone(outcomes: np.ndarray) -> None:
    members = np.arange(200) % 83 < 20
    group = np.where(members, outcomes[0], np.nan)
    means = Bootstrap(CLUSTERS, 7).means(np.stack([outcomes[0], group]))
    whole, part = means.estimates()
    assert part.value == pytest.approx(outcomes[0][members].mean())
    assert (part.n, part.clusters) == (int(members.sum()), 20)
    assert part.high - part.low > whole.high - whole.low  # type: ignore[operator]


def test_one_cluster_has_no_interval() -> None:
    found = Bootstrap(["same"] * 4, 0).means(np.ones((1, 4))).estimates()[0]
    assert (found.value, found.low, found.high, found.n) == (1.0, None, None, 4)
