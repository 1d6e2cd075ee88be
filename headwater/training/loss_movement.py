"""Whether a training loss moved: its change from the first to the last quarter of the steps, against its noise."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

FEWEST = 8
"""Logged losses below which nothing is said."""
LEAST = 0.005
"""Change, as a share of the first loss, below which a loss hardly moved even where the noise is smaller."""


def hardly_moved(losses: Sequence[float]) -> str:
    """Return that the logged `losses` changed by less than their noise, or hardly at all; "" where they did move.

    The noise is the half width of the 95 % interval of the difference of both quarters; the spread of a single loss is
    taken from the differences of neighbours, which a trend does not change.
    """
    from scipy.stats import t

    if len(losses) < FEWEST or not np.isfinite(losses).all():
        return ""
    part = len(losses) // 4
    first, last = float(np.mean(losses[:part])), float(np.mean(losses[-part:]))
    noise = float(t.ppf(0.975, len(losses) // 2)) * float(np.std(np.diff(losses), ddof=1)) / np.sqrt(part)
    change = abs(last - first)
    if change > noise and change > LEAST * abs(first):
        return ""
    why = "less than its noise" if change <= noise else f"less than {LEAST:.1%}"
    return (
        f"the loss moved by {why}: {first:.5g} in the first quarter of the logged steps, {last:.5g} in the last "
        f"(noise {noise:.2g})"
    )
