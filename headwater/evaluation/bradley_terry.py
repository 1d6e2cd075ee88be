"""Bradley–Terry strengths of models from pairwise votes, P(second beats first) = σ(θ_second − θ_first + x·β).

Ties count half a win for each. Maximum likelihood by Newton's method (Bradley and Terry, 1952; covariates x as in
arena-style leaderboards' style control). Where a model won every vote its strength is unbounded: a ridge of 1e-8
keeps it finite, and changes no other figure visibly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from headwater import statistics
from headwater.errors import DataError
from headwater.evaluation.judgements import Judgement
from headwater.statistics import LEVEL, Estimate, Floats

RIDGE = 1e-8
RESAMPLES = 200


class Ranking(NamedTuple):
    """Models from strongest to weakest."""

    models: list[str]
    strengths: list[Estimate]
    """In logits, against the baseline at 0."""
    win_rates: list[Estimate]
    """Chance to beat the baseline, 0 to 1."""
    styles: list[Estimate]
    """Coefficient of each covariate: the logits of one standard deviation."""


def rank(judgements: Sequence[Judgement], baseline: str, styles: Floats | None = None, seed: int = 0) -> Ranking:
    """Return the ranking of all models; `styles` [n, k] are covariates of second − first, standardised by the caller.

    Intervals resample prompts. Errors: `DataError` where models are not connected by comparisons.
    """
    judged = [one for one in judgements if one.preference is not None and one.first != one.second]
    models = sorted({name for one in judged for name in (one.first, one.second)} | {baseline})
    _check_connected(judged, models)
    place = {name: index for index, name in enumerate(models)}
    pairs = np.array([[place[one.first], place[one.second]] for one in judged])
    design = np.zeros((len(judged), len(models)))
    design[np.arange(len(judged)), pairs[:, 1]] = 1
    design[np.arange(len(judged)), pairs[:, 0]] = -1
    design = np.delete(design, place[baseline], axis=1)
    outcomes = np.array([one.preference for one in judged], dtype=np.float64)
    votes = np.array([one.weight for one in judged], dtype=np.float64)
    prompts = [one.prompt for one in judged]
    full = design if styles is None else np.concatenate([design, styles], axis=1)
    best = fit(full, outcomes, votes)
    drawn = [fit(full, outcomes, votes * times, best) for times in statistics.resamples(prompts, seed, RESAMPLES)]
    estimates = _estimates(best, np.array(drawn), len(judged), len(set(prompts)))
    nothing = Estimate(0.0, 0.0, 0.0, len(judged), len(set(prompts)))
    strengths = [*estimates[: len(models) - 1]]
    strengths.insert(place[baseline], nothing)
    order = sorted(range(len(models)), key=lambda index: -strengths[index].value)
    return Ranking(
        [models[index] for index in order],
        [strengths[index] for index in order],
        [_as_rate(strengths[index]) for index in order],
        estimates[len(models) - 1 :],
    )


def fit(design: Floats, outcomes: Floats, votes: Floats, start: Floats | None = None) -> Floats:
    """Return the maximum-likelihood coefficients [k] for `outcomes` [n] in [0, 1], a row of `design` [n, k] each.

    Newton's method with step halving: the objective is convex, and every step lowers it.
    """
    found = np.zeros(design.shape[1]) if start is None else start.copy()
    value = _objective(design, outcomes, votes, found)
    for _ in range(100):
        p = _sigmoid(design @ found)
        slope = design.T @ (votes * (p - outcomes)) + RIDGE * found
        curvature = (design.T * (votes * p * (1 - p))) @ design + RIDGE * np.eye(len(found))
        step = np.linalg.solve(curvature, slope)
        size = 1.0
        while (after := _objective(design, outcomes, votes, found - size * step)) > value and size > 1e-8:
            size /= 2
        if size <= 1e-8 or np.abs(step).max(initial=0) < 1e-10:
            break
        found, value = found - size * step, after
    return found


def win_matrix(judgements: Sequence[Judgement]) -> dict[tuple[str, str], tuple[float, int]]:
    """Return by (model, opponent) the mean preference for the model, by votes, and the number of judgements."""
    sums: dict[tuple[str, str], list[float]] = {}
    for one in judgements:
        if one.preference is None or one.first == one.second:
            continue
        for who, preference in (
            ((one.second, one.first), one.preference),
            ((one.first, one.second), 1 - one.preference),
        ):
            entry = sums.setdefault(who, [0.0, 0.0, 0.0])
            entry[0] += one.weight * preference
            entry[1] += one.weight
            entry[2] += 1
    return {who: (won / votes, int(count)) for who, (won, votes, count) in sums.items()}


def _check_connected(judged: Sequence[Judgement], models: Sequence[str]) -> None:
    """Refuse models that comparisons do not connect: their strengths have no common scale. Errors: `DataError`."""
    met = {models[0]} if models else set()
    grown = True
    while grown:
        touching = [{one.first, one.second} for one in judged if (one.first in met) != (one.second in met)]
        grown = bool(touching)
        met = met.union(*touching)
    alone = sorted(set(models) - met)
    if alone:
        raise DataError("ranking", f"{', '.join(alone)} never met {', '.join(sorted(met))}", "compare them in two runs")


def _objective(design: Floats, outcomes: Floats, votes: Floats, at: Floats) -> float:
    logits = design @ at
    return float(votes @ (np.logaddexp(0, logits) - outcomes * logits) + RIDGE / 2 * at @ at)


def _sigmoid(x: Floats) -> Floats:
    found: Floats = np.exp(-np.logaddexp(0, -x))
    return found


def _estimates(best: Floats, drawn: Floats, n: int, clusters: int) -> list[Estimate]:
    tail = 100 * (1 - LEVEL) / 2
    if clusters < 2:
        return [Estimate(float(value), None, None, n, clusters) for value in best]
    lows, highs = np.percentile(drawn, [tail, 100 - tail], axis=0)
    return [Estimate(float(v), float(a), float(b), n, clusters) for v, a, b in zip(best, lows, highs, strict=True)]


def _as_rate(strength: Estimate) -> Estimate:
    """Return logits as the probability of beating the baseline; the map is monotone, so the interval is mapped too."""
    value, low, high = (None if x is None else float(_sigmoid(np.array(x))) for x in strength[:3])
    assert value is not None  # an estimate always has one
    return Estimate(value, low, high, strength.n, strength.clusters)
