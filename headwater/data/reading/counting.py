"""Counts what becomes of every row: kept, dropped, or quarantined as malformed, up to `--max-bad-rows`."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

from headwater import console
from headwater.data.layouts import Broken
from headwater.data.reading import memory
from headwater.data.reading.counts import Quarantine, RowCounts
from headwater.data.reading.formats import RawRow
from headwater.data.reading.options import ReadOptions
from headwater.data.reading.places import Part, locate
from headwater.data.reading.reasons import in_words, no_usable_rows
from headwater.errors import DataError
from headwater.files import stamp


class RowCounter:
    """The rows of some data; `row_counts` and `quarantine` fill while they are read.

    Errors while they are read: `DataError` for more malformed rows than `--max-bad-rows`, or an unreadable file.
    """

    def __init__(self, place: Path | str, read_options: ReadOptions) -> None:
        self.place = str(place)
        self.read_options = read_options
        self.row_counts = RowCounts()
        self.quarantine = Quarantine()
        self.parts, self.row_counts.split = locate(place, read_options)
        self._stamps = {path: stamp(path) for path in self.files}
        self._allowed = read_options.bad_rows
        self._rows = 0
        """Rows that were read, also of those that are counted together."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are read, or the name of data in memory; none for data on the hub."""
        if memory.find(self.place):
            return (Path(self.place),)
        return tuple(part.path for part in self.parts if part.path)

    def no_usable_rows(self) -> DataError:
        """Return the error for data without a usable row, once everything is read."""
        return no_usable_rows(self.place, self.row_counts, self.quarantine)

    def _numbered(self) -> Iterator[tuple[Part, int, RawRow]]:
        """Yield every row with its part and its number in it, up to `--limit`."""
        with console.meter(sum(part.size for part in self.parts), "reading") as advance:
            numbered = ((part, *row) for part in self.parts for row in enumerate(part.rows(advance), start=part.first))
            for found in itertools.islice(numbered, self.read_options.limit):
                self._rows += 1
                yield found

    def _keep(self) -> None:
        self.row_counts.rows_in += 1
        self.row_counts.kept += 1

    def _drop(self, part: Part, row: RawRow, reason: str) -> None:
        self.row_counts.rows_in += 1
        self.row_counts.dropped[reason] += 1
        self.quarantine.add("dropped", part, row, reason, in_words(reason))

    def _quarantine(self, part: Part, row: RawRow, problem: Broken) -> None:
        self.row_counts.rows_in += 1
        self.row_counts.quarantined += 1
        self.quarantine.add("quarantined", part, row, problem.code, *problem.args, column=problem.column)
        self._check_bad_rows(at_end=False)

    def _check_bad_rows(self, at_end: bool) -> None:
        bad, rows = self.row_counts.quarantined, self._rows
        if self._allowed.passed(bad, rows, at_end):
            of = f" of {rows}" if at_end else ""
            found = f"{bad} bad row{'s' if bad > 1 else ''}{of}, more than --max-bad-rows {self._allowed.text}"
            raise DataError(self.quarantine.first, found)

    def _check_unchanged(self) -> None:
        """Refuse a file that was written meanwhile: rows from before and after belong to no one data set."""
        for path, before in self._stamps.items():
            if stamp(path) != before:
                raise DataError(str(path), "changed while it was read", "repeat the command when it is written")
