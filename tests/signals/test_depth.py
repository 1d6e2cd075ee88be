from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest

from headwater.data.corpus import PHRASES, Corpus, generate
from headwater.data.preference import Preference, Response
from headwater.data.truncation import Keep
from headwater.signals.bootstrap import Bootstrap
from headwater.signals.curves import CurveKey, Curves, Grid, measure
from headwater.signals.depth import (
    accuracy_changes,
    depth_metrics,
    length_baseline,
    recommend,
    signal_depth,
    training_saved,
)
from headwater.signals.prefix_scorers import TokenRewards
from headwater.statistics import Estimate, Floats

TENTHS = tuple(Fraction(n, 10) for n in range(1, 11))
KIND = {1.0: {kind for slot in PHRASES for kind, _ in slot}, -1.0: {curt for slot in PHRASES for _, curt in slot}}


def evidence(response: Response) -> Floats:
    """What the phrases of an answer add up to after each of its words: the scorer that reads the plan."""
    words = response.text.lower().split()
    ends = [" ".join(words[end - 2 : end + 1]) for end in range(len(words))]
    return np.cumsum([sum(sign for sign, known in KIND.items() if text in known) for text in ends])


def planner(preferences: list[Preference]) -> TokenRewards:
    columns = [evidence(side) for p in preferences for side in (p.chosen, p.rejected)]
    lengths = np.array([len(column) for column in columns]).reshape(-1, 2)
    starts = np.concatenate([[0], np.cumsum(lengths.ravel())[:-1]]).reshape(-1, 2)
    nothing_shared = np.zeros(len(preferences), dtype=np.int64)
    return TokenRewards(np.concatenate(columns), starts, lengths, lengths, nothing_shared, sums=True)


def measured(preferences: list[Preference], seed: int = 0) -> Curves:
    grid = Grid(TENTHS, cuts=("own",), parts=(), seed=seed)
    return measure(planner(preferences), [p.conversation_id for p in preferences], {}, grid)


@pytest.mark.parametrize("planted", [0.3, 0.5, 0.7])
def test_the_interval_covers_the_planted_depth(planted: float) -> None:
    """In 10 repetitions of 150 pairs; `benchmarks/depth_coverage.py` counts 100 of them, and with words."""
    found = []
    for seed in range(10):
        corpus = generate(Corpus(pairs=150, planted_depth=planted, seed=seed))
        found.append(depth_metrics(measured(corpus, seed), TENTHS)["depth_90"])
    assert sum(f.low <= planted <= f.high for f in found if f.low is not None and f.high is not None) >= 9
    assert max(f.high - f.low for f in found if f.low is not None and f.high is not None) <= 0.35  # and says something
    assert abs(np.median([f.value for f in found]) - planted) < 1e-9


def curves(accuracy: list[Floats], length: list[Floats], conversation_ids: int = 0) -> Curves:
    """Curves from outcomes [pairs] at each ratio."""
    ratios = TENTHS[-len(accuracy) :]
    keys = [CurveKey(name, "own", Keep(r)) for name in ("accuracy", "length") for r in ratios]
    n = len(accuracy[0])
    means = Bootstrap([f"o{i % (conversation_ids or n)}" for i in range(n)], 0).means(np.stack([*accuracy, *length]))
    draws = {key: means.draws[:, row] for row, key in enumerate(keys)}
    return Curves(dict(zip(keys, means.estimates(), strict=True)), draws, np.zeros((n, 0)), np.array([0.48, 0.52]))


def outcomes(share: float, n: int = 2000, flipped: int = 0) -> Floats:
    """A share of wins, of which `flipped` at the end are turned over."""
    wins = (np.arange(n) < share * n).astype(float)
    return np.concatenate([wins[: n - flipped], 1 - wins[n - flipped :]])


LENGTH = [outcomes(0.5)] * 3


def test_it_keeps_the_shortest_ratio_that_loses_no_more_than_the_margin() -> None:
    full = outcomes(0.8)
    worse = full * (np.arange(2000) % 10 > 0)  # a tenth of the wins lost
    advice = recommend(curves([worse, full, full], LENGTH), TENTHS[-3:], 1.0)
    assert (advice.verdict, advice.keep) == ("keep", Fraction(9, 10))
    assert "first 90 %" in advice.sentence
    assert "0.800" in advice.sentence
    assert "n = 2000" in advice.sentence


def test_it_stops_at_the_first_ratio_that_fails() -> None:
    """A dip on the way down ends the search: the fixed order of tests keeps the error at 5 %."""
    full = outcomes(0.8)
    dip = full * (np.arange(2000) % 10 > 0)
    assert recommend(curves([full, dip, full], LENGTH), TENTHS[-3:], 1.0).verdict == "keep_all"


