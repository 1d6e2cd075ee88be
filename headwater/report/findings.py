"""Findings of a set of runs, as sentences with numbers, for the terminal and the top of the page.

A sentence states the rule it was derived by, so that a reader can check it.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from headwater.results.evaluation import EvaluationFigures
from headwater.results.runs import Run
from headwater.results.training import Column
from headwater.statistics import Estimate

CHANCE = 0.5
SAME = ", scored on equally short responses"
"""Suffix of the kind of a model that was trained and scored on the same prefixes."""
CONTROLS = {"cut": "own", "part": "prefix"}
"""Facts of a truncation that make another kind of model, with their default values."""
KIND_NAMES = {
    "dpo": "DPO",
    "sft": "SFT",
    "reward model": "Reward model",
    "robust": "Robust DPO",
    "ipo": "IPO",
    "ipo_sum": "IPO (summed)",
    "hinge": "Hinge",
    "r_dpo": "R-DPO",
    "dpop": "DPOP",
    "wpo": "WPO",
    "simpo": "SimPO",
    "orpo": "ORPO",
    "cpo": "CPO",
    "slic": "SLiC",
    "rpo": "RPO",
    "rpo_sum": "RPO (summed)",
    "rpo_sq": "RPO (squared)",
    "rpo_bwd_kl": "RPO (backward KL)",
    "rpo_fwd_kl": "RPO (forward KL)",
    "bees": "BeeS",
    "tdpo1": "TDPO1",
    "tdpo2": "TDPO2",
    "kto": "KTO",
}


class Point(NamedTuple):
    """One evaluated model on a curve of kept ratios; `keep` is a share of the response, 0 to 1."""

    keep: float
    accuracy: Estimate
    run: Run


def findings(runs: Sequence[Run]) -> list[str]:
    """Return the findings of runs, one sentence an entry; [] where they have no figures."""
    runs = distinct(runs)
    names = labels(runs)
    curves = {kind: points for kind, points in accuracy_points(runs).items() if _lengths(points) > 1}
    sentences = [_as_good_as_all(kind, points) for kind, points in curves.items()]
    sentences += _planted_depth(point.run for points in curves.values() for point in points)
    sentences += [f"{names[run.path]}: {run.facts['says']}" for run in runs if run.command == "signal"]
    on_a_curve = {point.run.path for points in curves.values() for point in points}
    sentences += [_held_out(run, names) for run in evaluated(runs) if run.path not in on_a_curve]
    sentences += [_auc_finding(run, names) for run in runs if figures_of(run).auc]
    sentences += [_selected(run, names) for run in runs if run.command == "select" and estimate(run, "score_all")]
    sentences += [_shortcut(run, names) for run in runs if run.command == "inspect" and estimate(run, "longer_wins")]
    sentences += [
        f"{names[run.path]}: {said}" for run in runs if run.command == "compare" for said in run.facts["says"]
    ]
    return sentences + _displacement(runs, names)


def distinct(runs: Sequence[Run]) -> list[Run]:
    """Return the runs in their order, each directory once."""
    return list({run.path: run for run in runs}.values())


def labels(runs: Sequence[Run]) -> dict[Any, str]:
    """Return a name for every run by its path: its own, or its whole path where two runs share a name."""
    count = Counter(run.name for run in runs)
    return {run.path: run.name if count[run.name] == 1 else str(run.path) for run in runs}


def estimate(run: Run, metric: str) -> Estimate | None:
    """Return a metric of a run that has an interval; None where it has none."""
    found = run.metrics.get(metric)
    if not isinstance(found, Mapping) or found.get("value") is None:
        return None
    return Estimate(found["value"], found.get("low"), found.get("high"), found.get("n", 0), found.get("clusters", 0))


def evaluated(runs: Sequence[Run]) -> list[Run]:
    """Return the evaluate runs that measured an accuracy."""
    return [run for run in runs if figures_of(run).accuracy]


def figures_of(run: Run) -> EvaluationFigures:
    """Return the figures of an evaluate run; all are None for any other run."""
    found = EvaluationFigures.find(run.path) if run.command == "evaluate" else None
    return found or EvaluationFigures()


def kind_of(run: Run) -> str:
    """Return the kind of the model of a run, as text.

    A model that was scored on prefixes of responses is a kind of its own: its figures answer another question.
    """
    kind = str(run.facts.get("kind", "model"))
    seen = run.facts.get("evaluated_keep", 1.0)
    part = "" if seen == 1 else SAME if seen == run.facts.get("keep") else f" (scored on the first {percent(seen)})"
    controls = [str(run.facts.get(name)) for name, usual in CONTROLS.items() if run.facts.get(name, usual) != usual]
    return ", ".join([KIND_NAMES.get(kind, kind), *controls]) + part


def accuracy_points(runs: Sequence[Run]) -> dict[str, list[Point]]:
    """Return the accuracies of evaluate runs with a known kept ratio, by kind, shortest first."""
    curves: dict[str, list[Point]] = {}
    for run in evaluated(runs):
        accuracy, keep = figures_of(run).accuracy, run.facts.get("keep")
        if accuracy and isinstance(keep, int | float):
            curves.setdefault(kind_of(run), []).append(Point(round(keep, 6), accuracy, run))
    for kind, points in curves.items():
        # Trained on everything and scored on everything is also the end of the curve of equal beginnings.
        if kind.endswith(SAME):
            points += [point for point in curves.get(kind.removesuffix(SAME), []) if point.keep == 1]
    return {kind: sorted(points, key=lambda point: point.keep) for kind, points in curves.items()}


def planted_depth(runs: Iterable[Run]) -> float | None:
    """Return the depth (0 to 1) at which the signal of made data was planted; None where runs differ or have none."""
    depths = {run.facts["planted_depth"] for run in runs if run.facts.get("planted_depth") is not None}
    return float(depths.pop()) if len(depths) == 1 else None


def number(value: float, digits: int = 3) -> str:
    """Return a number with a true minus sign; what rounds to zero has none."""
    return f"{round(value, digits) + 0.0:.{digits}f}".replace("-", "−")


def percent(share: float) -> str:
    """Return a share of 1 as a percentage: 0.3 is `30 %`."""
    return f"{100 * share:.4g} %"


def count(value: int) -> str:
    """Return a count with a narrow space between thousands."""
    return f"{value:,}".replace(",", "\u202f")


def with_interval(found: Estimate) -> str:
    """Return an estimate as `0.930 [0.910, 0.950]`; its bare value when it has no interval."""
    if found.low is None or found.high is None:
        return f"{number(found.value)} [n too small for an interval]"
    return f"{number(found.value)} [{number(found.low)}, {number(found.high)}]"


def _lengths(points: Sequence[Point]) -> int:
    return len({point.keep for point in points})


def _as_good_as_all(kind: str, points: Sequence[Point]) -> str:
    """Compare each shorter beginning with the longest one.

    Where a kept ratio was run more than once, its worst run is compared with the best run of the longest prefix, so
    that repeated runs cannot favour a short prefix.
    """
    longest = max(points, key=lambda point: (point.keep, point.accuracy.value))
    shorter: dict[float, Point] = {}
    for point in points:
        if point.keep < longest.keep:
            worst = shorter.setdefault(point.keep, point)
            shorter[point.keep] = min(worst, point, key=lambda p: p.accuracy.value)
    whole = "all of it" if longest.keep == 1 else f"the first {percent(longest.keep)}"
    reference = f"{with_interval(longest.accuracy)} (n = {longest.accuracy.n})"
    low = longest.accuracy.low
    if low is None:
        return f"{kind}: trained on {whole}, held-out accuracy is {reference}: too few pairs to compare lengths."
    enough = [point for point in shorter.values() if point.accuracy.value >= low]
    if not enough:
        best = max(shorter.values(), key=lambda point: point.accuracy.value)
        return (
            f"{kind}: no shorter beginning is as good as {whole}: held-out accuracy is {reference} on {whole}, "
            f"and at best {with_interval(best.accuracy)} on the first {percent(best.keep)}."
        )
    return (
        f"{kind}: training on the first {percent(enough[0].keep)} of each response is as good as on {whole}: "
        f"{with_interval(enough[0].accuracy)} against {reference}. It is the shortest beginning tried "
        f"whose held-out accuracy is not below that interval."
    )


def _planted_depth(runs: Iterable[Run]) -> list[str]:
    depth = planted_depth(runs)
    if depth is None:
        return []
    return [f"In this data the signal was planted in the first {percent(depth)} of each response."]


def _held_out(run: Run, names: Mapping[Any, str]) -> str:
    figures = figures_of(run)
    accuracy, by_length = figures.accuracy, figures.length_accuracy
    assert accuracy is not None  # `evaluated` chose the run for it
    baseline = f"; always preferring the longer response gives {with_interval(by_length)}" if by_length else ""
    return (
        f"{names[run.path]}: held-out accuracy is {with_interval(accuracy)} on {accuracy.n} pairs{baseline}. "
        f"{_against_chance(accuracy)}"
    )


def _auc_finding(run: Run, names: Mapping[Any, str]) -> str:
    figures = figures_of(run)
    auc, by_length = figures.auc, figures.length_auc
    assert auc is not None and by_length is not None  # written together
    return (
        f"{names[run.path]}: of {auc.n} held-out responses, a desirable one is rewarded above an undesirable one in "
        f"{with_interval(auc)} of all comparisons; taking the longer one gives {with_interval(by_length)}. "
        f"{_against_chance(auc)}"
    )


def _selected(run: Run, names: Mapping[Any, str]) -> str:
    every, taken = estimate(run, "score_all"), estimate(run, "score_taken")
    assert every is not None and taken is not None  # written together
    chosen_by = f"the {run.facts['selected_end']} of {run.facts['selected_by']}"
    return (
        f"{names[run.path]}: {run.metrics['taken']} of {run.metrics['rows']} rows are taken, {chosen_by}. Its mean is "
        f"{with_interval(every)} on all rows with a score (n = {every.n}) and {with_interval(taken)} on those taken."
    )


def _shortcut(run: Run, names: Mapping[Any, str]) -> str:
    wins = estimate(run, "longer_wins")
    assert wins is not None  # chosen for it
    found = f"{names[run.path]}: the longer response is the preferred one in {with_interval(wins)} of {wins.n} pairs."
    if wins.low is None or wins.high is None:
        return found
    if wins.low <= CHANCE <= wins.high:
        return f"{found} The interval holds 0.5: length alone does not predict which one is preferred."
    return f"{found} The interval excludes 0.5: length alone partly predicts which one is preferred."


def _against_chance(accuracy: Estimate) -> str:
    if accuracy.low is None or accuracy.high is None:
        return "There are too few prompts to compare it with chance (0.5)."
    if accuracy.low > CHANCE:
        return "The interval excludes 0.5: the model is better than chance."
    if accuracy.high < CHANCE:
        return "The interval excludes 0.5: the model is worse than chance."
    return "The interval holds 0.5: the model is not distinguishable from chance."


def _displacement(runs: Sequence[Run], names: Mapping[Any, str]) -> list[str]:
    """Return the sentence about DPO runs whose chosen responses became less likely throughout training."""
    fallen = [f"{names[run.path]} ({said})" for run in runs if run.command == "train-dpo" and (said := _falls(run))]
    if not fallen:
        return []
    return [
        f"Likelihood displacement: the better responses themselves become less likely throughout training in "
        f"{', '.join(fallen)}; where they win, it is because the worse ones fell further. Losses that counter it: "
        "dpop, which penalises just that, and rpo, rpo_sum, cpo, orpo and slic, which also fit the better response."
    ]


def _falls(run: Run) -> str:
    """Return how the chosen log-probability falls, as text; empty where it does not.

    It falls where the mean of every third of the run is lower than the one before, and the end is lower than zero and
    than the start. Without a reference model the reward is used instead, which is negative from the first step on.
    """
    for column, unit in ((Column.CHOSEN_CHANGE, " nats"), (Column.CHOSEN_REWARD, "")):
        values = run.training_history.values(column)
        if len(values) > 1:
            thirds = [float(part.mean()) for part in np.array_split(values, min(3, len(values)))]
            end = float(np.mean(values[-max(1, len(values) // 10) :]))
            falls = all(later < earlier for earlier, later in itertools.pairwise(thirds))
            what = "log-probability" if unit else "better-sample reward"
            said = f"{what} from {number(values[0], 2)} to {number(end, 2)}{unit}"
            return said if falls and end < min(0.0, values[0]) else ""
    return ""
