"""Facts of data that later commands and the report need to know: how it was truncated, and how it was selected."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypedDict

if TYPE_CHECKING:
    from headwater.data.truncation import CutBy, Part
    from headwater.data.turns import EndToken

Scores = Literal["reward", "probability", "likelihood"]
"""What the scores of responses are: rewards or ratings, probabilities of beating one common opponent, or
log-probabilities under a policy."""


class TruncationFacts(TypedDict, total=False):
    """Facts of a truncation."""

    end: EndToken
    cut: CutBy
    part: Part
    keep: float
    """Share of the response tokens kept, over all truncations so far."""
    kept: str
    """Amount kept of every response, where it is absolute (`128tok`); then there is no such share."""


class SelectionFacts(TypedDict, total=False):
    """Facts of a selection."""

    scores: Scores
    selected_by: str
    """Constructor call of the selector."""
    selected_end: str
    """Which end of the scores was taken: top or bottom."""
    pvar_unit: float
    """Unit of the rewards of preference variance."""