def test_it_says_when_nothing_shorter_is_as_good() -> None:
    full = outcomes(0.8)
    worse = full * (np.arange(2000) % 5 > 0)
    advice = recommend(curves([worse, worse, full], LENGTH), TENTHS[-3:], 1.0)
    assert (advice.verdict, advice.keep) == ("keep_all", Fraction(1))


def test_it_says_when_the_accuracy_is_at_chance() -> None:
    advice = recommend(curves([outcomes(0.51)] * 3, LENGTH), TENTHS[-3:], 1.0)
    assert (advice.verdict, advice.keep) == ("chance", None)
    assert advice.sentence.startswith("No conclusion")


def test_chance_is_also_where_shuffled_labels_lie() -> None:
    found = curves([outcomes(0.55, 20_000)] * 3, [outcomes(0.5, 20_000)] * 3)
    above = Curves(found.points, found.draws, found.margins, np.array([0.45, 0.56]))
    assert recommend(found, TENTHS[-3:], 1.0).verdict == "keep"
    assert recommend(above, TENTHS[-3:], 1.0).verdict == "chance"


@pytest.mark.parametrize("longer_wins", [0.62, 0.38])
def test_it_says_when_length_alone_does_as_well(longer_wins: float) -> None:
    found = curves([outcomes(0.62)] * 3, [outcomes(longer_wins)] * 3)
    advice = recommend(found, TENTHS[-3:], 1.0)
    assert (advice.verdict, advice.keep) == ("length", None)
    assert length_baseline(found, TENTHS[-3:], 1.0).wins == ("longer" if longer_wins > 0.5 else "shorter")
    assert length_baseline(found, TENTHS[-3:], 1.0).accuracy == pytest.approx(0.62)


def test_it_says_when_there_are_too_few_pairs() -> None:
    rng = np.random.default_rng(0)
    rows = [(rng.random(60) < 0.8).astype(float) for _ in range(3)]
    advice = recommend(curves(rows, [outcomes(0.5, 60)] * 3), TENTHS[-3:], 1.0)
    assert (advice.verdict, advice.keep) == ("too_few", None)
    assert "may or may not be worse than on full responses" in advice.sentence
    assert "pairs would decide it" in advice.sentence


def test_one_opening_is_no_sample() -> None:
    advice = recommend(curves([outcomes(0.9)] * 3, LENGTH, conversation_ids=1), TENTHS[-3:], 1.0)
    assert advice.verdict == "chance"
    assert "too few prompts" in advice.sentence


def test_a_depth_by_hand() -> None:
    """0.9 × 0.4 above chance is 0.86: first reached at 0.3; in every other resample at 0.4."""
    ratios = TENTHS[1:4] + TENTHS[-1:]
    accuracy = np.array([0.7, 0.86, 0.88, 0.9])
    draws = np.array([[0.7, 0.86, 0.88, 0.9], [0.7, 0.85, 0.88, 0.9]] * 10)
    n = Estimate(0.9, 0.88, 0.92, 500, 400)
    assert signal_depth(ratios, accuracy, draws, 0.9, n) == Estimate(0.3, 0.3, 0.4, 500, 400)
    assert signal_depth(ratios, accuracy, draws, 0.5, n).value == 0.2


def test_there_is_no_depth_below_chance() -> None:
    found = signal_depth(TENTHS[-2:], np.array([0.6, 0.5]), np.full((5, 2), 0.5), 0.9, Estimate(0.5, 0.4, 0.6, 9, 9))
    assert np.isnan(found.value)
    assert found.low is None


def test_losses_are_paired() -> None:
    """Two rows that rise and fall together lose exactly what they lose, however wide either is."""
    draws = np.random.default_rng(0).normal(0.7, 0.1, (500, 1)) + np.array([-0.02, 0.0])
    ((ratio, found),) = accuracy_changes(
        TENTHS[-2:], np.array([0.68, 0.7]), draws, Estimate(0.7, 0.5, 0.9, 10**9, 10**9), 1.0
    )
    assert ratio == TENTHS[-2]
    assert found.difference[:3] == pytest.approx((-0.02, -0.02, -0.02), abs=1e-6)
    assert found.verdict == "worse"


def test_what_is_saved_counts_prompts_once() -> None:
    assert training_saved(np.array([20]), np.array([[40, 40]]), Fraction(1, 2)) == pytest.approx(40 / 100)
