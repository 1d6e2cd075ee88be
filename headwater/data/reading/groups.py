"""Rows that belong together: rated responses to one prompt, or messages of one tree. They become records at the end."""

from __future__ import annotations

from dataclasses import dataclass, field

from headwater.data.reading.counts import RAW_CHARACTERS
from headwater.data.reading.formats import RawRow
from headwater.data.reading.places import Part
from headwater.data.reading.records import Held


@dataclass(frozen=True)
class Group:
    """Rows with one key, under the name of the first."""

    part: Part
    row: RawRow
    """The first row, as the quarantine shows it."""
    name: str
    held: list[Held] = field(default_factory=list)


def shortened(row: RawRow) -> RawRow:
    """Return a row without its fields, with as much of its text as the quarantine shows."""
    return row._replace(fields={}, raw=row.text[: 4 * RAW_CHARACTERS])
