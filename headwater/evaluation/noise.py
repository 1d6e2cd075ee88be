"""Noise of rewards: how much the difference of a pair changes when it is scored again in another batch.

Which rows share a forward pass changes the order of sums, and so the last digits of every reward. A difference below
that decides nothing: it is a tie.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from headwater.results.evaluation import RewardNoise
from headwater.statistics import Floats

SCORED_AGAIN = 32
"""Maximum number of pairs that are scored twice."""


def sample(places: Sequence[int]) -> list[int]:
    """Return up to `SCORED_AGAIN` of `places`, evenly spread, the last one first: another batch than the first time."""
    if len(places) <= SCORED_AGAIN:
        return list(reversed(places))
    spread = np.linspace(0, len(places) - 1, SCORED_AGAIN).astype(int)
    return [places[each] for each in reversed(spread.tolist())]


def measured(differences: Floats, again: Callable[[list[int]], Floats], places: Sequence[int]) -> RewardNoise:
    """Return the largest change of `differences` [pairs] when some of `places` are scored again.

    `again` maps k places to their differences [k], computed in one batch.
    """
    chosen = sample(places)
    if not chosen:
        return RewardNoise(0.0, 0, 0)
    largest = float(np.abs(differences[chosen] - again(chosen)).max())
    ties = int((np.abs(differences[list(places)]) <= largest).sum()) if largest > 0 else 0
    return RewardNoise(largest, len(chosen), ties)


def with_ties(rewards: Floats, noise: float) -> Floats:
    """Return rewards [pairs, 2] in which the two of a pair are equal where they differ by no more than `noise`."""
    close = np.abs(rewards[:, 0] - rewards[:, 1]) <= noise
    means = np.repeat(rewards.mean(axis=1, keepdims=True), 2, axis=1)
    return np.where(close[:, None], means, rewards)


def sentence(found: RewardNoise, pairs: int) -> str:
    """Return what was measured, and how many of the `pairs` count as ties because of it."""
    return (
        f"noise: scored again in another batch, differences of {found.pairs} pairs change by up to "
        f"{found.largest:.2g}; {found.ties:,} of {pairs:,} pairs differ by no more than that and are ties"
    )
