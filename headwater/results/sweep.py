"""Stored result of `headwater sweep`: accuracy of trained models by kept ratio, beside the one-pass curve."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from headwater.results.points import Point
from headwater.results.stored import StoredResult, stored_as
from headwater.statistics import Estimate


@dataclass(frozen=True, kw_only=True)
class SweepRow:
    """Results of all seeds at one ratio and budget; costs are means over seeds."""

    keep: float
    equal: str
    """Budget in which ratios are equal: `examples` or `tokens`."""
    seen: str
    """Responses it was evaluated on: `full`, or truncated to the `same` ratio."""
    tokens: float = float("nan")
    flops: float = float("nan")
    seconds: float = float("nan")
    by_seed: tuple[float, ...] = ()
    """Accuracy of every seed."""
    accuracy: Estimate
    """Mean over seeds; n and clusters count seeds."""


@dataclass(frozen=True, kw_only=True)
class OnePassPoint(Point):
    """Accuracy at a kept ratio of the model trained on full responses, from one forward pass a pair."""

    keep: float


@dataclass(frozen=True)
class SweepResult(StoredResult):
    """Accuracy of trained models by kept ratio, budget and kind of evaluation."""

    FILE: ClassVar[str] = "sweep.json"

    points: tuple[SweepRow, ...] = field(metadata=stored_as("rows"))
    one_pass: tuple[OnePassPoint, ...]
