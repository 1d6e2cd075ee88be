from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import cohen_kappa_score

from headwater import statistics
from headwater.evaluation.agreement import agreements, opinions, position_bias
from headwater.evaluation.judgements import Judgement


def said(judge: str, prompt: object, preference: float | None, *, swapped: bool | None = None) -> Judgement:
    return Judgement(prompt=str(prompt), judge=judge, first="b", second="t", preference=preference, swapped=swapped)


def test_agreement_is_cohens_and_spearmans() -> None:
    generator = np.random.default_rng(0)
    a = generator.choice([0.0, 0.25, 0.5, 0.9, 1.0], 80)
    b = np.where(generator.random(80) < 0.7, a, generator.choice([0.0, 0.5, 1.0], 80))
    judged = [said("x", row, value) for row, value in enumerate(a.tolist())]
    judged += [said("y", row, value) for row, value in enumerate(b.tolist())] + [said("y", 99, 1.0)]
    (found,) = agreements(judged)
    winners = np.sign(a - 0.5), np.sign(b - 0.5)
    assert found.judges == ("x", "y") and found.kappa.n == 80
    assert found.kappa.value == pytest.approx(cohen_kappa_score(*winners), abs=1e-12)
    assert found.rank.value == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)
    assert found.same.value == (winners[0] == winners[1]).mean()
    assert found.kappa.low is not None and found.kappa.low < found.kappa.value < (found.kappa.high or 0)


def test_one_category_has_no_kappa() -> None:
    assert np.isnan(statistics.kappa([1, 1], [1, 1], ["p", "q"]).value)


def test_judges_that_share_nothing_are_not_compared() -> None:
    assert agreements([said("x", 1, 1.0), said("y", 2, 1.0), said("z", 2, None)]) == []


def test_an_opinion_is_the_mean_of_its_looks() -> None:
    votes = [said("x", 1, 1.0, swapped=False), said("x", 1, 0.5, swapped=True), said("x", 2, None)]
    assert opinions(votes) == {"x": {("1", "b", "t"): 0.75}}


def test_who_always_takes_the_first_is_found() -> None:
    both = [(False, 0.0), (True, 1.0)]
    judged = [said("x", row, of_second, swapped=swapped) for row in range(10) for swapped, of_second in both]
    bias = position_bias(judged)
    assert bias is not None and (bias.value, bias.low, bias.high, bias.clusters) == (1.0, 1.0, 1.0, 10)
    fair = [said("x", row, 1.0, swapped=swapped) for row in range(10) for swapped in (False, True)]
    found = position_bias(fair)
    assert found is not None and found.value == 0.5
    assert position_bias([said("x", 1, 1.0)]) is None
