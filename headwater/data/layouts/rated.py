"""Layouts with one rated response a row: the rows with the same prompt become one record with several responses.

All rows are held until the last is read, because the rows of a prompt need not follow each other.
"""

from __future__ import annotations

from collections.abc import Sequence

from headwater.data.layouts.fields import number, text
from headwater.data.layouts.judged import helpsteer_turns
from headwater.data.layouts.layout import Broken, CandidatesDraft, Fields, Part, Together
from headwater.data.layouts.messages import instructed, text_of, with_system
from headwater.data.preference import Message, Response

SCORES = ("score", "rating", "reward")
"""Columns that hold the score of a rated response."""


def rated(fields: Fields) -> Part:
    """`prompt` or `instruction`, `response`, and the score of this response in one of `SCORES`."""
    asked = instructed(fields, "instruction" if "instruction" in fields else "prompt")
    return part(asked, Response(text_of(fields, "response"), _score(fields)))


def score_of(fields: Fields) -> str | None:
    """Return the column of `SCORES` that a row has; None where it has none or several."""
    held = [column for column in SCORES if column in fields]
    return held[0] if len(held) == 1 else None


def _score(fields: Fields) -> float | None:
    column = score_of(fields)
    if column is None:
        raise Broken("no column of a score", f"expected one of {', '.join(SCORES)}")
    return number(fields, column)


def helpsteer_ratings(fields: Fields) -> Part:
    """HelpSteer and HelpSteer2 (NVIDIA): a `response` with five ratings; `helpfulness`, from 0 to 4, is its score."""
    asked = with_system(fields, helpsteer_turns(text(fields, "prompt")))
    return part(asked, Response(text(fields, "response"), number(fields, "helpfulness")))


def part(asked: tuple[Message, ...], response: Response) -> Part:
    """Return a response as a part of the record of its prompt."""
    return Part(asked, (asked, response))


def _join(parts: Sequence[tuple[tuple[Message, ...], Response]]) -> list[CandidatesDraft]:
    return [CandidatesDraft(parts[0][0], tuple(response for _, response in parts))]


BY_PROMPT = Together(_join, "rows_grouped_by_prompt")
