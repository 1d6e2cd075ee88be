"""File formats, one small function each: from a file to its rows, one by one. ★ A newcomer adds a format here.

A reader yields every row, also a bad one, with its number: the line, for formats that have lines. What makes a whole
file unreadable is a `DataError`.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import re
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import orjson
import pyarrow
import pyarrow.ipc
import pyarrow.parquet

from headwater.data.reading.arrays import elements
from headwater.data.reading.strict import Bad, decoded, parse, parse_lines
from headwater.errors import DataError, UsageError, first_line

DAMAGED = (EOFError, OSError, zlib.error, pyarrow.ArrowException, UnicodeDecodeError)
"""What gzip and pyarrow raise for a file that is cut, has flipped bits, or is of another kind."""
BOM = b"\xef\xbb\xbf"
BLOCK = 1 << 17
"""Bytes of lines that are parsed together."""
BATCH = 1024
"""Rows of a columnar file that are in memory at a time."""

CELL = 1 << 24
"""Characters of the longest cell of CSV: a quote that is not closed would take in the rest of the file, held whole."""

Advance = Callable[[int], None]
"""Told how many bytes of the file were read since the last call."""


class Item(NamedTuple):
    """A row as its file has it: its number, its fields or what is wrong with them, and its own text."""

    number: int
    fields: dict[str, Any] | Bad
    raw: bytes | None = None
    offset: int | None = None
    """Bytes before it in the (unpacked) file, where rows are lines."""

    @property
    def text(self) -> bytes:
        """The row's own text; for a format that has none, the fields as JSON."""
        return self.raw if self.raw is not None else json.dumps(self.fields, default=str).encode("utf-8", "replace")


Reader = Callable[[Path, Advance], Iterator[Item]]


class Format(NamedTuple):
    """A reader, and whether it numbers lines (`a.jsonl:5`) or rows (`a.json[5]`)."""

    read: Reader
    lines: bool


def format_of(path: Path) -> Format | None:
    """Return the format that a file's name stands for."""
    name = path.name.lower()
    for suffix, known in FORMATS.items():
        if name.endswith(suffix) or (known.read in _PACKABLE and name.endswith((f"{suffix}.gz", f"{suffix}.zst"))):
            return known
    return None


def read_items(path: Path, advance: Advance = lambda count: None) -> Iterator[Item]:
    """Yield the rows of one file. Errors: `UsageError` for an unknown suffix, `DataError` for an unreadable file."""
    known = format_of(path)
    if known is None:
        packed = "all but parquet and arrow also as .gz and .zst"
        raise UsageError(str(path), "unknown kind of file", f"expected one of {', '.join(FORMATS)} ({packed})")
    try:
        yield from known.read(path, advance)
    except DAMAGED as error:
        raise DataError(
            str(path), f"cannot be read: {first_line(error)}", "the file looks cut or is not what it says"
        ) from error


# --- bytes --------------------------------------------------------------------------------------------------------


class _Metered(io.FileIO):
    """A file that says how far it was read, so that a bar can be drawn for packed files too."""

    def __init__(self, path: Path, advance: Advance) -> None:
        super().__init__(path)
        self._advance = advance

    def readinto(self, buffer: Any) -> int:
        count = super().readinto(buffer) or 0
        self._advance(count)
        return count


def _opened(path: Path, advance: Advance) -> io.BufferedReader[Any]:
    """Open a file for reading bytes, unpacked by its suffix. Errors: `DataError` for UTF-16."""
    plain: io.BufferedReader[Any] = io.BufferedReader(_Metered(path, advance), 1 << 20)
    suffix = path.suffix.lower()
    handle = plain
    if suffix == ".gz":
        handle = io.BufferedReader(gzip.GzipFile(fileobj=plain), 1 << 20)
    elif suffix == ".zst":
        handle = io.BufferedReader(pyarrow.CompressedInputStream(plain, "zstd"), 1 << 20)
    start = handle.peek(4)[:4]
    if start[:2] in (b"\xff\xfe", b"\xfe\xff") or (len(start) > 1 and b"\0" in start[:2]):
        handle.close()
        raise DataError(str(path), "looks like UTF-16", "expected UTF-8", "save the file as UTF-8")
    return handle


def _skip_bom(handle: io.BufferedReader[Any]) -> int:
    """Pass over a byte-order mark; return how many bytes it has, if there is one."""
    return len(handle.read(len(BOM))) if handle.peek(len(BOM)).startswith(BOM) else 0


def _lines(path: Path, advance: Advance) -> Iterator[bytes]:
    with _opened(path, advance) as handle:
        _skip_bom(handle)
        yield from handle


# --- formats ------------------------------------------------------------------------------------------------------


