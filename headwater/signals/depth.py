"""Signal depth and the recommended ratio to keep, with the sentence that states the conclusion or why there is none."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal, NamedTuple

import numpy as np

from headwater import noninferiority
from headwater.data.truncation import Keep, Truncation
from headwater.data.truncation_effect import flops_saved
from headwater.noninferiority import Comparison
from headwater.signals.curves import CurveKey, Curves
from headwater.signals.prefix_scorers import Ints, kept_of
from headwater.statistics import LEVEL, Estimate, Floats

CHANCE = 0.5
SHARES = (0.9, 0.75, 0.5)
"""D90, D75, D50: shares of the above-chance accuracy."""

ROUNDING = 1e-12
"""Tolerance by which an accuracy equal to its threshold counts as having reached it."""

Verdict = Literal["keep", "keep_all", "chance", "length", "too_few"]
"""keep: a shorter beginning is not worse than the whole response by more than the margin. keep_all: even the longest
one is worse. chance, length, too_few: no conclusion, because accuracy is not shown to be above chance, is not shown to
be above that of length alone, or rests on too few pairs."""


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


def accuracy_changes(
    ratios: Sequence[Fraction], accuracy: Floats, draws: Floats, n: Estimate, margin: float
) -> list[tuple[Fraction, Comparison]]:
    """Return every ratio compared with the last one, from paired resamples; the longest ratio first.

    `accuracy` [k] and `draws` [resamples, k] are a curve and its resamples, `n` an estimate with their counts, and
    `margin` is in percentage points.
    """
    last = len(ratios) - 1
    return [
        (ratios[row], _compared(accuracy[row] - accuracy[last], draws[:, row] - draws[:, last], n, margin))
        for row in reversed(range(last))
    ]


def _compared(difference: float, draws: Floats, n: Estimate, margin: float) -> Comparison:
    if n.low is None:
        return noninferiority.against(Estimate(float(difference), None, None, n.n, n.clusters), margin)
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(draws, [tail, 1 - tail])
    found = Estimate(float(difference), float(low), float(high), n.n, n.clusters)
    return noninferiority.against(found, margin)


@dataclass(frozen=True)
class Recommendation:
    """Recommended ratio to keep, or why there is none."""

    verdict: Verdict
    keep: Fraction | None
    """The ratio to keep; None where there is no conclusion."""
    sentence: str
    """The recommendation as a sentence with its figures."""


def recommend(curves: Curves, ratios: Sequence[Fraction], margin: float) -> Recommendation:
    """Recommend the smallest ratio that is not worse than all by more than `margin` percentage points.

    Ratios are tested from long to short, and the first that fails ends it: tested in a fixed order, each at the full
    level, the chance of recommending a ratio that is worse by more stays that of one test, at most 2.5 % (Maurer,
    Hothorn and Lehmacher 1995).
    """
    full = curves.points[CurveKey("accuracy", "own", Keep(ratios[-1]))]
    if full.low is None or full.low <= CHANCE or full.value <= curves.shuffled.max():
        return Recommendation("chance", None, _at_chance(full, curves.shuffled))
    length = length_baseline(curves, ratios, margin)
    if not length.gain.better:
        return Recommendation("length", None, _no_better_than_length(full, length))
    tested = accuracy_changes(ratios, *curves.along("accuracy", ratios), full, margin)
    passed = list(itertools.takewhile(lambda each: each[1].not_worse, tested))
    if passed:
        ratio, found = passed[-1]
        kept = curves.points[CurveKey("accuracy", "own", Keep(ratio))]
        return Recommendation("keep", ratio, _keep(ratio, found, kept, full))
    verdict: Verdict = "keep_all" if tested[0][1].worse else "too_few"
    return Recommendation(
        verdict, ratios[-1] if verdict == "keep_all" else None, _none_shorter(*tested[0], full, verdict)
    )


class LengthBaseline(NamedTuple):
    """Accuracy of always choosing by length on full responses, and how far the scorer is above it."""

    wins: Literal["longer", "shorter"]
    """Which responses are preferred more often."""
    accuracy: float
    gain: Comparison
    """The scorer compared with it, on the same pairs."""


def length_baseline(curves: Curves, ratios: Sequence[Fraction], margin: float) -> LengthBaseline:
    """Compare the scorer with length alone on full responses, in whichever direction length predicts the preference."""
    full = curves.points[CurveKey("accuracy", "own", Keep(ratios[-1]))]
    accuracy, draws = curves.along("accuracy", ratios[-1:])
    length, length_draws = curves.along("length", ratios[-1:])
    longer = bool(length[0] >= CHANCE)
    if not longer:
        length, length_draws = 1 - length, 1 - length_draws
    gain = _compared(float(accuracy[0] - length[0]), (draws - length_draws)[:, 0], full, margin)
    return LengthBaseline("longer" if longer else "shorter", float(length[0]), gain)


def training_saved(prompts: Ints, lengths: Ints, ratio: Fraction) -> float:
    """Return the share of training FLOPs that keeping `ratio` saves, 0 to 1, taken as the share of tokens.

    `prompts` [pairs] are prompt lengths, counted once a pair (training computes them once); `lengths` are [pairs, 2].
    """
    kept = kept_of(Truncation(Keep(ratio)), lengths)
    return flops_saved(float(prompts.sum()), float(kept.sum()), float(lengths.sum()))


def _percent(share: Fraction | float) -> str:
    return f"{100 * float(share):.4g} %"


def _figure(found: Estimate) -> str:
    interval = "" if found.low is None else f" [{found.low:.3f}, {found.high:.3f}]"
    return f"{found.value:.3f}{interval} (n = {found.n})"


def _keep(ratio: Fraction, found: Comparison, kept: Estimate, full: Estimate) -> str:
    return (
        f"Keep the first {_percent(ratio)} of each response: accuracy there is {kept.value:.3f} against "
        f"{_figure(full)} on full responses. It {found.says('on full responses')}. It is the shortest beginning tried "
        "of which that is shown."
    )


def _none_shorter(ratio: Fraction, found: Comparison, full: Estimate, verdict: Verdict) -> str:
    opening = "Keep all" if verdict == "keep_all" else "No conclusion"
    return (
        f"{opening}: accuracy on full responses is {_figure(full)}. On the first {_percent(ratio)} of each response, "
        f"the longest beginning tried, it {found.says('on full responses')}."
    )


def _at_chance(full: Estimate, shuffled: Floats) -> str:
    reason = "there are too few prompts" if full.low is None else "it cannot be told from chance"
    return (
        f"No conclusion: accuracy on full responses is {_figure(full)}, and {reason} ({len(shuffled)} shuffles of the "
        f"labels gave {shuffled.min():.3f} to {shuffled.max():.3f})."
    )


def _no_better_than_length(full: Estimate, length: LengthBaseline) -> str:
    says = length.gain.says_if_better("that of length alone")
    return (
        f"No conclusion: accuracy on full responses is {_figure(full)}. It {says} ({length.wins} wins: "
        f"{length.accuracy:.3f}), so the curve may show nothing but length."
    )
