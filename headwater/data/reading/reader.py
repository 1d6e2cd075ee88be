"""Reads data row by row: every row is kept, quarantined as malformed, or dropped because it holds no preference."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

from xxhash import xxh3_128_digest

from headwater.data.layouts import Broken, NoPreference
from headwater.data.layouts.layout import Yields
from headwater.data.preference import Candidates, Example, Preference, Record, Unpaired
from headwater.data.reading.counting import RowCounter
from headwater.data.reading.counts import Quarantine, RowCounts
from headwater.data.reading.formats import RawRow
from headwater.data.reading.groups import Group, shortened
from headwater.data.reading.options import ReadOptions
from headwater.data.reading.places import Part, parts_of
from headwater.data.reading.records import Held, PromptedT, RecordMaker, with_condition
from headwater.errors import DataError

ExampleT = TypeVar("ExampleT", bound=Example)

DEFAULT = ReadOptions()
"""Default reading options: fail on the first malformed row."""


class RowReader(RowCounter):
    """Iterator over the records of some data; `row_counts` and `quarantine` fill while it is read.

    A row takes four steps: its format parses it (`formats.py`), its layout makes a record of it (`records.py`), its
    texts are compared with those of all earlier rows, and it is counted. Records are not kept: memory grows by about
    110 bytes a row, for the hashes by which duplicates are found. Only rows that belong together (`Layout.together`)
    are held until the last is read; each of their records is counted as a row, and a note counts the rows of the data.

    Errors while iterating: `DataError` for more malformed rows than `--max-bad-rows`, an unreadable file, or verdicts
    that may mean either answer (`layouts/codes.py`).
    """

    def __init__(self, place: Path | str, read_options: ReadOptions) -> None:
        super().__init__(place, read_options)
        self._maker = RecordMaker(read_options, self.row_counts)
        self._groups: dict[Any, Group] = {}
        self._labels: dict[bytes, bool] = {}
        """Digest of the texts of every row so far, and which way the row's label points."""
        self._records = self._read()

    def __iter__(self) -> Iterator[Record]:
        return self._records

    def __next__(self) -> Record:
        return next(self._records)

    @property
    def layout(self) -> str:
        """Name of the layout and why it was chosen; empty before the first good row."""
        return self._maker.layout

    @property
    def yields(self) -> Yields:
        """The kind of the records, known after the first good row."""
        return self._maker.yields

    def _read(self) -> Iterator[Record]:
        for part, number, row in self._numbered():
            record = self._counted(part, row, f"{part.name}:{number}")
            if record is not None:
                yield record
        for group in self._groups.values():
            yield from self._joined(group)
        self._check_bad_rows(at_end=True)
        self._check_codes()
        self._check_unchanged()

    def _counted(self, part: Part, row: RawRow, name: str) -> Record | None:
        """Count a row, and return its record if it is kept; a row that belongs with others is counted with them.

        Errors: `DataError` for one malformed row too many.
        """
        try:
            if isinstance(row.fields, Broken):
                raise row.fields
            record = self._maker.record(row.fields, name)
            if isinstance(record, Held):
                self._groups.setdefault(record.key, Group(part, shortened(row), name)).held.append(record)
                return None
            self._check_new(record)
        except NoPreference as problem:
            self._drop(part, row, str(problem))
        except Broken as problem:
            self._quarantine(part, row, problem)
        else:
            self._keep()
            return record
        return None

    def _joined(self, group: Group) -> Iterator[Record]:
        """Yield the records of rows that belong together, each counted as a row. Errors: as `_counted`."""
        drafts = self._maker.drafts(group.held)
        for number, draft in enumerate(drafts, start=1):
            name = group.name if len(drafts) == 1 else f"{group.name}#{number}"
            try:
                record = self._maker.joined(draft, group.held[0], name)
                self._check_new(record)
            except NoPreference as problem:
                self._drop(group.part, group.row, str(problem))
            except Broken as problem:
                self._quarantine(group.part, group.row, problem)
            else:
                self._keep()
                yield record

    def _check_new(self, record: Record) -> None:
        """Remember the texts of a record. Errors: `NoPreference` where an earlier row has the same."""
        digest, label = identity(record)
        earlier = self._labels.get(digest)
        if earlier is None:
            self._labels[digest] = label
        else:
            raise NoPreference("duplicate" if earlier is label else "flipped_label")

    def _check_codes(self) -> None:
        try:
            self._maker.verdict_codes.check()
        except Broken as problem:
            raise DataError(self.place, *problem.args) from None


SEPARATOR = "\ud800"
"""Half a character, which no text of a record holds: texts that join to the same characters stay apart."""


