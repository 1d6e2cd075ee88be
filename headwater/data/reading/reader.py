"""The door itself: every row is kept, set aside as bad, or dropped as no preference; none is lost on the way."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar

import numpy as np
from xxhash import xxh3_128_digest

from headwater import console
from headwater.data.layouts import (
    SEPARATOR,
    Broken,
    Judged,
    Layout,
    NoPreference,
    Texts,
    Unread,
    detect,
    draft_to_record,
    identity_of,
    judge,
    preference,
    renamed,
    with_messages,
)
from headwater.data.layouts.fields import begins_a_dialogue, is_dialogue, kind
from headwater.data.preference import Candidates, Example, Preference, Prompted, Record, Unpaired
from headwater.data.reading.blocks import Block, Item, ahead
from headwater.data.reading.columns import Columns
from headwater.data.reading.counts import Quarantine, RowCounts
from headwater.data.reading.options import ReadOptions
from headwater.data.reading.places import Part, locate, parts_of
from headwater.data.reading.reasons import in_words, no_usable_rows, repetition, verdict_of
from headwater.data.reading.strict import Bad
from headwater.errors import DataError
from headwater.files import stamp

ExampleT = TypeVar("ExampleT", bound=Example)

OPEN = ReadOptions()
"""The door as it is when nothing is said: no bad row is let by."""


class Row(NamedTuple):
    """One row of a file: where it stands (`file.jsonl:5`) and its fields."""

    place: str
    fields: dict[str, Any]


class Loaded(NamedTuple, Generic[ExampleT]):
    """What `load` returns: the preferences, the layout with the reason it was taken, the account, and the place."""

    preferences: list[ExampleT]
    """All of one kind: pairs, or (from `load_examples`) single responses with a label."""
    layout: str
    row_counts: RowCounts
    path: Path
    quarantine: Quarantine
    files: tuple[Path, ...] = ()
    """The files that were read; none for a name on the hub."""


class RowReader:
    """An iterator over the records of some data; account and quarantine fill while it is read.

    Errors while iterating: `DataError` once there are more bad rows than the door lets by.
    """

    def __init__(self, place: Path | str, read_options: ReadOptions) -> None:
        self.place, self.read_options = str(place), read_options
        self.row_counts = RowCounts()
        self.quarantine = Quarantine()
        self.layout = ""
        """The layout, and why it was taken; empty before the first good row."""
        self.yields = "preferences"
        self.parts, self.row_counts.split = locate(place, read_options)
        self._stamps = {path: stamp(path) for path in self.files}
        self._source: Layout | None = None
        self._unread: Unread | None = None
        self._seen: dict[bytes, bool] = {}
        self._allowed = read_options.bad_rows
        self._names = read_options.names
        self._columns = Columns()
        self._makes_records = True
        self._records = self._read()

    def __iter__(self) -> Iterator[Record]:
        return self._records

    def __next__(self) -> Record:
        return next(self._records)

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that are read."""
        return tuple(part.path for part in self.parts if part.path)

    def finish(self) -> RowCounts:
        """Read what is left and make no records of it, which is quicker where nothing but the account is wanted."""
        self._makes_records = False
        for _ in self._records:
            pass
        return self.row_counts

    def no_usable_rows(self) -> DataError:
        """Return the error for data without a usable row, once it is read."""
        return no_usable_rows(self.place, self.row_counts, self.quarantine)

    def _read(self) -> Iterator[Record]:
        for part, block, judged, number in self._blocks():
            if judged is None:
                yield from self._one_by_one(part, block, number)
            else:
                yield from self._at_once(part, block, judged, number)
            if self._is_full():
                break
        self._check_bad_rows(at_end=True)
        self._check_unchanged()

    def _check_unchanged(self) -> None:
        """Refuse data that was written while it was read: rows of two states are no data set."""
        changed = next((path for path, before in self._stamps.items() if stamp(path) != before), None)
        if changed is not None:
            raise DataError(str(changed), "changed while it was read", "repeat the command when it is written")

    def _is_full(self) -> bool:
        return self.read_options.limit is not None and self.row_counts.rows_in >= self.read_options.limit

    def _blocks(self) -> Iterator[tuple[Part, Block, Judged | None, int]]:
        """Yield blocks of rows, each with its part, what is sure of it, and how many rows of the part came before."""
        with console.meter(sum(part.size for part in self.parts), "reading") as advance:
            for part in self.parts:
                blocks, before = part.blocks(advance), self.row_counts.rows_in
                looked = ahead(blocks, self._with_columns) if part.columns else ((block, None) for block in blocks)
                for block, judged in looked:
                    yield part, block, judged, self.row_counts.rows_in - before

    def _with_columns(self, block: Block) -> tuple[Block, Judged | None]:
        self._columns.read(block)
        return block, self._sure(block)

    def _sure(self, block: Block) -> Judged | None:
        """Say what is surely a pair in a block; None where its rows are to be looked at one by one."""
        conditioned = self.read_options.condition is not None or self.read_options.condition_column is not None
        if block.columns is None or self._source is None or self._source.texts is None or self._names or conditioned:
            return None
        if self.read_options.ignored:
            return None
        judged = judge(self._source.texts, block.columns)
        if judged is not None and self._unread is not None:
            np.logical_and(judged.certain, self._unread.sure(block.columns), out=judged.certain)
        return judged

    def _at_once(self, part: Part, block: Block, judged: Judged, before: int) -> Iterator[Record]:
        """Let the rows of a block in that surely are pairs; every other one is looked at by itself, in its turn."""
        texts = iter(judged.rows) if self._makes_records else itertools.repeat(None)
        self._name_unread(block)
        begin, end = 0, len(judged.digests)
        for doubtful in (*np.flatnonzero(~judged.certain).tolist(), end):
            places = range(begin, doubtful)
            yield from self._kept(part, block, judged, places, itertools.islice(texts, len(places)), before)
            if doubtful < end and not self._is_full():
                next(texts)
                record = self._judged(part, block.item(doubtful), f"{part.name}:{before + doubtful + 1}")
                if record is not None:
                    yield record
            begin = doubtful + 1

    def _name_unread(self, block: Block) -> None:
        """Name what is not read of a block's rows, of those that will be read."""
        most = self.read_options.limit
        rows = block.columns if most is None else block.columns.slice(0, most - self.row_counts.rows_in)
        if self._unread is not None:
            self._unread.name(rows)

    def _kept(
        self, part: Part, block: Block, judged: Judged, places: range, texts: Iterator[Texts | None], before: int
    ) -> Iterator[Record]:
        """Keep the rows at places that follow each other and surely are pairs, but for those that came before."""
        rows = slice(places.start, places.stop)
        digests, labels = judged.digests[rows], judged.labels[rows]
        row_counts, seen = self.row_counts, self._seen
        if not self._makes_records and self._are_new(digests):
            seen.update(zip(digests, labels, strict=True))
            row_counts.rows_in += len(digests)
            row_counts.kept += len(digests)
            return
        source = part.name.partition(":")[0]
        for place, text, digest, label in zip(places, texts, digests, labels, strict=True):
            if self._is_full():
                return
            row_counts.rows_in += 1
            if digest in seen:
                self._drop(part, block.item(place), repetition(seen[digest], label))
                continue
            seen[digest] = label
            row_counts.kept += 1
            if text is not None and self._makes_records:
                yield preference(text, f"{part.name}:{before + place + 1}", source)

    def _are_new(self, digests: Sequence[bytes]) -> bool:
        """Say whether no row repeats another, and all may be read."""
        most = self.read_options.limit
        if most is not None and self.row_counts.rows_in + len(digests) > most:
            return False
        return len(set(digests)) == len(digests) and self._seen.keys().isdisjoint(digests)

    def _one_by_one(self, part: Part, block: Block, before: int) -> Iterator[Record]:
        """Look at every row of a block by itself, and learn from them what columns the next block has."""
        rows = []
        for number, item in enumerate(block, start=before + 1):
            if self._is_full():
                return
            record = self._judged(part, item, f"{part.name}:{number}")
            if record is not None:
                yield record
            if part.columns and not isinstance(item.fields, Bad):
                rows.append(item.fields)
        if rows and self._source is not None and self._source.texts is not None:
            self._columns.learn(rows)

    def _judged(self, part: Part, item: Item, name: str) -> Record | None:
        """Count a row, and return its record if it is kept; `name` is what it is called if it brings no name."""
        self.row_counts.rows_in += 1
        try:
            record = self._record(item, name)
            self._check_new(*identity(record))
        except NoPreference as reason:
            self._drop(part, item, str(reason))
        except (Bad, Broken) as problem:
            self.row_counts.quarantined += 1
            self._set_aside(part, item, problem)
        else:
            self.row_counts.kept += 1
            return record
        return None

    def _record(self, item: Item, name: str) -> Record:
        given = item.fields
        if isinstance(given, Bad):
            raise given
        fields, as_text = with_messages(renamed(given, self._names) if self._names else given)
        source = self._source or self._detected(fields)
        assert self._unread is not None
        fields = self._unread.check(fields, self._left_out(given, fields))
        if not self._unread.reads.isdisjoint(as_text):
            self.row_counts.notes["messages_as_text"] += 1
        if is_dialogue(fields.get("prompt")) and not begins_a_dialogue(fields.get("prompt")):
            self.row_counts.notes["markers_kept_as_text"] += 1
        for column in source.columns:
            if column not in fields:
                raise self._missing(fields, source)
        # The column is the data's own, also where --columns renames others.
        return _conditioned(draft_to_record(source.read(fields), fields, name), given, self.read_options)

    def _detected(self, fields: Mapping[str, Any]) -> Layout:
        try:
            self._source, self.layout = detect(fields, self.read_options.layout)
        except Broken as problem:
            raise Bad("UNKNOWN_LAYOUT", *problem.args) from problem
        self.yields = self._source.yields
        self._unread = Unread(
            self._source, self.read_options.ignored, filter(None, [self.read_options.condition_column])
        )
        self.row_counts.not_read = self._unread.names
        return self._source

    def _left_out(self, given: Mapping[str, Any], fields: Mapping[str, Any]) -> Mapping[str, Any]:
        """Return the columns that `--columns` left out."""
        read = {*self._names.values(), *fields, *filter(None, [self.read_options.condition_column])}
        return {name: value for name, value in given.items() if name not in read} if self._names else {}

    @staticmethod
    def _missing(fields: Mapping[str, Any], source: Layout) -> Bad:
        missing = [column for column in source.columns if column not in fields]
        return Bad("MISSING", f"no {', '.join(missing)}", f"the first row has {', '.join(source.columns)}")

    def _check_new(self, texts: bytes, label: bool) -> None:
        """Raise `NoPreference` for a pair that came before, also with the label turned round; see `identity`."""
        if texts in self._seen:
            raise NoPreference(repetition(self._seen[texts], label))
        self._seen[texts] = label

    def _drop(self, part: Part, item: Item, reason: str) -> None:
        self.row_counts.dropped[reason] += 1
        self.quarantine.places.setdefault(reason, part.place(item.number))
        self.quarantine.add("dropped", part.file, item.number, item.offset, reason, in_words(reason), item.text)

    def _set_aside(self, part: Part, item: Item, problem: Bad | Broken) -> None:
        code, parts, column = verdict_of(problem)
        message = " · ".join(parts)
        self.quarantine.places.setdefault(code, part.place(item.number, column))
        self.quarantine.add("quarantined", part.file, item.number, item.offset, code, message, item.text)
        if not self.quarantine.first:
            self.quarantine.first = " · ".join((part.place(item.number, column), *parts))
        self._check_bad_rows(at_end=False)

    def _check_bad_rows(self, at_end: bool) -> None:
        bad, rows = self.row_counts.quarantined, self.row_counts.rows_in
        if self._allowed.passed(bad, rows, at_end):
            of = f" of {rows}" if at_end else ""
            said = f"{bad} bad row{'s' if bad > 1 else ''}{of}, more than --max-bad-rows {self._allowed.text}"
            raise DataError(self.quarantine.first, said)


