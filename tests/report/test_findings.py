from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from headwater.report.findings import findings, labels
from headwater.results import runs
from headwater.statistics import Estimate


@dataclasses.dataclass(frozen=True)
class Config:
    model: str = "m"


def evaluated(path: Path, accuracy: Estimate, **facts: Any) -> runs.Run:
    writer = runs.start(path, "evaluate", Config(), facts=facts)
    writer.write_metrics({"accuracy": accuracy, "length_accuracy": Estimate(0.52, 0.49, 0.55, 400, 300)})
    return runs.load(writer.finish())


def trained(path: Path, values: list[float], command: str = "train-dpo", column: str = "rewards/chosen") -> runs.Run:
    writer = runs.start(path, command, Config())
    for step, value in enumerate(values):
        writer.log({"step": step, column: value})
    return runs.load(writer.finish())


def around(value: float) -> Estimate:
    return Estimate(value, value - 0.02, value + 0.02, 400, 300)


def curve(tmp_path: Path, values: dict[float, float], **facts: Any) -> list[runs.Run]:
    return [
        evaluated(tmp_path / f"{keep}", around(value), keep=keep, kind="reward model", **facts)
        for keep, value in values.items()
    ]


def test_the_shortest_beginning_within_the_interval_is_named(tmp_path: Path) -> None:
    said = findings(curve(tmp_path, {1.0: 0.94, 0.1: 0.6, 0.3: 0.93, 0.5: 0.935}, planted_depth=0.3))
    assert said[0].startswith(
        "Reward model: training on the first 30 % of each response is as good as on all of it: "
        "0.930 [0.910, 0.950] against 0.940 [0.920, 0.960] (n = 400)."
    )
    assert said[1] == "In this data the signal was planted in the first 30 % of each response."
    assert len(said) == 2


def test_a_curve_that_rises_to_the_end_says_so(tmp_path: Path) -> None:
    said = findings(curve(tmp_path, {0.2: 0.6, 0.5: 0.7, 1.0: 0.9}))
    assert said == [
        "Reward model: no shorter beginning is as good as all of it: held-out accuracy is "
        "0.900 [0.880, 0.920] (n = 400) on all of it, and at best 0.700 [0.680, 0.720] on the first 50 %."
    ]


def test_a_better_short_beginning_is_as_good(tmp_path: Path) -> None:
    assert "first 20 %" in findings(curve(tmp_path, {0.2: 0.99, 1.0: 0.9}))[0]


def test_without_the_whole_response_the_longest_beginning_is_the_measure(tmp_path: Path) -> None:
    assert "as good as on the first 80 %:" in findings(curve(tmp_path, {0.2: 0.9, 0.8: 0.9}))[0]


def test_repeated_runs_count_with_their_worst(tmp_path: Path) -> None:
    pair = curve(tmp_path, {0.3: 0.93, 1.0: 0.94})
    pair.append(evaluated(tmp_path / "again", around(0.8), keep=0.3, kind="reward model"))
    assert "no shorter beginning" in findings(pair)[0]


def test_scores_of_beginnings_are_not_mixed_with_scores_of_whole_responses(tmp_path: Path) -> None:
    whole = curve(tmp_path / "whole", {0.3: 0.6, 1.0: 0.9}, evaluated_keep=1.0)
    beginning = curve(tmp_path / "beginning", {0.3: 0.9, 1.0: 0.9}, evaluated_keep=0.5)
    said = findings([*whole, *beginning])
    assert said[0].startswith("Reward model: no shorter beginning")
    assert said[1].startswith("Reward model (scored on the first 50 %): training on the first 30 %")


def test_kept_ratios_that_differ_by_rounding_are_one(tmp_path: Path) -> None:
    near = evaluated(tmp_path / "near", around(0.8), keep=0.1 * 3, kind="reward model")
    assert "no shorter beginning" in findings([*curve(tmp_path, {0.3: 0.93, 1.0: 0.94}), near])[0]


def test_lengths_are_not_compared_without_an_interval(tmp_path: Path) -> None:
    bare = Estimate(0.9, None, None, 3, 1)
    both = [evaluated(tmp_path / f"{keep}", bare, keep=keep, kind="dpo") for keep in (0.5, 1.0)]
    assert "DPO: " in findings(both)[0] and "too few pairs to compare" in findings(both)[0]


@pytest.mark.parametrize(
    ("accuracy", "verdict"),
    [
        (Estimate(0.7, 0.6, 0.8, 90, 80), "excludes 0.5: the model is better than chance"),
        (Estimate(0.3, 0.2, 0.4, 90, 80), "excludes 0.5: the model is worse than chance"),
        (Estimate(0.5, 0.4, 0.6, 90, 80), "holds 0.5"),
        (Estimate(0.5, None, None, 1, 1), "too few prompts"),
    ],
)
def test_a_single_evaluation_is_held_against_chance(tmp_path: Path, accuracy: Estimate, verdict: str) -> None:
    (said,) = findings([evaluated(tmp_path / "one", accuracy, keep=1.0)])
    assert verdict in said
    assert "always preferring the longer response gives 0.520 [0.490, 0.550]" in said
    assert f"on {accuracy.n} pairs" in said


def test_likelihood_displacement_is_named_for_dpo_only(tmp_path: Path) -> None:
    fallen = trained(tmp_path / "fallen", [0.0, -0.2, -0.4])
    risen = trained(tmp_path / "risen", [0.0, 0.2, 0.4])
    # A reward without a reference is negative from the start; this one rose.
    free = trained(tmp_path / "free", [-3.0, -2.0, -1.0])
    reward_model = trained(tmp_path / "rm", [0.0, -1.0, -2.0], command="train-reward")
    (said,) = findings([fallen, risen, free, reward_model])
    assert "throughout training in fallen (better-sample reward from 0.00 to −0.40); where they win" in said
    assert "Losses that counter it: dpop" in said
    assert findings([risen, free, reward_model]) == []


def test_the_alarm_reads_the_log_probability_where_there_is_a_reference(tmp_path: Path) -> None:
    change = "logps/chosen_change"
    fallen = trained(tmp_path / "fallen", [0.0, -3.0, -2.0, -8.0, -9.0, -20.0], column=change)
    recovered = trained(tmp_path / "recovered", [0.0, -30.0, -20.0, -8.0, -9.0, -3.0], column=change)
    risen = trained(tmp_path / "risen", [0.0, 1.0, -0.5, 4.0, 5.0, 2.0], column=change)
    (said,) = findings([fallen, recovered, risen])
    assert "in fallen (log-probability from 0.00 to −20.00 nats); where" in said


def test_a_run_given_twice_counts_once_and_equal_names_are_told_apart(tmp_path: Path) -> None:
    first = evaluated(tmp_path / "a" / "same", around(0.8))
    second = evaluated(tmp_path / "b" / "same", around(0.8))
    assert len(findings([first, first])) == 1
    assert len(set(labels([first, second]).values())) == 2


def test_no_runs_say_nothing() -> None:
    assert findings([]) == []


def test_models_scored_as_they_were_trained_are_a_curve_of_their_own(tmp_path: Path) -> None:
    """It ends in the model that was trained and scored on everything, which belongs to both curves."""
    whole = curve(tmp_path / "whole", {0.3: 0.6, 1.0: 0.9}, evaluated_keep=1.0)
    equal = curve(tmp_path / "equal", {0.3: 0.9}, evaluated_keep=0.3)
    said = findings([*whole, *equal])
    assert said[0].startswith("Reward model: no shorter beginning")
    assert said[1].startswith("Reward model, scored on equally short responses: training on the first 30 %")
    assert "0.900" in said[1]