def identity(record: Record) -> tuple[bytes, bool]:
    """Return 16 bytes that identify the texts of a record, and which way its label points.

    A pair and the same pair with the label turned round have the same bytes. Scores, ids and sources do not count. The
    hash (xxh3) is fast and not cryptographic: two different rows can be made to collide on purpose.
    """
    texts = [text for turn in record.conversation for text in turn.texts]
    texts.append("")  # where a role would follow: the prompt ends here, however many responses there are
    label = False
    if isinstance(record, Preference):
        pair = record.chosen.texts, record.rejected.texts
        label = pair[0] < pair[1]
        texts += itertools.chain(*(pair if label else reversed(pair)))
    elif isinstance(record, Unpaired):
        texts += record.response.texts
        label = record.label
    else:
        texts += [text for response in record.responses for text in response.texts]
    return xxh3_128_digest(SEPARATOR.join(texts).encode("utf-8", "surrogatepass")), label


def stream(place: Path | str, read_options: ReadOptions = DEFAULT) -> RowReader:
    """Return an iterator over the records of any data: pairs, candidates, or unpaired responses.

    Errors: `UsageError` for data that is not there or of an unknown kind, `NetworkError` for a hub that does not
    answer; while iterating, those of `RowReader`.
    """
    return RowReader(place, read_options)


class Loaded(NamedTuple, Generic[ExampleT]):
    """Everything that was read into memory, and how."""

    preferences: list[ExampleT]
    """All pairs; or, from `load_examples`, all single responses with a label."""
    layout: str
    """Name of the layout, and why it was chosen."""
    row_counts: RowCounts
    path: Path
    """The file that was read, or the place that holds several."""
    quarantine: Quarantine
    files: tuple[Path, ...] = ()
    """The files that were read, or the name of data in memory; none for data on the hub."""


def load(place: Path | str, read_options: ReadOptions = DEFAULT) -> Loaded[Preference]:
    """Read all pairs of any known layout into memory.

    Errors: those of `stream`, and `DataError` for data of another kind, or without a usable row.
    """
    row_reader = stream(place, read_options)
    return _loaded(row_reader, list(_pairs(row_reader)))


def load_examples(place: Path | str, read_options: ReadOptions = DEFAULT) -> Loaded[Preference | Unpaired]:
    """Read everything that a model can be trained on into memory: pairs, or single responses with a label.

    Errors: those of `load`.
    """
    row_reader = stream(place, read_options)
    return _loaded(row_reader, list(examples(row_reader)))


def examples(row_reader: RowReader) -> Iterator[Preference | Unpaired]:
    """Yield pairs or labelled responses. Errors: `DataError` for data with several responses a row."""
    for record in row_reader:
        if isinstance(record, Candidates):
            fix = "headwater select DATA --budget 100% --pairs best_worst --output pairs.jsonl makes pairs of them"
            raise _another_kind(row_reader, "several responses a row", fix)
        yield record


def _pairs(row_reader: RowReader) -> Iterator[Preference]:
    for record in examples(row_reader):
        if not isinstance(record, Preference):
            raise _another_kind(row_reader, "single responses with a label")
        yield record


def _another_kind(row_reader: RowReader, held: str, fix: str = "") -> DataError:
    expected = "expected pairs of chosen and rejected"
    return DataError(row_reader.place, *filter(None, (f"holds {held}: {row_reader.layout}", expected, fix)))


def _loaded(row_reader: RowReader, preferences: list[ExampleT]) -> Loaded[ExampleT]:
    if not preferences:
        raise row_reader.no_usable_rows()
    files = row_reader.files
    path = files[0] if len(files) == 1 else Path(row_reader.place)
    return Loaded(preferences, row_reader.layout, row_reader.row_counts, path, row_reader.quarantine, files)


class Row(NamedTuple):
    """A row before any layout: its place (`file.jsonl:5`) and its fields."""

    place: str
    fields: dict[str, Any]


def read_rows(place: Path | str, read_options: ReadOptions = DEFAULT) -> Iterator[Row]:
    """Yield the rows of any data before any layout. Errors: those of `stream`, at the first malformed row."""
    for part in parts_of(place, read_options):
        for row in part.rows(lambda count: None):
            if isinstance(row.fields, Broken):
                raise DataError(part.place(row.number, row.fields.column), *row.fields.args)
            yield Row(part.place(row.number), row.fields)


def good_rows(place: Path | str, read_options: ReadOptions = DEFAULT) -> Iterator[Row]:
    """Yield the well-formed rows of any data before any layout, and pass over malformed ones.

    For a first look at data that is counted when it is read. Errors: those of `stream`.
    """
    for part in parts_of(place, read_options):
        for row in part.rows(lambda count: None):
            if not isinstance(row.fields, Broken):
                yield Row(part.place(row.number), row.fields)


def conditioned(record: PromptedT, row: Row, read_options: ReadOptions) -> PromptedT:
    """Return what was read from `row` with the condition that the options give it. Errors: `DataError`."""
    try:
        return with_condition(record, row.fields, read_options)
    except Broken as problem:
        raise DataError(row.place, *problem.args) from problem