def identity(record: Record) -> tuple[bytes, bool]:
    """Return 16 bytes that stand for the texts of a record, and which way its label points.

    Scores, ids and sources do not count. xxh3 has no key: whoever wants two rows to collide can make them.
    """
    # No UTF-8 holds the separator, so that texts which join to the same are kept apart.
    prompt = b"".join([b"\xff%b\xff%b" % (turn.role.encode(), turn.content.encode()) for turn in record.conversation])
    if isinstance(record, Preference):
        return identity_of(record.chosen.text.encode(), record.rejected.text.encode(), prompt)
    responses = (record.response,) if isinstance(record, Unpaired) else record.responses
    texts = [response.text.encode() for response in responses]
    return xxh3_128_digest(SEPARATOR.join((*texts, prompt))), isinstance(record, Unpaired) and record.label


P = TypeVar("P", bound=Prompted)


def conditioned(record: P, row: Row, read_options: ReadOptions) -> P:
    """Return what was read from `row` with the condition that the door gives it. Errors: `DataError`."""
    try:
        return _conditioned(record, row.fields, read_options)
    except Broken as problem:
        raise DataError(row.place, *problem.args) from problem


def _conditioned(record: P, fields: Mapping[str, Any], read_options: ReadOptions) -> P:
    text = read_options.condition
    if read_options.condition_column is not None:
        text = fields.get(read_options.condition_column)
        if not isinstance(text, str) or not text.strip():
            raise Broken(f"{read_options.condition_column} is {kind(text)}", "expected a text: the row's condition")
    return record if text is None else dataclasses.replace(record, condition=text)