def read_jsonl(path: Path, advance: Advance) -> Iterator[Item]:
    r"""Read one JSON object a line; lines end at `\n` alone, and empty ones are no rows."""
    number = 0
    with _opened(path, advance) as handle:
        offset = _skip_bom(handle)
        while lines := handle.readlines(BLOCK):
            for line, fields in zip(lines, parse_lines(lines), strict=True):
                number += 1
                if type(fields) is dict or line.strip():
                    yield Item(number, fields, line, offset)
                offset += len(line)


def read_json(path: Path, advance: Advance) -> Iterator[Item]:
    """Read an array of objects, one element after the other. Errors: `DataError` for a torn array."""
    with _opened(path, advance) as handle:
        _skip_bom(handle)
        for number, text in enumerate(elements(path, handle), start=1):
            raw = text.encode("utf-8")
            yield Item(number, parse(raw), raw)


_TYPED = re.compile(r"score|rating|rank|label|preference|strength|complete$|tag$|winner_|better_response|is_")
"""Columns that hold numbers or truth values; a cell of CSV does not say that it is one."""


def read_csv(path: Path, advance: Advance) -> Iterator[Item]:
    """Read CSV with a header; a cell that is a JSON list or object, and a number where one belongs, is decoded."""
    csv.field_size_limit(CELL)
    # Bytes that are not UTF-8 become lone surrogates, and are named when their row comes.
    texts = (line.decode("utf-8", "surrogateescape") for line in _lines(path, advance))
    reader = csv.reader(texts, strict=True)
    header: list[str] | None = None
    while True:
        number = reader.line_num + 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Item(number, Bad("TORN", f"broken CSV ({error})", "a quote is not closed, or the file is cut"), b"")
            continue
        if header is None:
            header = _header(path, cells)
        elif cells:
            raw = ",".join(cells).encode("utf-8", "surrogateescape")
            try:
                yield Item(number, _from_cells(header, cells), raw)
            except Bad as problem:
                yield Item(number, problem, raw)


def _header(path: Path, cells: list[str]) -> list[str]:
    if len(set(cells)) < len(cells):
        raise DataError(f"{path}:1", "a column stands twice in the header", "expected each once")
    return cells


def _from_cells(header: list[str], cells: list[str]) -> dict[str, Any]:
    if len(cells) != len(header):
        raise Bad("BROKEN_CSV", f"{len(cells)} cells", f"expected {len(header)}, as in the header")
    decoded(",".join(cells).encode("utf-8", "surrogateescape"))
    return {column: _cell(column, cell) for column, cell in zip(header, cells, strict=True)}


def _cell(column: str, cell: str) -> Any:
    typed = _TYPED.search(column)
    if typed and not cell:
        return None
    if typed or cell[:1] in ("[", "{"):
        try:
            return orjson.loads(cell)
        except ValueError:
            return cell  # a text that begins with a bracket
    return cell


def read_parquet(path: Path, advance: Advance) -> Iterator[Item]:
    """Read Parquet, some rows at a time."""
    with pyarrow.parquet.ParquetFile(path) as file:
        yield from _columnar(file.iter_batches(batch_size=BATCH), path.stat().st_size, file.metadata.num_rows, advance)


def read_arrow(path: Path, advance: Advance) -> Iterator[Item]:
    """Read Arrow IPC, a stream (what `datasets` writes) or a file, without loading it whole."""
    with pyarrow.memory_map(str(path)) as source:
        try:
            batches: Iterable[Any] = pyarrow.ipc.open_stream(source)
        except pyarrow.ArrowInvalid:
            file = pyarrow.ipc.open_file(source)
            batches = (file.get_batch(number) for number in range(file.num_record_batches))
        yield from _columnar(_small(batches), path.stat().st_size, 0, advance)


def _small(batches: Iterable[Any]) -> Iterator[Any]:
    for batch in batches:
        for start in range(0, batch.num_rows, BATCH):
            yield batch.slice(start, BATCH)


def _columnar(batches: Iterable[Any], size: int, rows: int, advance: Advance) -> Iterator[Item]:
    number = 0
    for batch in batches:
        for fields in batch.to_pylist():
            number += 1
            yield Item(number, fields)
        advance(size * batch.num_rows // rows if rows else batch.nbytes)


FORMATS: dict[str, Format] = {
    ".jsonl": Format(read_jsonl, lines=True),
    ".json": Format(read_json, lines=False),
    ".csv": Format(read_csv, lines=True),
    ".parquet": Format(read_parquet, lines=False),
    ".arrow": Format(read_arrow, lines=False),
}
_PACKABLE = (read_jsonl, read_json, read_csv)
