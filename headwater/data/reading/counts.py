"""Where every row went: the account, and the quarantine that holds what was not kept."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Literal

import orjson

from headwater.files import write_atomically

Verdict = Literal["quarantined", "dropped"]

QUARANTINE = "quarantine.jsonl"
"""In a run: every row that was not kept, with its place and the code of what is wrong."""
RAW_CHARACTERS = 2000
"""What is kept of a row's own text: enough to find it again, too little to fill a disk."""
IN_MEMORY = 4 << 20


@dataclass
class RowCounts:
    """Rows in = kept + quarantined + dropped, by reason."""

    rows_in: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    quarantined: int = 0
    split: str = ""
    """Which split of several was read."""
    not_read: list[str] = field(default_factory=list)
    """Columns, and fields of messages, that hold something and were not read."""
    notes: Counter[str] = field(default_factory=Counter)
    """Rows that were read in a way that a reader should know of, by the rule."""
    first: dict[str, str] = field(default_factory=dict)
    """Place and message of the first dropped row, by reason, where there is more to say than the reason."""

    def drop(self, reason: str, message: str = "") -> None:
        """Count a dropped row."""
        self.dropped[reason] += 1
        if message:
            self.first.setdefault(reason, message)


class Quarantine:
    """The rows that were not kept, each with its place, the code of what is wrong, and its text.

    It lies in a temporary file once it is large, so that a file of bad rows fills no memory; `save` keeps it.
    """

    def __init__(self) -> None:
        self._spool: IO[bytes] = tempfile.SpooledTemporaryFile(IN_MEMORY)  # noqa: SIM115 - closed with this object
        self.codes: Counter[str] = Counter()
        """Bad rows by code."""
        self.places: dict[str, str] = {}
        """Place of the first row of every code and reason."""
        self.first = ""
        """Place and message of the first bad row."""

    def add(
        self, verdict: Verdict, file: str, line: int, offset: int | None, code: str, message: str, raw: bytes
    ) -> None:
        """Record one row; `offset` bytes of the (unpacked) file come before it, None where rows are no lines."""
        if verdict == "quarantined":
            self.codes[code] += 1
        # 4 bytes a character at most; cut before decoding, because a row can be as long as its file.
        text = raw[: 4 * RAW_CHARACTERS].decode("utf-8", "backslashreplace").rstrip("\r\n")[:RAW_CHARACTERS]
        # Names of columns and files may hold bytes that are no UTF-8.
        file, message = (said.encode("utf-8", "backslashreplace").decode() for said in (file, message))
        place = {"file": file, "line": line, "offset": offset}
        entry = place | {"verdict": verdict, "code": code, "message": message, "raw": text}
        self._spool.write(orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """Yield the records, in the order of the data."""
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
