"""Counts of kept and left out rows, and the quarantine: a record of every row that is left out."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import orjson

from headwater.data.reading.formats import RawRow
from headwater.data.reading.places import Part
from headwater.files import write_atomically

Verdict = Literal["quarantined", "dropped"]

QUARANTINE = "quarantine.jsonl"
"""File of a run that holds the rows that were left out."""
RAW_CHARACTERS = 2000
"""Characters kept of the text of such a row: enough to find it again, too few to fill a disk."""
IN_MEMORY = 4 << 20
"""Bytes of the quarantine that are held in memory; more goes to a temporary file."""


@dataclass
class RowCounts:
    """Rows in = kept + quarantined + dropped, by reason."""

    rows_in: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    quarantined: int = 0
    split: str = ""
    """The split that was read, where the data has several."""
    not_read: list[str] = field(default_factory=list)
    """Columns, and keys of messages, that hold values and were not read."""
    notes: Counter[str] = field(default_factory=Counter)
    """Number of rows to which a special rule was applied, by rule."""
    first: dict[str, str] = field(default_factory=dict)
    """Place and message of the first dropped row, by reason, where the reason alone does not explain it."""

    def drop(self, reason: str, message: str = "") -> None:
        """Count a dropped row."""
        self.dropped[reason] += 1
        if message:
            self.first.setdefault(reason, message)


class Quarantine:
    """The rows that were left out, each with its place, the code of the problem, a message, and its text.

    Long ones spill to a temporary file, so that a file full of malformed rows does not fill the memory.
    """

    def __init__(self) -> None:
        self._spool: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - closed with this object
        self.codes: Counter[str] = Counter()
        """Number of malformed rows by code."""
        self.places: dict[str, str] = {}
        """Place of the first row of every code and reason."""
        self.first = ""
        """Place and message of the first malformed row."""
        self.first_text = ""
        """The text of the first row that was left out."""

    def add(
        self, verdict: Verdict, part: Part, row: RawRow, code: str, *message: str, column: int | None = None
    ) -> None:
        """Record a row; `column` is where in its line the problem is, if that is known."""
        place = part.place(row.number, column)
        self.places.setdefault(code, place)
        if verdict == "quarantined":
            self.codes[code] += 1
            self.first = self.first or " · ".join((place, *message))
        # A character has 4 bytes at most. Cut before decoding, because a row can be as long as its file.
        raw = row.text[: 4 * RAW_CHARACTERS].decode("utf-8", "backslashreplace").rstrip("\r\n")[:RAW_CHARACTERS]
        self.first_text = self.first_text or raw
        entry = {
            "file": _printable(part.file),
            "line": row.number,
            "offset": row.offset,
            "verdict": verdict,
            "code": code,
            "message": _printable(" · ".join(message)),
            "raw": raw,
        }
        self._spool.write(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the records in the order of the data."""
        self._spool.seek(0)
        for line in self._spool:
            yield orjson.loads(line)
        self._spool.seek(0, 2)

    def save(self, path: Path) -> None:
        """Write the records as JSON lines, atomically."""
        write_atomically(path, self._copy)

    def _copy(self, path: Path) -> None:
        self._spool.seek(0)
        with path.open("wb") as handle:
            shutil.copyfileobj(self._spool, handle)
        self._spool.seek(0, 2)


def _printable(text: str) -> str:
    """Escape half characters: names of files and columns may hold bytes that are not UTF-8."""
    return text.encode("utf-8", "backslashreplace").decode()
