"""Reward against KL: gaps by hand, intervals that cover, what is recommended."""

from __future__ import annotations

import math

import numpy as np
import pytest

from headwater.decoding.advice import advise, difference
from headwater.decoding.frontier import StrategyResponses, best_of, frontier
from headwater.results.decoding import FrontierPoint

OPENINGS = [f"o{i % 20}" for i in range(40)]


def point(
    family: str, setting: float, kl: float, reward: float, spread: float = 0.0, seed: int = 0
) -> StrategyResponses:
    noise = np.random.default_rng(seed).normal(size=(2, 40)) * spread
    return StrategyResponses(f"{family}({setting:g})", family, setting, kl + noise[0], reward + noise[1], OPENINGS)


def rows(*points: StrategyResponses) -> dict[str, FrontierPoint]:
    return {row.name: row for row in frontier(points, seed=0)}


BASE = [point("interpolate", 0, 0, 0), point("interpolate", 0.5, 1, 2), point("interpolate", 1, 3, 3)]


def test_the_gap_is_measured_from_the_line_through_the_baseline() -> None:
    found = rows(*BASE, point("length_control", 5, 0.5, 1.5), point("kl_threshold", 1, 2, 2), point("best_of", 4, 9, 9))
    assert [found[f"interpolate({w})"].gap for w in ("0", "0.5", "1")] == [None] * 3
    length, threshold = found["length_control(5)"].gap, found["kl_threshold(1)"].gap
    assert length is not None and threshold is not None
    assert (length.value, length.low, length.high) == pytest.approx((0.5, 0.5, 0.5))
    assert threshold.value == pytest.approx(-0.5)
    assert (length.n, length.clusters) == (40, 20)
    assert found["best_of(4)"].gap is None, "beyond the KL that the baseline reaches, nothing is known"


def test_pairing_shortens_the_interval_of_the_gap() -> None:
    """Prompts that are easy for all strategies move reward, and not the gap."""
    shared = np.repeat(np.random.default_rng(1).normal(size=20) * 5, 2)
    conversation_ids = [f"o{i // 2}" for i in range(40)]
    points = [
        p._replace(reward=p.reward + shared, conversation_ids=conversation_ids)
        for p in (*BASE, point("kl_threshold", 1, 2, 3))
    ]
    row = rows(*points)["kl_threshold(1)"]
    assert row.gap is not None and row.gap.value == pytest.approx(0.5)
    widths = [float(found.high or 0) - float(found.low or 0) for found in (row.gap, row.reward)]
    assert widths[0] < 1e-9 and widths[1] > 1


def test_the_interval_of_the_gap_covers_the_truth() -> None:
    """Nominally 95 %; 50 data sets of 20 clusters, each with noise in KL and reward."""
    covered = 0
    for seed in range(50):
        points = [
            p._replace(reward=point("x", 0, 0, 0, 1.0, 9 * seed + i).reward + p.reward) for i, p in enumerate(BASE)
        ]
        gap = rows(*points, point("kl_threshold", 1, 2, 3, 0.2, 9 * seed + 8))["kl_threshold(1)"].gap
        assert gap is not None and gap.low is not None and gap.high is not None
        covered += gap.low <= 0.5 <= gap.high
    assert covered >= 42


def test_responses_without_a_reward_are_left_out_of_both_means() -> None:
    one = point("length_control", 5, 1, 1)
    kl, reward = one.kl.copy(), one.reward.copy()
    kl[:10], reward[:10] = 100, np.nan
    row = rows(*BASE, one._replace(kl=kl, reward=reward))["length_control(5)"]
    assert (row.kl.value, row.reward.value, row.reward.n) == (1, 1, 30)


def test_the_best_of_n_is_picked_by_one_model_and_judged_by_another() -> None:
    picker = np.array([[1.0, 3.0, 2.0, 9.0], [math.nan, 0.0, -1.0, 9.0]])
    judge = np.array([[10.0, 20.0, 30.0, 40.0], [50.0, 60.0, 70.0, 80.0]])
    found = best_of(judge, picker, ["a", "b"], 3)
    assert found.reward.tolist() == [20.0, 60.0]
    assert found.kl == pytest.approx([math.log(3) - 2 / 3] * 2)


def test_the_advice_keeps_to_the_budget_and_is_the_best_of_all_strategies() -> None:
    columns = [*BASE, point("kl_threshold", 1, 2, 2.9), point("best_of", 4, 1.5, 2.5)]
    found = frontier(columns, seed=0)
    best = {budget: row.best.name for budget in (0.5, 1.5, 2.0, 3.0) if (row := advise(found, columns, budget, 0))}
    assert best == {0.5: "interpolate(0)", 1.5: "best_of(4)", 2.0: "kl_threshold(1)", 3.0: "interpolate(1)"}
    assert advise(found[1:3], columns, 0.5, 0) is None


def test_the_advice_says_when_best_of_n_beats_what_draws_one_response() -> None:
    """By a paired difference: the prompts that are easy for both cancel out."""
    columns = [*BASE, point("best_of", 4, 1.5, 2.5)]
    easy = np.random.default_rng(3).normal(0, 5, 40)
    columns = [one._replace(reward=one.reward + easy) for one in columns]
    advice = advise(frontier(columns, seed=0), columns, 1.5, 0)
    assert advice is not None and advice.single is not None and advice.gain is not None
    assert (advice.best.name, advice.single.name) == ("best_of(4)", "interpolate(0.5)")
    assert advice.gain[:3] == pytest.approx((0.5, 0.5, 0.5))
    said = "\n".join(advice.sentences("--budget", "runs/rm", "runs/rm"))
    assert "it draws 4 responses a prompt, and they were picked by the same model that scores them here" in said
    assert "with one response a prompt: interpolate(0.5), reward" in said
    assert "the reward of best_of(4) is higher: +0.5000 [0.5000, 0.5000] on the same 20 prompts" in said
    assert "picked by the same" not in "\n".join(advice.sentences("--budget", "runs/other", "runs/rm"))
    metrics = advice.metrics("runs/rm")
    assert (metrics["recommended_by_rm"], metrics["recommended_single_by_rm"]) == ("best_of(4)", "interpolate(0.5)")


def test_a_difference_of_rewards_leaves_out_responses_without_one() -> None:
    one, two = point("best_of", 4, 1, 3), point("interpolate", 1, 1, 2)
    one.reward[:7] = np.nan
    assert difference(one, two, 0).value == pytest.approx(1.0)
