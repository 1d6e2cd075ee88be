"""Reads the prompts of any data, each once: of records, or of rows without responses."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from headwater.data import reading
from headwater.data.layouts import LAYOUTS, Broken, Unread, prompts, with_messages
from headwater.data.layouts.described import PROMPTS
from headwater.data.layouts.description import Description
from headwater.data.layouts.description_parser import of_column
from headwater.data.layouts.dialogues import MARKERS_KEPT, has_markers
from headwater.data.layouts.layout import Fields
from headwater.data.layouts.messages import prompt
from headwater.data.layouts.paths import written
from headwater.data.layouts.tools import with_tools
from headwater.data.layouts.unread import Columns
from headwater.data.preference import Message, Prompted
from headwater.data.reading import ReadOptions, Row, RowCounter, RowCounts
from headwater.data.reading.records import with_condition
from headwater.data.sampling import Asked, asked
from headwater.errors import DataError, UsageError


class Prompts(NamedTuple):
    """The prompts of some data."""

    asked: list[Asked]
    stages: dict[str, RowCounts]
    """Row counts: of the records, where there are any, and of the prompts."""
    reader: RowCounter
    """The rows that were read, for the record of the run."""


def read_prompts(place: Path, read_options: ReadOptions, column: str | None = None) -> Prompts:
    """Return every prompt once: of `column`, of a description of prompts alone (`--columns`), or as the rows hold it.

    Rows of a known layout are read as records; of others, the first row that has one shows the column of the prompt.
    Errors: those of `reading.stream`, where a row without a prompt is a malformed one, and `DataError` for data without
    a usable row.
    """
    read_options.check_last_turns("prompts are read, and no responses")
    rows = _prompt_rows(place, read_options, column)
    if rows:
        return rows.prompts()
    row_reader = reading.stream(place, read_options)
    found, row_counts = asked(row_reader)
    if not found:
        raise row_reader.no_usable_rows()
    return Prompts(found, {"read": row_reader.row_counts, "prompts": row_counts}, row_reader)


def _prompt_rows(place: Path, read_options: ReadOptions, column: str | None) -> PromptRows | None:
    """Return the rows of data without responses; None for data that are read as records. Errors: `DataError`."""
    description = of_column(column) if column else read_options.description
    if description and description.kind == "prompts":
        return DescribedPrompts(place, read_options, description)
    if description or read_options.layout:
        return None
    unknown = None
    for row in itertools.islice(reading.good_rows(place, read_options), read_options.limit):
        fields, _ = with_messages(row.fields)
        found = prompts.column_of(fields)
        if found:
            return PlainPrompts(place, read_options, found)
        if any(layout.fits(fields) for layout in LAYOUTS.values()):
            return None
        unknown = unknown or row
        if read_options.max_bad_rows == "0":
            break
    if unknown:
        raise _no_known_prompt(unknown)
    return None


def _no_known_prompt(row: Row) -> DataError:
    fields, _ = with_messages(row.fields)
    texts = [name for name, value in fields.items() if isinstance(value, str)]
    fix = f"name its column, such as --columns prompt={written(texts[0] if texts else 'NAME')}"
    expected = f"expected one of {', '.join(prompts.COLUMNS)}"
    return DataError(row.place, f"columns {', '.join(fields)} hold no known prompt", expected, fix)


class PromptRows(RowCounter):
    """Iterator over the prompts of rows that need have no responses; `row_counts` and `quarantine` fill meanwhile."""

    def __init__(self, place: Path | str, read_options: ReadOptions, reads: Columns) -> None:
        super().__init__(place, read_options)
        self.unread = Unread(reads, read_options.ignored, read_options.also_read)
        self.row_counts.not_read = self.unread.names

    def __iter__(self) -> Iterator[Prompted]:
        """Yield a prompt a row. Errors: `DataError` for more rows without one than `--max-bad-rows`."""
        for part, _, raw in self._numbered():
            try:
                if isinstance(raw.fields, Broken):
                    raise raw.fields
                found = with_condition(
                    self._prompted(Row(part.place(raw.number), raw.fields)), raw.fields, self.read_options
                )
            except Broken as problem:
                self._quarantine(part, raw, problem)
                continue
            if has_markers(found.prompt):
                self.row_counts.notes[MARKERS_KEPT] += 1
            self._keep()
            yield found
        self._check_bad_rows(at_end=True)
        self._check_unchanged()

    def prompts(self) -> Prompts:
        """Return every prompt once. Errors: `DataError`, also for data without one."""
        found, row_counts = asked(self)
        if not found:
            raise self.no_usable_rows()
        self.row_counts.dropped, self.row_counts.kept = row_counts.dropped, row_counts.kept
        return Prompts(found, {"prompts": self.row_counts}, self)

    def _prompted(self, row: Row) -> Prompted:
        """Return the prompt of a row. Errors: `Broken`."""
        raise NotImplementedError

    def named(self, turns: tuple[Message, ...], fields: Fields, row: Row) -> Prompted:
        """Return a prompt under the name and the source that its row has."""
        name = next((fields[key] for key in ("id", "uid", "question_id") if fields.get(key)), Path(row.place).name)
        source = next(
            (fields[key] for key in ("source", "dataset", "category") if fields.get(key)), Path(self.place).name
        )
        return Prompted(prompt=with_tools(turns, fields), id=str(name), source=str(source))


class PlainPrompts(PromptRows):
    """Prompts in a column that is known by its name."""

    def __init__(self, place: Path, read_options: ReadOptions, column: str) -> None:
        reads = prompts.READS._replace(columns=(*prompts.READS.columns, column))
        super().__init__(place, read_options, reads)
        self._column = column

    def _prompted(self, row: Row) -> Prompted:
        fields = self.unread.check(with_messages(row.fields)[0])
        return self.named(prompts.turns_of(fields, self._column), fields, row)


class DescribedPrompts(PromptRows):
    """Prompts that a description finds."""

    def __init__(self, place: Path, read_options: ReadOptions, description: Description) -> None:
        super().__init__(place, read_options, PROMPTS)
        self._description = description

    def _prompted(self, row: Row) -> Prompted:
        fields, _ = with_messages(self._description.row(row.fields))
        left_out = self._description.left_out(row.fields, self.read_options.condition_column)
        fields = self.unread.check(fields, left_out)
        turns = prompt(fields, "prompt")
        if turns[-1].role not in ("user", "tool"):
            source = self._description.sources.get("prompt")
            ends = f"{source.text if source else 'prompt'} ends with the turn of the {turns[-1].role}"
            raise Broken(ends, "expected a user's, or a tool's result")
        return self.named(turns, fields, row)


def check_column(column: str | None, read_options: ReadOptions) -> None:
    """Refuse data options that have no effect where prompts alone are read. Errors: `UsageError`."""
    given = {"--layout": read_options.layout, "--columns": read_options.columns} if column else {}
    for flag, value in given.items():
        if value is not None:
            raise UsageError(flag, "has no effect with --column", "leave it out")
