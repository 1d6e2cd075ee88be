"""Does a margin mean what it says? Probabilities that a model gives its own verdicts, against how often it is right.

Under Bradley–Terry (arXiv:2203.02155, eq. 1) a margin m says that the chosen response is better with probability σ(m).
The verdict is the response with the higher reward, and its confidence σ(|m|) lies between ½ and 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.special

from headwater import statistics
from headwater.statistics import Estimate, Floats

BINS = 10


class Bin(NamedTuple):
    """Pairs of like confidence: their mean confidence, and how often the verdict was right (ties count ½)."""

    confidence: float
    accuracy: Estimate


def brier(margins: Floats, conversation_ids: Sequence[str], seed: int) -> Estimate:
    """Mean of (1 − σ(m))² over `margins` [pairs] of chosen over rejected: 0 at best, ¼ for one that never decides."""
    return statistics.mean(scipy.special.expit(-margins) ** 2, conversation_ids, seed)


def reliability(margins: Floats, wins: Floats, conversation_ids: Sequence[str], seed: int) -> list[Bin]:
    """Return the reliability curve: up to `BINS` bins of equal width in confidence, those without pairs left out."""
    confidence, place = _binned(margins)
    found = []
    for each in np.unique(place):
        inside = place == each
        mine = [
            conversation_id for conversation_id, there in zip(conversation_ids, inside.tolist(), strict=True) if there
        ]
        found.append(Bin(float(confidence[inside].mean()), statistics.mean(wins[inside], mine, seed)))
    return found


def calibration_error(margins: Floats, wins: Floats, conversation_ids: Sequence[str], seed: int) -> Estimate:
    """Expected calibration error: |confidence − accuracy| of the bins of `reliability`, weighed by their pairs.

    As everywhere in the literature (arXiv:1706.04599, eq. 3) it is not corrected for chance: small data look worse
    than they are, resamples more so, and the interval can therefore lie above the value.
    """
    confidence, place = _binned(margins)
    gaps = np.zeros((BINS, len(margins)))
    gaps[place, np.arange(len(margins))] = confidence - wins

    def error(*sums: Floats) -> Floats:
        *by_bin, count = sums
        found: Floats = np.abs(np.stack(by_bin)).sum(axis=0) / count
        return found

    return statistics.of_sums([*gaps, np.ones(len(margins))], error, conversation_ids, seed)


def _binned(margins: Floats) -> tuple[Floats, np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """Return the confidence in every verdict, and its bin."""
    confidence = np.asarray(scipy.special.expit(np.abs(margins)), dtype=np.float64)
    return confidence, np.minimum(((confidence - 0.5) * 2 * BINS).astype(np.int64), BINS - 1)
