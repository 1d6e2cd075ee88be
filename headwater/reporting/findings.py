"""Findings of a set of runs, as sentences with numbers, for the terminal and the top of the page.

A sentence states the rule it was derived by, so that a reader can check it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from headwater import noninferiority
from headwater.noninferiority import MARGIN, Comparison
from headwater.reporting.accuracy_comparison import Passed, shortest_not_worse
from headwater.results.evaluation import Diagnostics, EvaluationFigures, better_rule
from headwater.results.runs import Run
from headwater.results.training import Column
from headwater.statistics import Estimate

CHANCE = 0.5
SUMMARY = "summary"
"""Name of the run in which a study sums up its points."""
JUDGED = ("judge", "compare")
"""Commands that store sentences about models under judges."""
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


def findings(runs: Sequence[Run], margin: float = MARGIN) -> list[str]:
    """Return the findings of runs, one an entry; [] where they have no figures.

    Models are compared by `noninferiority`, at a `margin` in percentage points.
    """
    return [sentence for sentences in findings_by_section(runs, margin).values() for sentence in sentences]


def findings_by_section(runs: Sequence[Run], margin: float = MARGIN) -> dict[str, list[str]]:
    """Return `findings` by the section of the page that they open; sections without one are left out."""
    runs = distinct(runs)
    names = labels(runs)
    curves = {kind: points for kind, points in accuracy_points(runs).items() if _lengths(points) > 1}
    curves = dict(sorted(curves.items(), key=lambda curve: curve[0].endswith(SAME)))
    on_a_curve = {point.run.path for points in curves.values() for point in points}
    found = {
        "Signal": [
            *(_kept_ratios(kind, points, margin) for kind, points in curves.items()),
            *_planted_depth(point.run for points in curves.values() for point in points),
            *(f"{names[run.path]}: {run.facts['says']}" for run in runs if run.command == "signal"),
            *(f"{names[run.path]}: {said}" for run in runs if run.command == "sweep" for said in _said(run)),
        ],
        "Models": [
            *(_held_out(run, names, margin) for run in evaluated(runs) if run.path not in on_a_curve),
            *(_auc_finding(run, names) for run in runs if figures_of(run).auc),
        ],
        "Selection": [_selected(run, names) for run in runs if run.command == "select" and estimate(run, "score_all")],
        "Data": [
            *(said for run in runs if run.command == "demo-pairs" for said in _said(run)),
            *(
                _shortcut(run, names, margin)
                for run in runs
                if run.command == "inspect" and estimate(run, "longer_wins")
            ),
        ],
        "Decoding": [f"{names[run.path]}: {said}" for run in runs if run.command == "frontier" for said in _said(run)],
        "Policies": [f"{names[run.path]}: {said}" for run in runs if run.command in JUDGED for said in _said(run)],
        "Training": [
            *(
                f"{names[run.path]}: {run.facts['loss_note']}."
                for run in runs
                if run.history and "loss_note" in run.facts
            ),
            *_displacement(runs, names),
        ],
    }
    return {section: sentences for section, sentences in found.items() if sentences}


def _said(run: Run) -> list[str]:
    """Return the sentences that a command stored; none of versions that stored none."""
    return list(run.facts.get("says") or ())


def distinct(runs: Sequence[Run]) -> list[Run]:
    """Return the runs in their order, each directory once."""
    return list({run.path: run for run in runs}.values())


def labels(runs: Sequence[Run]) -> dict[Any, str]:
    """Return a name for every run by its path: the shortest end of the path that no other run shares.

    The summary of a study is named with the study.
    """
    return {run.path: name for run, name in zip(runs, _endings([run.path for run in runs]), strict=True)}


def _endings(paths: Sequence[Path]) -> Iterator[str]:
    """Yield the shortest ending of every path, in whole parts, that no other one has."""
    shared = Counter("/".join(path.parts[-depth:]) for path in set(paths) for depth in range(1, len(path.parts) + 1))
    for path in paths:
        first = 2 if path.name == SUMMARY else 1
        endings = ("/".join(path.parts[-depth:]) for depth in range(first, len(path.parts)))
        yield next((ending for ending in endings if shared[ending] == 1), str(path))


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


def _kept_ratios(kind: str, points: Sequence[Point], margin: float) -> str:
    """Compare models trained on each shorter beginning with those trained on the longest one, pair by pair."""
    by_ratio: dict[float, list[Point]] = {}
    for point in points:
        by_ratio.setdefault(point.keep, []).append(point)
    found = shortest_not_worse({keep: [point.run for point in these] for keep, these in by_ratio.items()}, margin)
    longest = by_ratio[max(by_ratio)]
    reference = f"held-out accuracy on {_whole(longest[0].keep)} is {_accuracies(longest)}"
    if found is None:
        return f"{kind}: {reference}. Kept ratios are not compared: the runs have no scored pairs in common."
    sentences = [ratio_sentence(kind, found), f"{reference[0].upper()}{reference[1:]}"]
    if found.shortest is not None:
        sentences[1] += f", and on the first {percent(found.shortest)} {_accuracies(by_ratio[found.shortest])}"
    return ". ".join(sentences) + "."


def ratio_sentence(kind: str, found: Passed) -> str:
    """Return what the comparison of kept ratios says, without its full stop."""
    whole = f"training on {_whole(found.longest)}"
    *_, last = found.tested.items()
    ending = f"training on the first {percent(last[0])} {last[1].says(whole)}"
    if found.shortest is None:
        return f"{kind}: {ending}. It is the longest shorter beginning tried, so nothing is said of shorter ones"
    passed = f"training on the first {percent(found.shortest)} of each response"
    says = f"{kind}: {passed} {found.tested[found.shortest].says(whole)}"
    if last[0] == found.shortest:
        return f"{says}. It is the shortest beginning tried"
    return f"{says}. Of the next shorter one: {ending}"


def _whole(keep: float) -> str:
    return "all of it" if keep == 1 else f"the first {percent(keep)}"


def _accuracies(points: Sequence[Point]) -> str:
    """Return the accuracy of a kept ratio; of several runs, their mean and range."""
    if len(points) == 1:
        return with_interval(points[0].accuracy)
    values = [point.accuracy.value for point in points]
    mean, low, high = (number(value) for value in (float(np.mean(values)), min(values), max(values)))
    return f"{mean} (mean of {len(points)} runs, {low} to {high})"


def _planted_depth(runs: Iterable[Run]) -> list[str]:
    depth = planted_depth(runs)
    if depth is None:
        return []
    return [f"In this data the signal was planted in the first {percent(depth)} of each response."]


def _held_out(run: Run, names: Mapping[Any, str], margin: float) -> str:
    figures = figures_of(run)
    accuracy = figures.accuracy
    assert accuracy is not None  # `evaluated` chose the run for it
    said = [f"{names[run.path]}: held-out accuracy is {with_interval(accuracy)} on {accuracy.n} pairs."]
    said += [_against_chance(accuracy), *_length_alone(figures)]
    found = Diagnostics.find(run.path)
    said += [f"The model {one.comparison(margin).says(one.name)}." for one in (found.baselines if found else ())]
    return " ".join(said)


def _length_alone(figures: EvaluationFigures) -> Iterator[str]:
    """Yield what length alone gives, in the direction that is right more often, and how rewards follow length."""
    rule, gain, follows = figures.length_rule, figures.length_gain, figures.length_correlation
    if rule is None:
        return
    yield f"Always preferring the {rule.wins} response gives {with_interval(rule.accuracy)}."
    if gain is not None:
        yield f"The model {Comparison(gain, MARGIN / 100).says_if_better('that')}."
    if follows is not None and not np.isnan(follows.value):
        yield f"The correlation of its rewards with length, within pairs, is {with_interval(follows)}."


def _auc_finding(run: Run, names: Mapping[Any, str]) -> str:
    figures = figures_of(run)
    auc, rule = figures.auc, figures.length_auc_rule
    assert auc is not None and rule is not None  # written together
    return (
        f"{names[run.path]}: of {auc.n} held-out responses, a desirable one is rewarded above an undesirable one in "
        f"{with_interval(auc)} of all comparisons; taking the {rule.wins} one gives {with_interval(rule.accuracy)}. "
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


def _shortcut(run: Run, names: Mapping[Any, str], margin: float) -> str:
    longer = estimate(run, "longer_wins")
    assert longer is not None  # chosen for it
    rule = better_rule(longer)
    found = (
        f"{names[run.path]}: the {rule.wins} response is the preferred one in {with_interval(rule.accuracy)} of "
        f"{longer.n} pairs."
    )
    compared = noninferiority.with_a_half(rule.accuracy, margin)
    if compared.difference.low is None or compared.difference.high is None:
        return found
    if compared.better:
        return f"{found} The interval excludes 0.5: length alone partly predicts which one is preferred."
    if compared.not_worse and compared.difference.high < compared.margin:
        within = noninferiority.points(compared.margin)
        return f"{found} Length alone predicts which one is preferred by less than {within} above chance."
    return f"{found} The interval holds 0.5: whether length alone predicts which one is preferred is not decided."


def _against_chance(accuracy: Estimate) -> str:
    if accuracy.low is None or accuracy.high is None:
        return "There are too few prompts to compare it with chance (0.5)."
    if accuracy.low > CHANCE:
        return "The interval excludes 0.5: the model is better than chance."
    if accuracy.high < CHANCE:
        return "The interval excludes 0.5: the model is worse than chance."
    return "The interval holds 0.5: whether the model is better than chance is not decided."


def _displacement(runs: Sequence[Run], names: Mapping[Any, str]) -> list[str]:
    """Return the sentence about DPO runs whose chosen responses became less likely, all of them by one criterion."""
    trained = [run for run in runs if run.command == "train-dpo"]
    fallen = [f"{names[run.path]} ({said})" for run in trained if (said := _falls(run))]
    if not fallen:
        return []
    return [
        f"Likelihood displacement in {len(fallen)} of {len(trained)} runs, by this criterion: the mean over the last "
        f"quarter of the logged steps lies below the first step by more than two standard errors. The chosen "
        f"responses themselves became less likely in {', '.join(fallen)}; where they win, it is because the rejected "
        "ones fell further. Losses that counter it: dpop, which penalises just that, and rpo, rpo_sum, cpo, orpo and "
        "slic, which also fit the chosen response."
    ]


def _falls(run: Run) -> str:
    """Return how the chosen log-probability falls, as text; empty where it does not, or where few steps were logged.

    Without a reference model the reward is used instead. Either has to end below its start and below 0, which is
    where a policy and its reference agree.
    """
    for column, unit in ((Column.CHOSEN_CHANGE, " nats"), (Column.CHOSEN_REWARD, "")):
        values = run.training_history.values(column)
        if len(values) > 2:
            last = np.asarray(values[-max(2, len(values) // 4) :], dtype=np.float64)
            end, error = float(last.mean()), float(last.std(ddof=1) / np.sqrt(len(last)))
            what = "log-probability" if unit else "reward of the chosen response"
            said = f"{what} from {number(values[0], 2)} to {number(end, 2)}{unit}"
            return said if end < min(0.0, values[0]) - 2 * error else ""
    return ""
