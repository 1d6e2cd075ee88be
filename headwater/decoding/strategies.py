"""Decoding strategies: which distribution the next token is drawn from, that of a policy, its reference, or a mixture.

A strategy names the `turn` before anything is computed, so a model that is not needed is not called. Only where it is
the turn of both does it see both distributions, and mixes their logarithms:

    log q = share · log π + (1 − share) · log π_ref − log Z        (a share above 1 extrapolates)

A constructor call is its configuration: `kl_threshold(threshold=0.5)`. Temperature and filters are applied afterwards.
To add one, write a frozen dataclass with its source and give it a line in `STRATEGIES`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, Protocol

import torch

from headwater.errors import UsageError

Turn = Literal["policy", "reference", "both"]


class Mixture(NamedTuple):
    """Mixed distributions of the next token, for n prefixes."""

    log_probs: torch.Tensor
    """[n, vocabulary], normalised."""
    share: torch.Tensor
    """Weight of the policy, [n]: 1 policy alone, 0 reference alone."""


class Strategy(Protocol):
    """Interface of a strategy."""

    def turn(self, position: int) -> Turn:
        """Return which models are needed for the token at `position` of the response; the first token is at 0."""

    def mix(self, policy: torch.Tensor, reference: torch.Tensor) -> Mixture:
        """Mix log-probabilities [n, vocabulary] of both models; called only where it is the turn of both."""


@dataclass(frozen=True)
class Alone:
    """One model alone: the policy, or the reference."""

    who: Literal["policy", "reference"]

    def turn(self, position: int) -> Turn:
        """Return the one model, at every position."""
        return self.who

    def mix(self, policy: torch.Tensor, reference: torch.Tensor) -> Mixture:
        """Return the distribution of the one model."""
        return interpolated(policy, reference, policy.new_full((len(policy),), float(self.who == "policy")))


@dataclass(frozen=True)
class LengthControl:
    """The policy generates the `first` tokens, the reference the rest (arXiv:2505.17122, section 3.3)."""

    first: int

    def __post_init__(self) -> None:
        """Refuse a negative number. Errors: `UsageError`."""
        if self.first < 0:
            raise UsageError(f"length_control(first={self.first})", "expected 0 or more tokens")

    def turn(self, position: int) -> Turn:
        """Return the policy for the first tokens, then the reference."""
        return "policy" if position < self.first else "reference"

    def mix(self, policy: torch.Tensor, reference: torch.Tensor) -> Mixture:
        """Never called, since it is never the turn of both. Errors: `AssertionError`."""
        raise AssertionError("length control asks one model at a time")


@dataclass(frozen=True)
class KLThreshold:
    """Use the policy where KL(π ‖ π_ref) is above `threshold` nats (arXiv:2505.17122, section 3.3).

    Elsewhere use a mixture with the policy's share `below`: 0 is the reference alone (the paper), 0.5 what the
    published script does. KL is exact, over the whole vocabulary.
    """

    threshold: float
    below: float = 0.0

    def __post_init__(self) -> None:
        """Refuse values out of range. Errors: `UsageError`."""
        if math.isnan(self.threshold) or not math.isfinite(self.below):
            raise UsageError(f"kl_threshold(threshold={self.threshold}, below={self.below})", "expected numbers")

    def turn(self, position: int) -> Turn:
        """Return both, unless the threshold decides alone: KL is never below 0, nor above infinity."""
        if self.threshold < 0 or self.below == 1:
            return "policy"
        return "reference" if self.threshold == math.inf and self.below == 0 else "both"

    def mix(self, policy: torch.Tensor, reference: torch.Tensor) -> Mixture:
        """Return the policy where the two differ by more than the threshold, else the mixture."""
        share = torch.where(divergence(policy, reference) > self.threshold, 1.0, self.below)
        return interpolated(policy, reference, share.to(policy.dtype))


@dataclass(frozen=True)
class Interpolate:
    """A mixture with the policy's share `weight`: 0 is the reference, 1 the policy, above 1 extrapolates.

    The mixture of arXiv:2505.17122, section 3.3, and decoding-time realignment (arXiv:2402.02992): an approximation of
    a policy trained with β / weight.
    """

    weight: float

    def __post_init__(self) -> None:
        """Refuse values out of range. Errors: `UsageError`."""
        if not math.isfinite(self.weight):
            raise UsageError(f"interpolate(weight={self.weight})", "expected a number")

    def turn(self, position: int) -> Turn:
        """Return both models, or the one that a weight of 0 or 1 selects."""
        return "reference" if self.weight == 0 else "policy" if self.weight == 1 else "both"

    def mix(self, policy: torch.Tensor, reference: torch.Tensor) -> Mixture:
        """Return the mixture."""
        return interpolated(policy, reference, policy.new_full((len(policy),), self.weight))


def divergence(policy: torch.Tensor, reference: torch.Tensor) -> torch.Tensor:
    """Return KL(policy ‖ reference) in nats from log-probabilities [n, vocabulary]: [n].

    Tokens without probability under the policy contribute 0.
    """
    terms = policy.exp() * (policy - reference)
    return torch.where(policy == -math.inf, 0.0, terms).sum(1)


def interpolated(policy: torch.Tensor, reference: torch.Tensor, share: torch.Tensor) -> Mixture:
    """Return the geometric mixture with the policy's `share` [n]; shares of 0 and 1 return the models' own numbers."""
    part = share[:, None]
    # lerp is exact at both ends; what it returns is normalised there, and elsewhere by log_softmax.
    mixed = torch.lerp(reference, policy, part)
    pure = (part == 0) | (part == 1)
    return Mixture(mixed if bool(pure.all()) else torch.where(pure, mixed, mixed.log_softmax(1)), share)


STRATEGIES: dict[str, Callable[..., Strategy]] = {
    "policy": lambda: Alone("policy"),
    "reference": lambda: Alone("reference"),
    "length_control": LengthControl,
    "kl_threshold": KLThreshold,
    "interpolate": Interpolate,
}
