from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression

from headwater.errors import DataError
from headwater.evaluation import bradley_terry, judgement_files
from headwater.evaluation.bradley_terry import fit, rank, win_matrix
from headwater.evaluation.judgements import Judgement
from headwater.statistics import Floats


def battle(first: str, second: str, preference: float, prompt: str = "p", weight: int = 1) -> Judgement:
    return Judgement(prompt=prompt, judge="j", first=first, second=second, preference=preference, weight=weight)


def battles(n: int = 300, seed: int = 0) -> list[Judgement]:
    generator = np.random.default_rng(seed)
    strengths = {"a": 0.0, "b": 0.7, "c": -0.5, "d": 1.5}
    found = []
    for row in range(n):
        first, second = generator.choice(list(strengths), 2, replace=False)
        p = 1 / (1 + np.exp(strengths[first] - strengths[second]))
        outcome = 0.5 if generator.random() < 0.1 else float(generator.random() < p)
        found.append(battle(str(first), str(second), outcome, f"p{row // 3}", int(generator.choice([1, 3]))))
    return found


def by_sklearn(judged: list[Judgement], baseline: str) -> dict[str, float]:
    """An independent fit: every battle stands twice, won and lost, weighted by its outcome."""
    models = sorted({name for one in judged for name in (one.first, one.second)} - {baseline})
    rows = np.array([[(one.second == m) - float(one.first == m) for m in models] for one in judged])
    outcomes, votes = np.array([one.preference for one in judged]), np.array([one.weight for one in judged])
    model = LogisticRegression(C=np.inf, fit_intercept=False, tol=1e-12, max_iter=10_000, solver="newton-cg")
    model.fit(
        np.concatenate([rows, rows]),
        np.repeat([1, 0], len(rows)),
        sample_weight=np.concatenate([outcomes * votes, (1 - outcomes) * votes]),
    )
    return dict(zip(models, model.coef_[0].tolist(), strict=True)) | {baseline: 0.0}


def test_two_models_by_hand() -> None:
    """Three wins of four: θ = ln 3, and a chance of ¾."""
    judged = [battle("a", "b", outcome, f"p{row}") for row, outcome in enumerate([1, 1, 1, 0])]
    ranking = rank(judged, "a")
    assert ranking.models == ["b", "a"]
    assert ranking.strengths[0].value == pytest.approx(np.log(3), abs=1e-6)
    assert ranking.win_rates[0].value == pytest.approx(0.75, abs=1e-6)
    assert ranking.win_rates[1].value == 0.5


def test_strengths_are_those_of_an_independent_fit() -> None:
    judged = battles()
    ranking = rank(judged, "a")
    expected = by_sklearn(judged, "a")
    for name, strength in zip(ranking.models, ranking.strengths, strict=True):
        assert strength.value == pytest.approx(expected[name], abs=1e-6)
        assert name == "a" or (strength.low is not None and strength.low < strength.value < (strength.high or 0))


def test_real_battles_agree_with_an_independent_fit_and_so_does_a_resample(shared_data: Path) -> None:
    judged, row_counts = judgement_files.read(shared_data / "arena_hard" / "arena_hard_battles.jsonl.gz")
    assert (row_counts.rows_in, row_counts.kept) == (2136, 2136)
    baseline = "claude-3-haiku-20240307"
    ranking = rank(judged, baseline)
    expected = by_sklearn(judged, baseline)
    assert len(ranking.models) == 5
    for name, strength in zip(ranking.models, ranking.strengths, strict=True):
        assert strength.value == pytest.approx(expected[name], abs=1e-6)
    # Where all meet one opponent only, the chance to beat it is the share of wins against it.
    shares = win_matrix(judged)
    for name, rate in zip(ranking.models, ranking.win_rates, strict=True):
        if name != baseline:
            assert rate.value == pytest.approx(shares[name, baseline][0], abs=1e-6)
    # A bootstrap draw, by repeating battles of whole prompts: its strengths bound what the interval says.
    drawn = [one for one in judged for _ in range(int(one.prompt) % 3)]
    again = {n: s.value for n, s in zip(*rank(drawn, baseline)[:2], strict=True)}
    for name, strength in by_sklearn(drawn, baseline).items():
        assert again[name] == pytest.approx(strength, abs=1e-6)


def test_published_quantiles_of_bootstrap_results_are_percentiles(shared_data: Path) -> None:
    """The published interval is the 2.5th and 97.5th percentile of the published draws, interpolated linearly."""
    import gzip
    import json

    with gzip.open(shared_data / "arena_hard" / "bootstrap_stats_arena_hard.jsonl.gz", "rt") as lines:
        rows = [json.loads(line) for line in lines]
    assert len(rows) > 20
    for row in rows:
        low, high = np.percentile(row["results"], [2.5, 97.5])
        assert (low, high) == pytest.approx((row["lower"], row["upper"]), abs=1e-6)


def test_who_won_everything_has_a_strength() -> None:
    judged = [battle("a", "b", 1.0, f"p{row}") for row in range(20)]
    ranking = rank(judged, "a")
    assert ranking.models[0] == "b" and ranking.win_rates[0].value > 0.999
    assert np.isfinite(ranking.strengths[0].value)


def test_prompts_are_drawn_whole() -> None:
    judged = battles(120)
    apart = [battle(o.first, o.second, o.preference or 0.0, f"q{i}", o.weight) for i, o in enumerate(judged * 5)]
    together = judged * 5

    def width(given: list[Judgement]) -> float:
        strength = dict(zip(*rank(given, "a")[:2], strict=True))["d"]
        return (strength.high or 0) - (strength.low or 0)

    assert width(together) > 1.6 * width(apart)


def test_style_is_taken_out() -> None:
    """Where style alone decides, controlling for it leaves the models equal."""
    generator = np.random.default_rng(0)
    style = generator.normal(size=(2000, 1)) + 1.0
    outcomes = (generator.random(2000) < 1 / (1 + np.exp(-2 * style[:, 0]))).astype(float)
    judged = [battle("a", "b", outcome, f"p{row}") for row, outcome in enumerate(outcomes.tolist())]
    plain, controlled = rank(judged, "a"), rank(judged, "a", style)
    assert dict(zip(*plain[:2], strict=True))["b"].value > 1
    strength = dict(zip(*controlled[:2], strict=True))["b"]
    assert strength.low is not None and strength.low < 0 < (strength.high or 0)
    assert controlled.styles[0].value == pytest.approx(2.0, abs=0.2)


def test_models_that_never_meet_are_not_ranked() -> None:
    with pytest.raises(DataError, match="c, d never met a, b"):
        rank([battle("a", "b", 1.0), battle("c", "d", 0.0)], "a")


def test_the_win_matrix_counts_votes_both_ways() -> None:
    matrix = win_matrix([battle("a", "b", 1.0, weight=3), battle("b", "a", 0.5), battle("a", "a", 0.5)])
    assert matrix == {("b", "a"): (3.5 / 4, 2), ("a", "b"): (0.5 / 4, 2)}


def test_newton_reaches_a_minimum() -> None:
    generator = np.random.default_rng(0)
    design: Floats = generator.normal(size=(50, 3))
    outcomes, votes = generator.random(50), generator.random(50)
    at = fit(design, outcomes, votes)
    slope = design.T @ (votes * (1 / (1 + np.exp(-design @ at)) - outcomes)) + bradley_terry.RIDGE * at
    assert np.abs(slope).max() < 1e-9
