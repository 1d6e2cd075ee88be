"""Figures of stored results: value, interval and counts beside the columns that name the figure."""

from __future__ import annotations

from dataclasses import dataclass

from headwater.statistics import Estimate


@dataclass(frozen=True, kw_only=True)
class Point:
    """A figure with its interval and counts; bounds and counts are None where they are not known."""

    value: float
    low: float | None
    high: float | None
    n: int | None
    clusters: int | None

    @property
    def estimate(self) -> Estimate:
        """The figure as an estimate; counts that are not known are 0."""
        return Estimate(self.value, self.low, self.high, self.n or 0, self.clusters or 0)
