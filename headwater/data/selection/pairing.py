"""Pairing rules: which responses to a prompt are compared. To add one, list it in `PAIRINGS`.

The responses' rewards say which of the two is the better one; two with the same reward are a tie and make no pair.
The bounds on PVar hold for pairs drawn independently (`random`); they do not apply to best and worst.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np

from headwater.data.selection.choosing import Unit
from headwater.data.selection.pool import Pool
from headwater.data.selection.variance import Floats, Ints
from headwater.errors import UsageError

Two = tuple[int, int]
"""Places of two different responses."""


class Pairing(Protocol):
    """Chooses pairs of responses; a frozen dataclass whose fields are its settings."""

    def __call__(self, rewards: Floats, draw: random.Random) -> Sequence[Two]:
        """Return the pairs among `rewards` [two or more]; the order within a pair does not count."""
        ...


class PromptPairs(NamedTuple):
    """The pairs of one prompt."""

    pairs: tuple[Two, ...]
    """Places of better and worse."""
    ties: int


def compared(pairing: Pairing, rewards: Floats, seed: str) -> PromptPairs:
    """Return the pairs of one prompt as `pairing` chooses them; responses without a reward (NaN) take no part.

    `seed` (the command's, and the row's key) makes the draw, so that it does not depend on other rows.
    """
    known = np.flatnonzero(~np.isnan(rewards))
    if len(known) < 2:
        return PromptPairs((), 0)
    chosen = [(int(known[one]), int(known[other])) for one, other in pairing(rewards[known], random.Random(seed))]
    pairs = [(one, other) if rewards[one] > rewards[other] else (other, one) for one, other in chosen]
    decided = tuple(pair for pair in pairs if rewards[pair[0]] != rewards[pair[1]])
    return PromptPairs(decided, len(pairs) - len(decided))


def costs(pool: Pool, unit: Unit, pairing: Pairing | None, seed: int) -> Ints:
    """Return what every row costs in prompts, pairs or tokens, [rows]; 0 where no pair can be made of it.

    Tokens are those that training sees: of prompt and both responses, for every pair; without a `pairing`, of the
    prompt and all responses.
    """
    if pairing is None:
        whole = pool.prompt_lengths + np.add.reduceat(pool.lengths, pool.offsets[:-1])
        return whole if unit == "tokens" else np.ones(len(pool), dtype=np.int64)
    found = np.zeros(len(pool), dtype=np.int64)
    reward = pool.reward
    for row, key in enumerate(pool.keys):
        place = pool.of_row(row)
        pairs = compared(pairing, reward[place], seed_of(seed, key)).pairs
        if unit == "tokens":
            lengths = pool.lengths[place]
            found[row] = sum(pool.prompt_lengths[row] + lengths[one] + lengths[other] for one, other in pairs)
        else:
            found[row] = len(pairs) if unit == "pairs" else bool(pairs)
    return found


def seed_of(seed: int, key: str) -> str:
    """Return the seed of one row's draw, by the `key` of the row."""
    return f"{seed}:{key}"


def _best(rewards: Floats) -> int:
    return int(np.argmax(rewards))


def _other_than(place: int, count: int, draw: random.Random) -> int:
    """Draw one of `count` places that is not `place`."""
    drawn = draw.randrange(count - 1)
    return drawn + (drawn >= place)


@dataclass(frozen=True, slots=True)
class BestWorst:
    """The best response against the worst."""

    def __call__(self, rewards: Floats, draw: random.Random) -> Sequence[Two]:
        """Return one pair; a tie where all are equal."""
        worst = int(np.argmin(rewards))
        best = _best(rewards)
        return [(best, worst if best != worst else 1)]


@dataclass(frozen=True, slots=True)
class BestRandom:
    """The best response against any other (Zephyr, arXiv:2310.16944)."""

    def __call__(self, rewards: Floats, draw: random.Random) -> Sequence[Two]:
        """Return one pair."""
        best = _best(rewards)
        return [(best, _other_than(best, len(rewards), draw))]


@dataclass(frozen=True, slots=True)
class RandomPair:
    """Any two responses: the pairs that the bounds on PVar are about."""

    def __call__(self, rewards: Floats, draw: random.Random) -> Sequence[Two]:
        """Return one pair."""
        one, other = draw.sample(range(len(rewards)), 2)
        return [(one, other)]


@dataclass(frozen=True, slots=True)
class All:
    """Every two responses."""

    def __call__(self, rewards: Floats, draw: random.Random) -> Sequence[Two]:
        """Return n (n − 1) / 2 pairs."""
        return list(itertools.combinations(range(len(rewards)), 2))


@dataclass(frozen=True, slots=True)
class Sigma:
    """The response nearest to μ + kσ of a prompt's rewards against the one nearest to μ − kσ (arXiv:2502.16825)."""

    k: float = 2.0

    def __post_init__(self) -> None:
        """Refuse settings that cannot work. Errors: `UsageError`."""
        if not (self.k > 0 and np.isfinite(self.k)):
            raise UsageError(f"sigma(k={self.k:g})", "expected a number of standard deviations above 0")

    def __call__(self, rewards: Floats, draw: random.Random) -> Sequence[Two]:
        """Return one pair, or none where one response is the nearest to both."""
        above, below = (_nearest(rewards, sign * self.k) for sign in (1, -1))
        return [] if above == below else [(above, below)]


@dataclass(frozen=True, slots=True)
class BestSigma:
    """The best response against the one nearest to μ − kσ: of many samples, the worst is not the one to reject.

    arXiv:2502.16825, which places responses by μ ± kσ and advises against the minimum.
    """

    k: float = 2.0

    def __post_init__(self) -> None:
        """Refuse settings that cannot work. Errors: `UsageError`."""
        if not (self.k > 0 and np.isfinite(self.k)):
            raise UsageError(f"best_sigma(k={self.k:g})", "expected a number of standard deviations above 0")

    def __call__(self, rewards: Floats, draw: random.Random) -> Sequence[Two]:
        """Return one pair, or none where the best is the nearest."""
        best, below = _best(rewards), _nearest(rewards, -self.k)
        return [] if best == below else [(best, below)]


def _nearest(rewards: Floats, deviations: float) -> int:
    """Return the place of the reward nearest to μ + `deviations` σ (ddof = 0)."""
    return int(np.argmin(np.abs(rewards - (rewards.mean() + deviations * rewards.std()))))


PAIRINGS: dict[str, type[Pairing]] = {
    "best_worst": BestWorst,
    "best_random": BestRandom,
    "random": RandomPair,
    "all": All,
    "sigma": Sigma,
    "best_sigma": BestSigma,
}
