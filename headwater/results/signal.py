"""Stored results of `headwater signal` and `headwater divergence`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from headwater.results.points import Point
from headwater.results.stored import StoredResult


@dataclass(frozen=True, kw_only=True)
class CurvePoint(Point):
    """One point of a curve over how much of each response is read."""

    curve: str
    """`accuracy`, `margin` (mean reward difference), or the name of a control: `length`, `length-flip`, `suffix`,
    `middle`, `random-span`, `words`, `published`."""
    cut: str
    """Whose length a ratio is taken of: `own`, `equal` (the shorter response) or `shared` (the longer one)."""
    unit: str
    """`ratio`, or what `amount` counts: `tokens` or `words`."""
    amount: float
    group: str
    """`all`, or a group of pairs such as `source: helpful-base`."""


@dataclass(frozen=True)
class SignalCurve(StoredResult):
    """Accuracy and its controls by how much of each response is read."""

    FILE: ClassVar[str] = "curves.json"

    points: tuple[CurvePoint, ...]

    def along(
        self, curve: str = "accuracy", cut: str = "own", unit: str = "ratio", group: str = "all"
    ) -> list[CurvePoint]:
        """Return the points of one curve, in the order in which they were measured: ascending in `amount`."""
        wanted = (curve, cut, unit, group)
        return [point for point in self.points if (point.curve, point.cut, point.unit, point.group) == wanted]


@dataclass(frozen=True, kw_only=True)
class DivergencePoint(Point):
    """One figure of a divergence, in nats, over the positions `first` to `last` of a response (None: to its end)."""

    what: str
    """`kl_a_token`, `kl_a_response`, `share` (of the whole KL, in positions 1 to `last`) or `log_ratio_a_token`."""
    first: int
    last: int | None
    estimator: str | None = None
    """Estimator of a KL: `exact`, or Monte-Carlo with its draws."""
    responses: str | None = None
    """Responses of a log-ratio: `chosen`, `rejected` or `samples`."""


@dataclass(frozen=True)
class Divergence(StoredResult):
    """KL(policy ‖ reference) by position and estimator, and the log-ratio of the tokens that stand there."""

    FILE: ClassVar[str] = "divergence.json"

    points: tuple[DivergencePoint, ...]

    def figures(self, what: str) -> list[DivergencePoint]:
        """Return the points of one kind of figure, in the order of positions, estimator after estimator."""
        return [point for point in self.points if point.what == what]
