"""Messages for rows that are dropped, and for data without a usable row."""

from __future__ import annotations

from collections.abc import Iterator

from headwater.data.reading.counts import Quarantine, RowCounts
from headwater.errors import DataError
from headwater.marks import visible

REASONS = {
    "duplicate": "an earlier row says the same",
    "flipped_label": "an earlier row has the same texts with the label turned round",
    "empty_response": "a response is empty",
    "identical_responses": "both responses are the same but for white space",
    "prompts_differ": "the two responses answer different prompts",
    "equal_ratings": "both responses have the same rating",
    "fewer_than_two_responses": "fewer than two responses say anything",
    "deleted": "the data flags a message of the prompt as deleted",
    "tie": "neither response was preferred",
    "no_verdict": "nobody said which response is better",
}
"""Why a well-formed row is dropped."""


def in_words(reason: str) -> str:
    """Return why a row is dropped, as a clause."""
    return REASONS.get(reason, reason.replace("_", " "))


def no_usable_rows(place: str, row_counts: RowCounts, quarantine: Quarantine) -> DataError:
    """Return the error for data without a usable row: each reason with its number of rows and the first of them."""
    return DataError(place, f"no usable rows among {row_counts.rows_in}", *_why(row_counts, quarantine))


SHOWN = 120
"""Characters of a row that a message shows."""


def _why(row_counts: RowCounts, quarantine: Quarantine) -> Iterator[str]:
    if not row_counts.rows_in:
        yield "the data is empty"
    if row_counts.dropped:
        counted = (
            f"{reason} {count} ({in_words(reason)}; first: {quarantine.places[reason]})"
            for reason, count in row_counts.dropped.items()
        )
        yield f"dropped: {', '.join(counted)}"
    if row_counts.quarantined:
        counted = (f"{code} {count} (first: {quarantine.places[code]})" for code, count in quarantine.codes.items())
        yield f"bad: {', '.join(counted)}"
        yield quarantine.first
    if text := visible(quarantine.first_text):
        yield f"the first row: {text if len(text) <= SHOWN else text[: SHOWN - 1] + '…'}"