def stream(place: Path | str, read_options: ReadOptions = OPEN) -> RowReader:
    """Return an iterator over the records of any data: preferences, candidates, or unpaired responses.

    Memory stays bounded, but for 16 bytes a row by which duplicates are known. Errors: `UsageError` for data that is
    not there or of an unknown kind; `DataError`, while iterating, for too many bad rows or an unreadable file;
    `NetworkError` for a hub that does not answer.
    """
    return RowReader(place, read_options)


def load(place: Path | str, read_options: ReadOptions = OPEN) -> Loaded[Preference]:
    """Read pairs of any known layout into memory.

    Errors: those of `stream`, and `DataError` for data of another kind, or without a usable row.
    """
    row_reader = stream(place, read_options)
    return _loaded(row_reader, list(_pairs(row_reader)))


def load_examples(place: Path | str, read_options: ReadOptions = OPEN) -> Loaded[Preference | Unpaired]:
    """Read what a model can be trained on into memory: pairs, or single responses with a label.

    Errors: those of `load`.
    """
    row_reader = stream(place, read_options)
    return _loaded(row_reader, list(examples(row_reader)))


def examples(row_reader: RowReader) -> Iterator[Preference | Unpaired]:
    """Yield the rows of data that must hold pairs or labelled responses. Errors: `DataError` for several responses."""
    for record in row_reader:
        if isinstance(record, Candidates):
            raise _another_kind(row_reader, "several responses a row")
        yield record


