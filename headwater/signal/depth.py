"""Signal depth and the recommended ratio to keep, with the sentence that states the conclusion or why there is none."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

import numpy as np

from headwater.data.truncation import Keep, Truncation
from headwater.data.truncation_effect import flops_saved
from headwater.signal.curves import CurveKey, Curves
from headwater.signal.prefix_scorers import Ints, kept_of
from headwater.statistics import LEVEL, Estimate, Floats

CHANCE = 0.5
SHARES = (0.9, 0.75, 0.5)
"""D90, D75, D50: shares of the above-chance accuracy."""

ROUNDING = 1e-12
"""Tolerance by which an accuracy equal to its threshold counts as having reached it."""

Verdict = Literal["keep", "keep_all", "chance", "length", "too_few"]
"""keep: a shorter beginning is as good as the whole response. keep_all: none is. chance, length, too_few: no
conclusion: accuracy cannot be told from chance, is not above that of length alone, or rests on too few pairs."""


def signal_depth(ratios: Sequence[Fraction], accuracy: Floats, draws: Floats, share: float, n: Estimate) -> Estimate:
    """Return the smallest of `ratios` [k] whose accuracy reaches `share` of what the last one has above chance.

    `accuracy` [k] and `draws` [resamples, k] are a curve and its resamples, and `n` an estimate with their counts. The
    interval runs between ratios of the grid, so it is never narrower than the grid. NaN where the curve's end is not
    above chance.
    """
    value = float(_reaches(ratios, accuracy[None], share)[0])
    if np.isnan(value) or n.low is None:
        return Estimate(value, None, None, n.n, n.clusters)
    found = _reaches(ratios, draws, share)
    tail = (1 - LEVEL) / 2
    low = float(np.nanquantile(found, tail, method="lower"))
    high = float(np.nanquantile(found, 1 - tail, method="higher"))
    return Estimate(value, low, high, n.n, n.clusters)


def _reaches(ratios: Sequence[Fraction], curves: Floats, share: float) -> Floats:
    """Return the ratio at which each curve of [m, k] first reaches its threshold, [m]; NaN for an end at chance."""
    above = curves - CHANCE
    reached = (above >= share * above[:, -1:] - ROUNDING).argmax(axis=1)
    places = np.array([float(ratio) for ratio in ratios])[reached]
    return np.where(above[:, -1] > 0, places, np.nan)


def depth_metrics(curves: Curves, ratios: Sequence[Fraction]) -> dict[str, Estimate]:
    """Return accuracy on full responses, that of length alone, and the signal depths D90, D75 and D50, by name."""
    full = CurveKey("accuracy", "own", Keep(ratios[-1]))
    accuracy, draws = curves.along("accuracy", ratios)
    n = curves.points[full]
    depths = {f"depth_{100 * share:.0f}": signal_depth(ratios, accuracy, draws, share, n) for share in SHARES}
    return {"accuracy": n, "length_accuracy": curves.points[full._replace(curve="length")], **depths}


class AccuracyDrop(NamedTuple):
    """Accuracy lost by keeping `ratio` instead of everything, with one-sided confidence bounds at `LEVEL`."""

    ratio: Fraction
    value: float
    at_least: float
    at_most: float


def accuracy_drops(ratios: Sequence[Fraction], accuracy: Floats, draws: Floats) -> list[AccuracyDrop]:
    """Return the accuracy drop of every ratio against the last one, from paired resamples; the longest ratio first."""
    found = []
    for row in reversed(range(len(ratios) - 1)):
        low, high = np.quantile(draws[:, -1] - draws[:, row], [1 - LEVEL, LEVEL])
        found.append(AccuracyDrop(ratios[row], float(accuracy[-1] - accuracy[row]), float(low), float(high)))
    return found


@dataclass(frozen=True)
class Recommendation:
    """Recommended ratio to keep, or why there is none."""

    verdict: Verdict
    keep: Fraction | None
    """The ratio to keep; None where there is no conclusion."""
    sentence: str
    """The recommendation as a sentence with its figures."""


def recommend(curves: Curves, ratios: Sequence[Fraction], margin: float) -> Recommendation:
    """Recommend the smallest ratio that is not worse than all by more than `margin`, at one-sided 95 % confidence.

    Ratios are tested from long to short, and the first that fails ends it: tested in a fixed order, each at the full
    level, the chance of recommending a ratio that is worse by more stays at 5 % (Maurer, Hothorn and Lehmacher 1995).
    """
    full = curves.points[CurveKey("accuracy", "own", Keep(ratios[-1]))]
    if full.low is None or full.low <= CHANCE or full.value <= curves.shuffled.max():
        return Recommendation("chance", None, _at_chance(full, curves.shuffled))
    length = length_baseline(curves, ratios)
    if length.gain.low <= 0:
        return Recommendation("length", None, _no_better_than_length(full, length))
    tested = accuracy_drops(ratios, *curves.along("accuracy", ratios))
    passed = list(itertools.takewhile(lambda drop: drop.at_most <= margin, tested))
    if passed:
        kept = curves.points[CurveKey("accuracy", "own", Keep(passed[-1].ratio))]
        return Recommendation("keep", passed[-1].ratio, _keep(passed[-1], kept, full, margin))
    if tested[0].at_least > 0:
        return Recommendation("keep_all", ratios[-1], _keep_all(tested[0], full))
    return Recommendation("too_few", None, _too_few(tested[0], full, margin))


class AccuracyGain(NamedTuple):
    """Difference of two accuracies on the same pairs, with its one-sided lower bound at `LEVEL`."""

    value: float
    low: float


class LengthBaseline(NamedTuple):
    """Accuracy of always choosing by length on full responses, and how far the scorer is above it."""

    wins: Literal["longer", "shorter"]
    """Which responses are preferred more often."""
    accuracy: float
    gain: AccuracyGain


def length_baseline(curves: Curves, ratios: Sequence[Fraction]) -> LengthBaseline:
    """Compare the scorer with length alone on full responses, in whichever direction length predicts the preference."""
    accuracy, draws = curves.along("accuracy", ratios[-1:])
    length, length_draws = curves.along("length", ratios[-1:])
    longer = bool(length[0] >= CHANCE)
    if not longer:
        length, length_draws = 1 - length, 1 - length_draws
    gain = AccuracyGain(float(accuracy[0] - length[0]), float(np.quantile(draws - length_draws, 1 - LEVEL)))
    return LengthBaseline("longer" if longer else "shorter", float(length[0]), gain)


def training_saved(prompts: Ints, lengths: Ints, ratio: Fraction) -> float:
    """Return the share of training FLOPs that keeping `ratio` saves, 0 to 1, taken as the share of tokens.

    `prompts` [pairs] are prompt lengths, counted once a pair (training computes them once); `lengths` are [pairs, 2].
    """
    kept = kept_of(Truncation(Keep(ratio)), lengths)
    return flops_saved(float(prompts.sum()), float(kept.sum()), float(lengths.sum()))


def _percent(share: Fraction | float) -> str:
    return f"{100 * float(share):.4g} %"


def _points(share: float) -> str:
    points = f"{100 * share:.1f}".replace("-", "−")
    return f"{points} point" if points == "1.0" else f"{points} points"


def _figure(found: Estimate) -> str:
    interval = "" if found.low is None else f" [{found.low:.3f}, {found.high:.3f}]"
    return f"{found.value:.3f}{interval} (n = {found.n})"


def _keep(drop: AccuracyDrop, kept: Estimate, full: Estimate, margin: float) -> str:
    bound = f"a loss of at most {_points(drop.at_most)}" if drop.at_most > 0 else "no loss"
    return (
        f"Keep the first {_percent(drop.ratio)} of each response: accuracy there is {kept.value:.3f} against "
        f"{_figure(full)} on full responses, {bound} with 95 % confidence. It is the shortest beginning tried that "
        f"loses no more than {_points(margin)}."
    )


def _keep_all(longest: AccuracyDrop, full: Estimate) -> str:
    return (
        f"Keep all: the first {_percent(longest.ratio)} of each response, the longest beginning tried, already loses "
        f"at least {_points(longest.at_least)} of the accuracy on full responses, {_figure(full)}, with 95 % "
        "confidence."
    )


def _at_chance(full: Estimate, shuffled: Floats) -> str:
    reason = "there are too few prompts" if full.low is None else "it cannot be told from chance"
    return (
        f"No conclusion: accuracy on full responses is {_figure(full)}, and {reason} ({len(shuffled)} shuffles of the "
        f"labels gave {shuffled.min():.3f} to {shuffled.max():.3f})."
    )


def _no_better_than_length(full: Estimate, length: LengthBaseline) -> str:
    return (
        f"No conclusion: accuracy on full responses, {_figure(full)}, is not above that of length alone "
        f"({length.wins} wins: {length.accuracy:.3f}) with 95 % confidence, so the curve may show nothing but length."
    )


def _too_few(longest: AccuracyDrop, full: Estimate, margin: float) -> str:
    return (
        f"No conclusion: accuracy on full responses is {_figure(full)}, but these are too few pairs to tell a loss of "
        f"{_points(margin)}. At {_percent(longest.ratio)} of each response the loss is between "
        f"{_points(longest.at_least)} and {_points(longest.at_most)}."
    )
