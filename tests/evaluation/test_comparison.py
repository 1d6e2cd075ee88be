from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from headwater.evaluation.calibration import calibration_error, reliability
from headwater.evaluation.comparison import (
    accuracy_by,
    by_who_is_longer,
    compare,
    length_correlation,
    summarise_rewards,
    wins,
)


def test_wins_count_ties_as_half() -> None:
    assert wins(np.array([2.0, 1.0, 0.0]), np.array([1.0, 1.0, 1.0])).tolist() == [1.0, 0.5, 0.0]


def test_figures_by_hand() -> None:
    rewards = np.array([[3.0, 1.0], [0.0, 2.0], [5.0, 1.0]])
    lengths = np.array([[10.0, 5.0], [10.0, 5.0], [5.0, 5.0]])
    found = summarise_rewards(rewards, lengths, ["a", "b", "c"], seed=0).known()
    assert found["accuracy"].value == pytest.approx(2 / 3)
    assert found["length_accuracy"].value == pytest.approx(2.5 / 3)
    assert found["margin_mean"].value == pytest.approx((2 - 2 + 4) / 3)
    assert found["reward_mean"].value == pytest.approx(2.0)
    assert found["reward_std"].value == pytest.approx(float(np.std(rewards, ddof=1)))
    assert found["chosen_reward_mean"].value == pytest.approx(8 / 3)
    sigma = [1 / (1 + np.exp(-margin)) for margin in (2, -2, 4)]
    assert found["brier"].value == pytest.approx(np.mean([(1 - p) ** 2 for p in sigma]))
    assert (found["accuracy"].n, found["reward_mean"].n, found["reward_mean"].clusters) == (3, 6, 3)


NAMES = [f"o{n}" for n in range(200)]


def test_length_correlation_sees_only_what_is_within_pairs() -> None:
    """By hand: differences (2, −2, 4) and (5, 5, 0) do not correlate; turning all pairs round changes nothing."""
    rewards = np.array([[3.0, 1.0], [0.0, 2.0], [5.0, 1.0]])
    lengths = np.array([[10.0, 5.0], [10.0, 5.0], [5.0, 5.0]])
    names = ["a", "b", "c"]
    assert length_correlation(rewards, lengths, names, 0).value == pytest.approx(0)
    lengths[1] = [4.0, 5.0]
    expected = (2 * 5 + -2 * -1) / np.sqrt((4 + 4 + 16) * (25 + 1))
    assert length_correlation(rewards, lengths, names, 0).value == pytest.approx(expected)
    assert length_correlation(rewards[:, ::-1], lengths[:, ::-1], names, 0).value == pytest.approx(expected)
    far = rewards + np.array([[100.0], [-50.0], [7.0]])
    assert length_correlation(far, lengths, names, 0).value == pytest.approx(expected)


def test_groups_hold_every_pair_once_and_equal_values_together() -> None:
    values = np.repeat([1.0, 2.0, 3.0, 4.0], [120, 30, 30, 20])
    won = (values > 1).astype(float)
    groups = accuracy_by(values, won, NAMES, 0)
    assert sum(group.accuracy.n for group in groups) == 200
    assert (groups[0].low, groups[0].high, groups[0].accuracy.value) == (1.0, 1.0, 0.0)
    assert [group.accuracy.value for group in groups[1:]] == [1.0] * len(groups[1:])
    assert all(one.high < other.low for one, other in pairwise(groups))


def test_who_is_longer_by_hand() -> None:
    lengths = np.array([[2.0, 1.0], [2.0, 1.0], [1.0, 2.0], [3.0, 3.0]])
    found = by_who_is_longer(np.array([1.0, 0.5, 0.0, 1.0]), lengths, NAMES[:4], 0)
    assert {name: (each.value, each.n) for name, each in found.items()} == {
        "longer": (0.75, 2), "shorter": (0.0, 1), "as_long": (1.0, 1),
    }  # fmt: skip


def test_mcnemar_by_hand() -> None:
    """8 to 1 of 9 discordant pairs: p = 2 (1 + 9) / 2⁹."""
    first = np.array([1.0] * 8 + [0.0] + [1.0] * 11)
    second = np.array([0.0] * 8 + [1.0] + [1.0] * 11)
    found = compare("other", first, second, NAMES[:20], 0)
    assert (found.only_first, found.only_second) == (8, 1)
    assert found.p_value == pytest.approx(2 * 10 / 2**9)
    assert found.difference.value == pytest.approx(7 / 20)
    assert compare("other", first, first, NAMES[:20], 0).p_value == 1.0


def test_calibration_by_hand() -> None:
    """Four verdicts of confidence 0.75 of which three are right are calibrated; of which none is, 0.75 off."""
    margin = np.log(3)
    margins = np.array([margin, margin, margin, -margin])
    assert calibration_error(margins, wins(margins, 0 * margins), NAMES[:4], 0).value == pytest.approx(0)
    assert calibration_error(-np.abs(margins), np.zeros(4), NAMES[:4], 0).value == pytest.approx(0.75)
    (only,) = reliability(margins, wins(margins, 0 * margins), NAMES[:4], 0)
    assert (only.confidence, only.accuracy.value, only.accuracy.n) == (pytest.approx(0.75), 0.75, 4)


def test_a_calibrated_model_is_called_calibrated_and_a_sure_one_is_not() -> None:
    rng = np.random.default_rng(0)
    true = rng.normal(0, 2, 4000)
    signed = np.where(rng.random(4000) < 1 / (1 + np.exp(-true)), true, -true)
    names = [f"o{n}" for n in range(4000)]
    assert calibration_error(signed, wins(signed, 0 * signed), names, 0).value < 0.03
    assert calibration_error(5 * signed, wins(signed, 0 * signed), names, 0).value > 0.1
    assert sum(each.accuracy.n for each in reliability(signed, wins(signed, 0 * signed), names, 0)) == 4000
