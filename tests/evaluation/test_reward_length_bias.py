"""Corrections of rewards for length: by hand, and on rewards whose bias is known."""

from __future__ import annotations

import numpy as np
import pytest

from headwater.errors import UsageError
from headwater.evaluation.comparison import length_correlation
from headwater.evaluation.length_bias import Divide, bias, slope


def test_divide_by_hand() -> None:
    rewards, lengths = np.array([[6.0, 4.0]]), np.array([[20.0, 10.0]])
    assert Divide(10)(rewards, lengths).tolist() == [[0.2, 0.2]]
    assert Divide(0)(rewards, lengths).tolist() == [[0.3, 0.4]]
    with pytest.raises(UsageError, match="0 or more"):
        Divide(-1)


def test_the_slope_is_least_squares_within_pairs() -> None:
    assert slope(np.array([2.0, -1.0, 0.0]), np.array([4.0, -2.0, 0.0])) == pytest.approx(0.5)
    assert slope(np.array([2.0, -1.0]), np.array([0.0, 0.0])) == 0.0


def test_regression_takes_a_planted_bias_out_and_leaves_quality() -> None:
    rng = np.random.default_rng(1)
    lengths = rng.integers(20, 400, (2000, 2)).astype(float)
    quality = rng.normal(0, 1, (2000, 2)) + np.array([1.0, 0.0])
    rewards = quality + 0.02 * lengths
    names = [f"o{n}" for n in range(2000)]
    fitted = slope(*(np.diff(values[:1000]).ravel() for values in (rewards, lengths)))
    assert fitted == pytest.approx(0.02, abs=0.001)
    corrected = rewards - fitted * lengths
    test = slice(1000, None)
    before, after = (length_correlation(each[test], lengths[test], names[test], 0) for each in (rewards, corrected))
    assert before.value > 0.8
    assert abs(after.value) < 0.1
    figures = [bias(each[test], lengths[test], names[test], 0) for each in (rewards, corrected)]
    for name in ("accuracy", "accuracy, preferred one shorter"):
        earlier, later = (figure[name] for figure in figures)
        assert earlier.high is not None
        assert later.low is not None
        assert later.low > earlier.high, name