def _pairs(row_reader: RowReader) -> Iterator[Preference]:
    for record in examples(row_reader):
        if not isinstance(record, Preference):
            raise _another_kind(row_reader, "single responses with a label")
        yield record


def _another_kind(row_reader: RowReader, held: str) -> DataError:
    return DataError(row_reader.place, f"holds {held}: {row_reader.layout}", "expected pairs of chosen and rejected")


def _loaded(row_reader: RowReader, preferences: list[ExampleT]) -> Loaded[ExampleT]:
    if not preferences:
        raise row_reader.no_usable_rows()
    path = row_reader.files[0] if len(row_reader.files) == 1 else Path(row_reader.place)
    return Loaded(preferences, row_reader.layout, row_reader.row_counts, path, row_reader.quarantine, row_reader.files)


def read_rows(place: Path | str, read_options: ReadOptions = OPEN) -> Iterator[Row]:
    """Yield the rows of any data as they are, before any layout. Errors: as `stream`, at the first bad row."""
    for part in parts_of(place, read_options):
        for item in itertools.chain.from_iterable(part.blocks(lambda count: None)):
            if isinstance(item.fields, Bad):
                _, parts, column = verdict_of(item.fields)
                raise DataError(part.place(item.number, column), *parts)
            yield Row(part.place(item.number), item.fields)
