"""Rewards with length taken out. ★ A newcomer adds a correction here.

A correction is fitted, where it needs to be, on pairs that the model was trained on, never on those it is judged on.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from headwater.errors import UsageError
from headwater.evaluation.baselines import of_pairs
from headwater.evaluation.comparison import by_who_is_longer, summarise_rewards, wins
from headwater.results import runs
from headwater.statistics import Estimate, Floats


class Correction(Protocol):
    """Rewards and lengths [pairs, 2] to rewards [pairs, 2]."""

    def __call__(self, rewards: Floats, lengths: Floats) -> Floats:
        """Return the corrected rewards."""
        ...


@dataclass(frozen=True, slots=True)
class Divide:
    """Reward per token, softened: r / (α + length). A negative reward rises with length, so centre rewards first."""

    alpha: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.alpha) and self.alpha >= 0):
            raise UsageError(f"divide(alpha={self.alpha})", "alpha must be 0 or more tokens")

    def __call__(self, rewards: Floats, lengths: Floats) -> Floats:
        """Return r / (α + length)."""
        return np.asarray(rewards / (self.alpha + lengths), dtype=np.float64)


@dataclass(frozen=True, slots=True)
class Regress:
    """Reward less what its length alone predicts: r − b · length; a straight line in place of arXiv:2409.17407's curve.

    b is the least-squares slope within pairs of the evaluate run `on`, made of the training pairs with
    `--allow-leakage`.
    """

    on: str

    def __call__(self, rewards: Floats, lengths: Floats) -> Floats:
        """Return r − b · length."""
        return np.asarray(rewards - self.slope() * lengths, dtype=np.float64)

    def slope(self) -> float:
        """Return b, in reward a token. Errors: `UsageError` for a run that recorded no rewards, or corrected ones."""
        run = runs.load(Path(self.on))
        if run.facts.get("correction"):
            raise UsageError(self.on, f"holds rewards corrected by {run.facts['correction']}", "name a plain run")
        rows = of_pairs(run)
        if not rows:
            raise UsageError(self.on, "recorded no rewards of pairs", "name a run of evaluate on the training pairs")
        reward, length = (
            np.array([row[f"chosen_{what}"] - row[f"rejected_{what}"] for row in rows], dtype=np.float64)
            for what in ("reward", "tokens")
        )
        return slope(reward, length)


def slope(reward: Floats, length: Floats) -> float:
    """Return the least-squares slope through 0 of differences within pairs [pairs]; 0 where lengths never differ."""
    spread = float(length @ length)
    return float(reward @ length) / spread if spread else 0.0


CORRECTIONS = {"divide": Divide, "regress": Regress}


def bias(rewards: Floats, lengths: Floats, conversation_ids: list[str], seed: int) -> Mapping[str, Estimate]:
    """Return the figures that a correction is meant to move."""
    figures = summarise_rewards(rewards, lengths, conversation_ids, seed)
    sides = by_who_is_longer(wins(*rewards.T), lengths, conversation_ids, seed)
    named = {f"accuracy, preferred one {side}": sides[side] for side in ("longer", "shorter") if sides[side].n}
    return {name: figures[name] for name in ("accuracy", "length_correlation")} | named
