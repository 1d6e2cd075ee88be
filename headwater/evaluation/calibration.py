"""Calibration of reward margins: the probabilities that they imply, against how often the model is right.

Under Bradley–Terry (arXiv:2203.02155, eq. 1) the chosen response is better with probability σ(m), m being the margin.
The verdict is the response with the higher reward, and its confidence σ(|m|) lies between ½ and 1.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import scipy.special

from headwater import statistics
from headwater.results.evaluation import Bin
from headwater.statistics import Estimate, Floats

BINS = 10


def brier(margins: Floats, conversation_ids: Sequence[str], seed: int) -> Estimate:
    """Return the mean of (1 − σ(m))² over `margins` m [pairs]: 0 at best, ¼ where all margins are 0."""
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
    """Return the expected calibration error: |confidence − accuracy| of the bins of `reliability`, weighted by pairs.

    As in the literature (arXiv:1706.04599, eq. 3) it is not corrected for chance: it is too large on small data, and
    more so in resamples, so that the interval can lie above the value.
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
