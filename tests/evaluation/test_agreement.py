from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import spearmanr
from sklearn.metrics import accuracy_score, cohen_kappa_score

from headwater import statistics
from headwater.evaluation import judgements
from headwater.evaluation.agreement import agreements, opinions, position_bias
from headwater.evaluation.judgements import Judgement
from headwater.evaluation.policy_comparison import ComparisonOptions, compare


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


def pair(judge: str, answers: str, preference: float | None, *, prompt: str = "Why?", models: str = "bt") -> Judgement:
    """Return a judgement of two answers of a letter each."""
    first, second = models
    return Judgement(
        **{"prompt": prompt, "judge": judge, "first": first, "second": second},
        preference=preference,
        outputs=(answers[0], answers[1]),
    )


FOUR = ("ab", "cd", "ef", "gh")


def test_four_pairs_of_answers_to_one_prompt_are_four_comparisons() -> None:
    judged = [pair("x", each, value) for each, value in zip(FOUR, (0.0, 0.0, 1.0, 1.0), strict=True)]
    judged += [pair("y", each, value) for each, value in zip(FOUR, (0.0, 1.0, 1.0, 0.0), strict=True)]
    (found,) = agreements(judged)
    assert (found.same.value, found.same.n, found.same.clusters) == (0.5, 4, 1)
    assert found.kappa.value == 0.0


def test_agreement_on_repeated_prompts_is_that_of_scikit_learn() -> None:
    """Forty pairs of answers to eight prompts, which the second judge saw in another order and with other names."""
    generator = np.random.default_rng(3)
    a = generator.choice([0.0, 0.5, 1.0], 40)
    b = np.where(generator.random(40) < 0.6, a, generator.choice([0.0, 0.5, 1.0], 40))
    turned = generator.random(40) < 0.5
    texts = [(f"answer {row}", f"Antwort {row}") for row in range(40)]
    one = [pair("x", "ab", value, prompt=str(row % 8)) for row, value in enumerate(a.tolist())]
    one = [replace(each, outputs=texts[row]) for row, each in enumerate(one)]
    other = [
        replace(each, judge="y", first="output_1", second="output_2", preference=float(b[row]))
        for row, each in enumerate(one)
    ]
    other = [judgements.turned(each) if back else each for back, each in zip(turned, other, strict=True)]
    shuffled = [other[row] for row in generator.permutation(40)]
    (found,) = agreements([*one, *shuffled])
    winners = np.sign(a - 0.5).astype(int), np.sign(b - 0.5).astype(int)
    assert (found.same.n, found.same.clusters) == (40, 8)
    assert found.same.value == accuracy_score(*winners)
    assert found.kappa.value == pytest.approx(cohen_kappa_score(*winners), abs=1e-12)
    assert found.rank.value == pytest.approx(spearmanr(a, b).statistic, abs=1e-12)


def test_agreement_is_over_all_pairs_that_both_judged() -> None:
    """Three models: the pair without the baseline counts too."""
    votes = [("ab", "bt"), ("ac", "bs"), ("bc", "ts")]
    judged = [
        pair(judge, answers, float(judge == "x" or models != "ts"), models=models, prompt=str(row))
        for judge in "xy"
        for row in range(6)
        for answers, models in votes
    ]
    found = compare(judged, ComparisonOptions(baseline="b")).agreements[0]
    assert (found.same.value, found.same.n) == (pytest.approx(2 / 3), 18)


def test_a_model_with_several_answers_to_a_prompt_is_compared_on_all_of_them() -> None:
    judged = [pair("x", each, value) for each, value in zip(FOUR, (0.0, 0.0, 1.0, 0.5), strict=True)]
    judged += [pair("x", answers, 1.0, models="bs") for answers in ("ai", "cj")]
    found = compare(judged)
    assert [(one.model, one.preference) for one in found.records.records] == [
        *(("t", value) for value in (0.0, 0.0, 1.0, 0.5)),
        *(("s", 1.0), ("s", 1.0)),
    ]
    (difference,) = found.differences.values()
    assert (difference.value, difference.n) == (0.375 - 1.0, 1)


@pytest.mark.parametrize("models", ["bt", "tb"])
def test_equal_answers_are_told_apart_by_their_models(models: str) -> None:
    judged = [pair("x", "aa", 1.0), pair("y", "aa", float(models == "bt"), models=models)]
    (found,) = agreements(judged)
    assert (found.same.value, found.same.n) == (1.0, 1)


def test_who_always_takes_the_first_is_found() -> None:
    both = [(False, 0.0), (True, 1.0)]
    judged = [said("x", row, of_second, swapped=swapped) for row in range(10) for swapped, of_second in both]
    bias = position_bias(judged)
    assert bias is not None and (bias.value, bias.low, bias.high, bias.clusters) == (1.0, 1.0, 1.0, 10)
    fair = [said("x", row, 1.0, swapped=swapped) for row in range(10) for swapped in (False, True)]
    found = position_bias(fair)
    assert found is not None and found.value == 0.5
    assert position_bias([said("x", 1, 1.0)]) is None
