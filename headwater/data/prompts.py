"""Reads the prompts of any data, each once: of records, or of one column of rows without responses."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from headwater.data import reading
from headwater.data.layouts import Broken, Unread, with_messages
from headwater.data.layouts.described import PROMPTS
from headwater.data.layouts.description import Description, of_column
from headwater.data.layouts.messages import prompt
from headwater.data.preference import Prompted
from headwater.data.reading import ReadOptions, Row, RowCounts, RowReader
from headwater.data.sampling import Asked, asked
from headwater.errors import DataError, UsageError


class Prompts(NamedTuple):
    """The prompts of some data."""

    asked: list[Asked]
    stages: dict[str, RowCounts]
    """Row counts: of the records, where there are any, and of the prompts."""
    reader: RowReader
    """The rows that were read, for the record of the run."""


def read_prompts(place: Path, read_options: ReadOptions, column: str | None = None) -> Prompts:
    """Return every prompt once: of `column`, of a description of prompts alone (`--columns`), or of all records.

    Errors: those of `reading.stream`; `DataError` for a row without a prompt, and for data without a usable row.
    """
    row_reader = reading.stream(place, read_options)
    description = of_column(column) if column else read_options.description
    if description and description.kind == "prompts":
        described = DescribedPrompts(place, description, read_options)
        found, row_counts = asked(described)
        row_counts.not_read = described.not_read
        stages = {"prompts": row_counts}
    else:
        found, row_counts = asked(row_reader)
        stages = {"read": row_reader.row_counts, "prompts": row_counts}
    if not found:
        raise row_reader.no_usable_rows()
    return Prompts(found, stages, row_reader)


class DescribedPrompts:
    """Iterator over the prompts of rows that need have no responses, and what of the rows is not read."""

    def __init__(self, place: Path, description: Description, read_options: ReadOptions) -> None:
        self._place, self._description, self._options = place, description, read_options
        also_read = filter(None, [read_options.condition_column])
        self._unread = Unread(PROMPTS, read_options.ignored, also_read)

    @property
    def not_read(self) -> list[str]:
        """Columns that hold values and were not read."""
        return self._unread.names

    def __iter__(self) -> Iterator[Prompted]:
        """Yield a prompt a row. Errors: `DataError` at the first row without one."""
        for row in itertools.islice(reading.read_rows(self._place, self._options), self._options.limit):
            try:
                found = self._prompted(row)
            except Broken as problem:
                raise DataError(row.place, *problem.args) from problem
            yield reading.conditioned(found, row, self._options)

    def _prompted(self, row: Row) -> Prompted:
        fields, _ = with_messages(self._description.row(row.fields))
        left_out = self._description.left_out(row.fields, self._options.condition_column)
        fields = self._unread.check(fields, left_out)
        turns = prompt(fields, "prompt")
        if turns[-1].role != "user":
            source = self._description.sources.get("prompt")
            ends = f"{source.text if source else 'prompt'} ends with the turn of the {turns[-1].role}"
            raise Broken(ends, "expected a user's")
        name = str(fields.get("id") or Path(row.place).name)
        return Prompted(prompt=turns, id=name, source=str(fields.get("source") or self._place.name))


def check_column(column: str | None, read_options: ReadOptions) -> None:
    """Refuse data options that have no effect where prompts alone are read. Errors: `UsageError`."""
    given = {"--layout": read_options.layout, "--columns": read_options.columns} if column else {}
    description = read_options.description
    if column or (description and description.kind == "prompts"):
        given |= {"--max-bad-rows": read_options.max_bad_rows if read_options.max_bad_rows != "0" else None}
    for flag, value in given.items():
        if value is not None:
            raise UsageError(flag, f"has no effect with {'--column' if column else 'prompts alone'}", "leave it out")
