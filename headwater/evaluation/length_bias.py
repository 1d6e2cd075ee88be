"""Length corrections of rewards, and the figures that they change. ★ A newcomer adds a correction here.

A correction that is fitted is fitted on pairs that the model was trained on, never on those that it is evaluated on.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from headwater import statistics
from headwater.errors import UsageError
from headwater.evaluation.baselines import scored_pairs
from headwater.evaluation.comparison import by_who_is_longer, length_correlation, wins
from headwater.results import runs
from headwater.results.evaluation import BeforeAfter
from headwater.statistics import Estimate, Floats


class Correction(Protocol):
    """Rewards and lengths [pairs, 2] to rewards [pairs, 2]."""

    def __call__(self, rewards: Floats, lengths: Floats) -> Floats:
        """Return the corrected rewards."""
        ...


@dataclass(frozen=True, slots=True)
class Divide:
    """r / (α + length), length in tokens. Negative rewards rise with length under it, so centre rewards first."""

    alpha: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.alpha) and self.alpha >= 0):
            raise UsageError(f"divide(alpha={self.alpha})", "alpha must be 0 or more tokens")

    def __call__(self, rewards: Floats, lengths: Floats) -> Floats:
        """Return r / (α + length)."""
        return np.asarray(rewards / (self.alpha + lengths), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Regress:
    """r − b · length, the reward less what its length predicts; a straight line for the curve of arXiv:2409.17407.

    b is the least-squares slope within pairs of the evaluate run `on`, made of the training pairs with
    `--allow-leakage`.
    """

    on: str

    def __call__(self, rewards: Floats, lengths: Floats) -> Floats:
        """Return r − b · length."""
        return np.asarray(rewards - self.slope() * lengths, dtype=np.float64)

    def check(self, model: str) -> None:
        """Refuse a run that `slope` cannot be fitted on, or of another model. Errors: `UsageError`."""
        self.slope()
        fitted_on = runs.load(Path(self.on)).config.get("model")
        if fitted_on != model:
            raise UsageError(self.on, f"holds the rewards of {fitted_on}", f"expected those of {model}")

    def slope(self) -> float:
        """Return b, in reward a token. Errors: `UsageError` for a run that recorded no rewards, or corrected ones."""
        run = runs.load(Path(self.on))
        if run.facts.get("correction"):
            raise UsageError(self.on, f"holds rewards corrected by {run.facts['correction']}", "name a plain run")
        rewards, lengths = scored_pairs(run)
        if not len(rewards):
            raise UsageError(self.on, "recorded no rewards of pairs", "name a run of evaluate on the training pairs")
        return slope(rewards[:, 0] - rewards[:, 1], lengths[:, 0] - lengths[:, 1])


def slope(reward: Floats, length: Floats) -> float:
    """Return the least-squares slope through 0 of differences within pairs, [pairs]; 0 where all lengths are equal."""
    spread = float(length @ length)
    return float(reward @ length) / spread if spread else 0.0


CORRECTIONS = {"divide": Divide, "regress": Regress}


def bias(rewards: Floats, lengths: Floats, conversation_ids: Sequence[str], seed: int) -> dict[str, Estimate]:
    """Return the figures that show length bias, of rewards and lengths [pairs, 2]; a correction should change them."""
    won = wins(*rewards.T)
    sides = by_who_is_longer(won, lengths, conversation_ids, seed)
    named = {f"accuracy, preferred one {side}": sides[side] for side in ("longer", "shorter") if sides[side].n}
    return {
        "accuracy": statistics.mean(won, conversation_ids, seed),
        "length_correlation": length_correlation(rewards, lengths, conversation_ids, seed),
        **named,
    }


def compare_biases(
    before: Floats, after: Floats, lengths: Floats, conversation_ids: Sequence[str], seed: int
) -> dict[str, BeforeAfter]:
    """Return the figures of `bias` of two models, or before and after a correction; rewards are [pairs, 2]."""
    one, other = (bias(rewards, lengths, conversation_ids, seed) for rewards in (before, after))
    return {name: BeforeAfter(one[name], other[name]) for name in one}
