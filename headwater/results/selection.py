"""Stored result of `headwater select`: what was chosen by, how other selectors agree, and examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar

from headwater.data.selection import Agreement, Example
from headwater.results.stored import StoredResult


@dataclass(frozen=True)
class GradientRow:
    """A measured gradient norm of the DPO loss, beside the bound that preference variance sets; both divided by β."""

    norm: float
    bound: float
    taken: bool
    id: str = ""
    opening: str = ""
    """Id of the conversation."""
    score: float | None = None
    responses: int = 0
    pvar: float = float("nan")


@dataclass(frozen=True, kw_only=True)
class Selection(StoredResult):
    """What rows were chosen by, and what the choice did."""

    FILE: ClassVar[str] = "selection.json"

    by: str
    """Constructor call of the selector."""
    take: str = ""
    budget: str = ""
    unit: str = ""
    """Unit of lengths: characters or tokens."""
    agreement: tuple[Agreement, ...] = ()
    """Other selectors at the same budget."""
    sources: dict[str, tuple[int, int]] = field(default_factory=dict)
    """Rows and taken rows, by source."""
    examples: Mapping[str, tuple[Example, ...]] = field(default_factory=dict)
    """Rows with the highest (`top`) and lowest (`bottom`) scores."""
    gradients: tuple[GradientRow, ...] = ()
