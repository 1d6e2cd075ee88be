"""Ties: equal texts for every judge, and differences that another batch would change."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from headwater.evaluation import noise
from headwater.evaluation.alpaca_eval import Answer
from headwater.evaluation.judgement_files import read
from headwater.evaluation.judgements import Judgement, as_annotations
from headwater.evaluation.judges import Comparison, Reward
from headwater.evaluation.policy_comparison import ComparisonOptions, compare
from headwater.files import write_json

ROUNDING = 5e-7


def judged(n: int, same: int, preference: float = 1.0) -> list[Judgement]:
    """Judgements of `n` prompts by rewards; on `same` of them the answers are equal, and rewards nearly so."""
    return [
        Judgement(
            prompt=f"p{place}",
            judge="reward",
            first="base",
            second="dpo",
            preference=preference,
            outputs=("text", "text" if place < same else "other"),
            scores=(0.0, ROUNDING if place < same else 1.0),
        )
        for place in range(n)
    ]


def test_identical_answers_are_ties_in_every_figure() -> None:
    """As measured: 300 identical answers had a win rate of 0.545 and a list of most improved prompts."""
    found = compare(judged(300, same=300), ComparisonOptions(baseline="base"))
    rate = found.figures.of_model("win_rate", "reward", "dpo")
    assert rate is not None and rate.value == 0.5 and rate.low is not None and rate.low > 0.49
    assert found.figures.of_model("score_difference", "reward", "dpo").value == 0.0  # type: ignore[union-attr]
    (examples,) = found.tables.examples
    assert (examples.improved, examples.degraded) == ((), ())
    assert found.sentences[0] == "All 300 answers of dpo are identical to those of base: ties for every judge."
    assert found.sentences[1] == "By reward, dpo does the same as base on every one of 300 votes: a tie."


def test_the_share_of_identical_answers_is_said_and_only_real_differences_are_listed() -> None:
    found = compare(judged(200, same=190), ComparisonOptions(baseline="base", examples=20))
    assert found.sentences[0].startswith("95.0 % of the answers of dpo (190 of 200) are identical to those of base")
    (examples,) = found.tables.examples
    assert len(examples.improved) == 10
    assert found.figures.of_model("win_rate", "reward", "dpo").value == pytest.approx(0.525)  # type: ignore[union-attr]


def test_noise_is_the_largest_change_in_another_batch_and_ties_what_is_closer() -> None:
    differences = np.array([1.0, -1e-7, 3e-7, 0.5, 0.0])
    found = noise.measured(differences, lambda places: differences[places] + 2e-7, range(5))
    assert found.largest == pytest.approx(2e-7)
    assert (found.pairs, found.ties) == (5, 2)
    rewards = np.stack([np.zeros(5), differences], axis=1)
    tied = noise.with_ties(rewards, found.largest)
    assert (tied[:, 0] == tied[:, 1]).tolist() == [False, True, False, False, True]
    assert tied[[0, 2, 3]].tolist() == rewards[[0, 2, 3]].tolist()
    assert "differences of 5 pairs change by up to 2e-07; 2 of 5 pairs differ by no more" in noise.sentence(found, 5)


def test_a_model_that_always_says_the_same_has_no_noise() -> None:
    found = noise.measured(np.array([0.0, 1.0]), lambda places: np.array([0.0, 1.0])[places], range(2))
    assert found == (0.0, 2, 0)


def test_another_batch_is_another_order_of_some_pairs() -> None:
    assert noise.sample([3, 5, 9]) == [9, 5, 3]
    many = noise.sample(range(1000))
    assert len(many) == len(set(many)) == noise.SCORED_AGAIN
    assert (many[0], many[-1]) == (999, 0)


class Jittery:
    """A scorer whose rewards change by up to 1e-6 from call to call, as those of batches do."""

    tokens = 0

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self, rows: list[object]) -> list[list[float]]:
        self.calls += 1
        rng = np.random.default_rng(self.calls)
        return [[float(x) for x in rng.uniform(0, 1e-6, len(row.responses))] for row in rows]  # type: ignore[attr-defined]


@pytest.fixture
def no_model(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headwater.models.turn_ends.end_rule", lambda model: "complete")


@pytest.mark.usefixtures("no_model")
def test_a_reward_judge_ties_what_its_noise_decides(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """All rewards are noise: without a measure of it, half of the answers would win."""
    monkeypatch.setattr("headwater.rewards.responses.load_response_scorer", lambda *_, **__: Jittery())
    comparisons = [
        Comparison(Answer(f"p{n}", "one", "base"), Answer(f"p{n}", "one" if n < 5 else "two", "dpo")) for n in range(60)
    ]
    found = Reward(model="runs/reward").judge(comparisons)
    ties = [one.preference == 0.5 for one in found]
    assert all(ties[:5])
    assert np.mean(ties) > 0.9
    assert found[0].noise == found[-1].noise is not None and 1e-7 < (found[0].noise or 0) < 2e-6
    write_json(tmp_path / "a.json", as_annotations(found))
    again, _ = read(tmp_path / "a.json")
    assert {one.noise for one in again} == {found[0].noise}
    assert replace(again[7], category="") == replace(found[7], category="")


@pytest.mark.usefixtures("no_model")
def test_equal_texts_tie_without_a_reward(monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that is too long or empty gets no reward, and is as good as itself."""
    monkeypatch.setattr(
        "headwater.rewards.responses.load_response_scorer",
        lambda *_, **__: lambda rows: [[None] * len(row.responses) for row in rows],
    )
    (found,) = Reward(model="r").judge([Comparison(Answer("p", "", "base"), Answer("p", "", "dpo"))])
    assert (found.preference, found.scores, found.noise) == (0.5, None, None)
