"""Stored results of `headwater decode` and `headwater frontier`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from headwater.results.points import Point
from headwater.results.stored import StoredResult, as_json, flat
from headwater.statistics import Estimate


@dataclass(frozen=True, kw_only=True)
class DecodedResponse:
    """One decoded response with its totals and its figures by token; what is not known is None. KL is in nats."""

    id: str
    source: str
    opening: str
    """Id of the conversation, by which intervals are clustered."""
    prompt: list[dict[str, str]]
    """Messages with `role` and `content`."""
    draw: int
    response: str
    complete: bool
    """Whether it ended by itself."""
    response_tokens: int
    policy_share: float
    """Mean over tokens of the policy's weight: 1 for the policy alone, 0 for the reference alone."""
    kl: float | None = None
    """KL(used ‖ reference), summed over tokens."""
    kl_policy: float | None = None
    """KL(policy ‖ reference), summed over tokens."""
    log_ratio: float | None = None
    """log used − log reference of the tokens drawn, summed."""
    monte_carlo: float | None = None
    """Monte-Carlo estimate of `kl_policy`."""
    rewards: dict[str, float | None] = field(default_factory=dict)
    """Reward by reward model; None for a response that is empty or too long."""
    same_tokens: bool | None = None
    """Whether `response` is encoded into `tokens` again, without the one that ended it; None where they are unknown."""
    tokens: list[int] | None = None
    """Token ids, with the one that ended the response."""
    token_ends: list[int] | None = None
    """Where each token ends in `response`, in characters."""
    token_policy_share: list[float] | None = None
    token_kl: list[float] | None = None
    token_kl_policy: list[float] | None = None
    token_log_ratio: list[float] | None = None
    token_monte_carlo: list[float] | None = None

    def record(self) -> dict[str, Any]:
        """Return it as plain values; what is not known is left out."""
        plain: dict[str, Any] = as_json(self)
        return plain


@dataclass(frozen=True)
class DecodedResponses(StoredResult):
    """All responses of a run of decode, a line each."""

    FILE: ClassVar[str] = "decoded.jsonl"

    responses: tuple[DecodedResponse, ...]

    def table_rows(self) -> list[dict[str, Any]]:
        """Return a row a response, without what is known by token."""
        by_token = [f.name for f in dataclasses.fields(DecodedResponse) if f.name.startswith("token")]
        return [{key: value for key, value in flat(one).items() if key not in by_token} for one in self.responses]


@dataclass(frozen=True, kw_only=True)
class PositionMean(Point):
    """A mean a token over the positions `first` to `last` (None: to the end); a response's first token is 1."""

    what: str
    """`policy_share`, `kl` or `kl_policy`."""
    first: int
    last: int | None


@dataclass(frozen=True)
class PositionMeans(StoredResult):
    """The weight of the policy and the KL by position, over the responses that reach it."""

    FILE: ClassVar[str] = "positions.json"

    means: tuple[PositionMean, ...]


@dataclass(frozen=True, kw_only=True)
class FrontierPoint:
    """A decoding strategy by one reward model: its reward and its KL from the reference, with intervals."""

    reward_model: str
    name: str
    """Constructor call of the strategy."""
    family: str
    setting: float
    kl: Estimate
    """Nats a response."""
    reward: Estimate
    gap: Estimate | None
    """Reward above the baseline's at equal KL; None for the baseline itself, and outside of the KL that it reaches."""


@dataclass(frozen=True)
class Frontier(StoredResult):
    """Reward against KL of every strategy and reward model."""

    FILE: ClassVar[str] = "frontier.json"

    points: tuple[FrontierPoint, ...]


@dataclass(frozen=True)
class PublishedPoints(StoredResult):
    """Points of papers to draw behind a frontier, by FILE.json:NAME: pairs of KL and reward."""

    FILE: ClassVar[str] = "published.json"

    points: Mapping[str, tuple[tuple[float, float], ...]]
