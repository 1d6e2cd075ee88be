"""Token weights: how much each response token counts in a score. ★ A newcomer adds weights here.

A score is Σ w_t log π(y_t), and the same w_t weight the reference, so every loss on scores combines with every
weighting. Hard truncation is the weighting `first`; the others are its soft relatives. Weights depend only on the two
lengths and the row's texts, never on a model.

Published code differs in two places: SamPO (arXiv:2406.10957) draws different tokens for policy and reference, while
one draw serves both here; some trainers apply LD-DPO to the policy only, here, as in its paper, it applies to both.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from headwater.errors import UsageError

Floats = NDArray[np.float64]


class PairWeights(NamedTuple):
    """Weights of the tokens of both responses, [chosen tokens] and [rejected tokens]."""

    chosen: Floats
    rejected: Floats


class Weights(Protocol):
    """Interface of a weighting."""

    def __call__(self, chosen: int, rejected: int, key: str) -> PairWeights:
        """Return the weights of responses of these lengths; `key` (`Prompted.key`) seeds a random weighting."""
        ...


@dataclass(frozen=True, slots=True)
class Uniform:
    """Every token counts 1: the plain sum."""

    def __call__(self, chosen: int, rejected: int, key: str) -> PairWeights:
        """Return ones."""
        return PairWeights(np.ones(chosen), np.ones(rejected))


@dataclass(frozen=True, slots=True)
class First:
    """The first `tokens` count 1, the rest 0: truncation of the loss, while the whole response stays in the input."""

    tokens: int

    def __post_init__(self) -> None:
        _require(self.tokens >= 1, f"first(tokens={self.tokens})", "tokens must be 1 or more")

    def __call__(self, chosen: int, rejected: int, key: str) -> PairWeights:
        """Return ones, then zeros."""
        return PairWeights(*(np.where(np.arange(n) < self.tokens, 1.0, 0.0) for n in (chosen, rejected)))


@dataclass(frozen=True, slots=True)
class Decay:
    """w_t = γ^t with t = 1 for the first token: D²PO, arXiv:2502.14340; its code starts at γ¹ too."""

    gamma: float = 0.98

    def __post_init__(self) -> None:
        _require(0 < self.gamma <= 1, f"decay(gamma={self.gamma})", "gamma must lie in (0, 1]")

    def __call__(self, chosen: int, rejected: int, key: str) -> PairWeights:
        """Return powers of γ."""
        return PairWeights(*(np.power(self.gamma, np.arange(1.0, n + 1)) for n in (chosen, rejected)))


@dataclass(frozen=True, slots=True)
class Tail:
    """Tokens beyond the shorter response count α: LD-DPO, arXiv:2409.06411. α = 0 is an equal cut (POET)."""

    alpha: float = 0.5

    def __post_init__(self) -> None:
        _require(0 <= self.alpha <= 1, f"tail(alpha={self.alpha})", "alpha must lie in [0, 1]")

    def __call__(self, chosen: int, rejected: int, key: str) -> PairWeights:
        """Return ones up to the shorter length, then α."""
        shared = min(chosen, rejected)
        return PairWeights(*(np.where(np.arange(n) < shared, 1.0, self.alpha) for n in (chosen, rejected)))


@dataclass(frozen=True, slots=True)
class DownSample:
    """As many tokens of the longer response as the shorter has, without replacement: SamPO, arXiv:2406.10957."""

    seed: int = 0

    def __call__(self, chosen: int, rejected: int, key: str) -> PairWeights:
        """Return ones for drawn tokens; the draw depends only on the seed and the row."""
        digest = hashlib.sha256(f"{self.seed}:{key}".encode()).digest()
        generator = np.random.default_rng(int.from_bytes(digest[:8], "big"))
        drawn = []
        for n in (chosen, rejected):
            weights = np.zeros(n)
            weights[generator.choice(n, min(chosen, rejected), replace=False)] = 1.0
            drawn.append(weights)
        return PairWeights(*drawn)


@dataclass(frozen=True, slots=True)
class Mean:
    """w_t = 1 / |y|: length-normalised log-ratios (Tülu 3, arXiv:2411.15124; TRL's `sigmoid_norm`)."""

    def __call__(self, chosen: int, rejected: int, key: str) -> PairWeights:
        """Return weights that sum to 1, or to 0 for the empty side of a labelled row."""
        return PairWeights(*(np.full(n, 1 / max(n, 1)) for n in (chosen, rejected)))


def _require(holds: bool, call: str, problem: str) -> None:
    if not holds:
        raise UsageError(call, problem)


WEIGHTS: dict[str, Callable[..., Weights]] = {
    "uniform": Uniform,
    "first": First,
    "decay": Decay,
    "tail": Tail,
    "down_sample": DownSample,
    "mean": Mean,
}
COMPARING = (Tail, DownSample)
"""Weightings that use the length of the other response, and therefore need pairs."""
