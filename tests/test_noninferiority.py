"""One rule for every comparison: how often it is wrong in planted cases, and that its sentences say what it found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from headwater import noninferiority, statistics
from headwater.noninferiority import MARGIN, Comparison
from headwater.statistics import Estimate, Floats

STUDIES = 200


def studies(loss: float, pairs: int, seed: int, accuracy: float = 0.7, alike: float = 0.8) -> Floats:
    """Differences in what two models win, [studies, pairs]: the first has `loss` less accuracy than the second.

    On a share `alike` of the pairs both are right or both are wrong, whatever the loss.
    """
    rng = np.random.default_rng(seed)
    only_second = (1 - alike + loss) / 2
    drawn = rng.random((STUDIES, pairs))
    assert only_second >= loss and accuracy > only_second
    return np.where(drawn < only_second, -1.0, np.where(drawn < 1 - alike, 1.0, 0.0))


def comparisons(differences: Floats, margin: float = MARGIN) -> list[Comparison]:
    """The comparison of every study, from the library's own resamples, all at once: [studies, pairs]."""
    n = differences.shape[1]
    draws = statistics._resampled_sums(differences, seed=0) / n
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    found = [
        noninferiority.against(Estimate(float(row.mean()), float(a), float(b), n, n), margin, not row.any())
        for row, a, b in zip(differences, low, high, strict=True)
    ]
    first = noninferiority.paired(differences[0], np.zeros(n), [f"{place:04d}" for place in range(n)], margin)
    assert first.difference == pytest.approx(found[0].difference)
    return found


@pytest.mark.parametrize("pairs", [30, 100, 400, 1500])
def test_models_that_are_as_good_are_seldom_called_worse_or_better(pairs: int) -> None:
    found = comparisons(studies(0.0, pairs, seed=1))
    assert sum(one.worse for one in found) <= 0.05 * STUDIES
    assert sum(one.better for one in found) <= 0.05 * STUDIES


@pytest.mark.parametrize("alike", [0.8, 0.96])
@pytest.mark.parametrize("pairs", [10, 30, 100, 400, 1500])
def test_a_loss_of_the_margin_is_seldom_missed(pairs: int, alike: float) -> None:
    """Of few pairs on which models mostly agree, a plain bootstrap sees no loss at all and would miss most."""
    found = comparisons(studies(0.02, pairs, seed=2, alike=alike))
    assert sum(one.not_worse for one in found) <= 0.05 * STUDIES
    assert sum(one.better for one in found) <= 0.05 * STUDIES


def test_what_is_decided_says_so_and_what_is_not_says_how_many_would() -> None:
    """The number that is asked for decides as often as it promises, and a number that was enough decides."""
    asked = comparisons(studies(0.0, 400, seed=3))
    needed = [one.needed for one in asked if one.needed is not None]
    assert len(needed) > 0.75 * STUDIES
    n = noninferiority.against(Estimate(0.0, -0.0438, 0.0438, 400, 400)).needed
    assert n is not None and 3000 < n < 5000
    enough = comparisons(studies(0.0, n, seed=4))
    assert np.mean([one.verdict in ("not_worse", "better") for one in enough]) == pytest.approx(0.8, abs=0.07)
    assert all(one.needed is None for one in enough if one.verdict != "undecided")


def test_a_large_loss_is_called_worse_and_a_small_certain_one_not_by_more_than_the_margin() -> None:
    assert np.mean([one.verdict == "worse" for one in comparisons(studies(0.1, 1500, seed=5))]) > 0.95
    small = noninferiority.against(Estimate(-0.01, -0.015, -0.005, 9000, 9000))
    assert small.verdict == "slightly_worse"
    assert small.says("B") == (
        "is worse than B, but not by more than 2 points: −1.0 points [−1.5, −0.5], n = 9,000 pairs"
    )


def test_identical_answers_are_a_tie_of_any_number() -> None:
    same = np.full(3, 1.0)
    found = noninferiority.paired(same, same, ["a", "b", "c"])
    assert found.verdict == "same"
    assert found.says("B") == "does the same as B on every one of 3 pairs: a tie"
    assert not found.not_worse, "three pairs show nothing about other ones"
    assert noninferiority.paired(np.ones(400), np.ones(400), [str(n) for n in range(400)]).not_worse


@pytest.mark.parametrize(
    ("interval", "says"),
    [
        ((0.03, 0.01, 0.05), "is better than B: +3.0 points [+1.0, +5.0], n = 9,000 pairs"),
        ((0.0, -0.01, 0.01), "is not worse than B by more than 2 points: +0.0 points [−1.0, +1.0], n = 9,000 pairs"),
        ((-0.04, -0.06, -0.03), "is worse than B: −4.0 points [−6.0, −3.0], n = 9,000 pairs"),
        (
            (-0.01, -0.03, 0.01),
            "may or may not be worse than B, which is not decided at a margin of 2 points: −1.0 points [−3.0, +1.0], "
            "n = 9,000 pairs; about 74,000 pairs would decide it",
        ),
        ((0.5, None, None), "has too few prompts to be compared with B: +50.0 points, n = 9,000 pairs"),
    ],
)
def test_every_answer_has_its_sentence(interval: tuple[Any, ...], says: str) -> None:
    value, low, high = interval
    found = noninferiority.against(Estimate(value, low, high, 9000, 10**9))
    assert found.says("B") == says


def test_what_has_to_be_beaten_is_beaten_or_not() -> None:
    found = noninferiority.against(Estimate(0.001, -0.01, 0.012, 9000, 10**9))
    assert found.says_if_better("length") == (
        "is not shown to be better than length: +0.1 points [−1.0, +1.2], n = 9,000 pairs"
    )
    assert noninferiority.against(Estimate(0.1, 0.05, 0.15, 9000, 10**9)).says_if_better("it").startswith("is better")


def test_clusters_are_drawn_whole() -> None:
    """A hundred copies of ten prompts know as much as ten prompts."""
    won = np.array([1, 1, 0, 1, 0, 1, 1, 0, 1, 1.0])
    theirs = np.array([1, 0, 0, 1, 1, 1, 1, 0, 0, 1.0])
    prompts = [f"p{n}" for n in range(10)]
    copies = noninferiority.paired(np.tile(won, 100), np.tile(theirs, 100), prompts * 100)
    once = noninferiority.paired(won, theirs, prompts)
    assert copies.difference[:3] == pytest.approx(once.difference[:3])


def test_the_margin_decides() -> None:
    found = Estimate(-0.01, -0.03, 0.01, 900, 10**9)
    assert noninferiority.against(found, margin=2.0).verdict == "undecided"
    assert noninferiority.against(found, margin=4.0).verdict == "not_worse"
