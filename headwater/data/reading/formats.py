"""File formats, one small function each: from a file to its rows. ★ A newcomer adds a format here.

A format yields every row with its number, a malformed one as the reason why it is malformed. For formats that have
lines the number is that of the line. Only damage that makes the rest of the file unreadable is a `DataError`.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pyarrow.ipc
import pyarrow.parquet

from headwater.data.layouts import Broken, Cells
from headwater.data.reading.arrays import elements
from headwater.data.reading.strict import decoded, parse, parse_lines
from headwater.errors import DataError, UsageError, first_line

BOM = b"\xef\xbb\xbf"
BLOCK = 1 << 17
"""Bytes of lines that are parsed together."""
BATCH = 1024
"""Rows of a Parquet or Arrow file that are in memory at a time."""
CELL = 1 << 24
"""Characters of the longest cell of CSV; unlimited, a quote that is not closed would hold the rest of the file."""
DAMAGED = (EOFError, OSError, zlib.error, pyarrow.ArrowException, UnicodeDecodeError)
"""What gzip and pyarrow raise for a file that is cut, has flipped bits, or has another format than its suffix."""

Advance = Callable[[int], None]
"""Called with the number of bytes that were read since the last call; draws the progress bar."""


class RawRow(NamedTuple):
    """A row as its file holds it, before any layout."""

    number: int
    """The number of its line where the format has lines, else of the row; counted from 1."""
    fields: dict[str, Any] | Broken
    """Its fields, or what is wrong with it."""
    raw: bytes | None = None
    """Its text in the file; None for formats that are not text."""
    offset: int | None = None
    """Bytes before it in the (unpacked) file, for JSON lines."""

    @property
    def text(self) -> bytes:
        """Its text in the file; for formats that are not text, the fields as JSON."""
        return self.raw if self.raw is not None else json.dumps(self.fields, default=str).encode("utf-8", "replace")


class Format(NamedTuple):
    """A file format: its reader, and whether rows are named by lines (`a.jsonl:5`) or by numbers (`a.json[5]`)."""

    read: Callable[[Path, Advance], Iterator[RawRow]]
    lines: bool


def format_of(path: Path) -> Format | None:
    """Return the format by the suffix of a file's name; None for an unknown one."""
    name = path.name.lower()
    for suffix, known in FORMATS.items():
        if name.endswith(suffix) or (known.read in _PACKABLE and name.endswith((f"{suffix}.gz", f"{suffix}.zst"))):
            return known
    return None


def read_file(path: Path, advance: Advance = lambda count: None) -> Iterator[RawRow]:
    """Yield the rows of one file. Errors: `UsageError` for an unknown suffix, `DataError` for an unreadable file."""
    known = format_of(path)
    if known is None:
        packed = "all but parquet and arrow also as .gz and .zst"
        raise UsageError(str(path), "unknown kind of file", f"expected one of {', '.join(FORMATS)} ({packed})")
    try:
        yield from known.read(path, advance)
    except DAMAGED as error:
        found = f"cannot be read: {first_line(error)}"
        raise DataError(str(path), found, "the file looks cut or is not what it says") from error


# --- bytes --------------------------------------------------------------------------------------------------------


class _Metered(io.FileIO):
    """A file that reports how far it was read: of a packed file, only the packed bytes show the progress."""

    def __init__(self, path: Path, advance: Advance) -> None:
        super().__init__(path)
        self._advance = advance

    def readinto(self, buffer: Any) -> int:
        count = super().readinto(buffer) or 0
        self._advance(count)
        return count


_MAGIC = {
    b"\x1f\x8b": "gzip data (.gz)",
    b"\x28\xb5\x2f\xfd": "zstd data (.zst)",
    b"PK\x03\x04": "a zip archive",
    b"BZh": "bzip2 data",
    b"\xfd7zXZ": "xz data",
    b"PAR1": "Parquet (.parquet)",
    b"ARROW1": "Arrow (.arrow)",
}
"""The first bytes of files that are no text, whatever their names say."""


def _opened(path: Path, advance: Advance) -> io.BufferedReader[Any]:
    """Open a file for reading bytes, unpacked by its suffix. Errors: `DataError` for UTF-16 and what is no text."""
    plain: io.BufferedReader[Any] = io.BufferedReader(_Metered(path, advance), 1 << 20)
    suffix = path.suffix.lower()
    handle = plain
    if suffix == ".gz":
        handle = io.BufferedReader(gzip.GzipFile(fileobj=plain), 1 << 20)
    elif suffix == ".zst":
        handle = io.BufferedReader(pyarrow.CompressedInputStream(plain, "zstd"), 1 << 20)
    start = handle.peek(6)[:6]
    kind = next((kind for magic, kind in _MAGIC.items() if start.startswith(magic)), None)
    if kind is not None:
        handle.close()
        raise DataError(str(path), f"holds {kind}, not {suffix or 'text'}", "name the file by what it holds")
    if start[:2] in (b"\xff\xfe", b"\xfe\xff") or (len(start) > 1 and b"\0" in start[:2]):
        handle.close()
        raise DataError(str(path), "looks like UTF-16", "expected UTF-8", "save the file as UTF-8")
    return handle


def _skip_bom(handle: io.BufferedReader[Any]) -> int:
    """Skip a byte-order mark, if there is one, and return how many bytes were skipped."""
    return len(handle.read(len(BOM))) if handle.peek(len(BOM)).startswith(BOM) else 0


# --- formats ------------------------------------------------------------------------------------------------------


def read_jsonl(path: Path, advance: Advance) -> Iterator[RawRow]:
    r"""Read one JSON object a line; lines end at `\n` alone, and blank ones are no rows."""
    number = 0
    with _opened(path, advance) as handle:
        offset = _skip_bom(handle)
        while lines := handle.readlines(BLOCK):
            # Parsed together, because the check for repeated keys costs little for many lines at once.
            for line, fields in zip(lines, parse_lines(lines), strict=True):
                number += 1
                if type(fields) is dict or line.strip():
                    yield RawRow(number, fields, line, offset)
                offset += len(line)


def read_json(path: Path, advance: Advance) -> Iterator[RawRow]:
    """Read an array of objects, one element after the other. Errors: `DataError` for a torn array."""
    with _opened(path, advance) as handle:
        _skip_bom(handle)
        for number, text in enumerate(elements(path, handle), start=1):
            raw = text.encode("utf-8")
            yield RawRow(number, parse(raw), raw)


def read_csv(path: Path, advance: Advance) -> Iterator[RawRow]:
    """Read CSV with a header. Cells are texts: only a layout knows which of them are numbers, labels or lists."""
    csv.field_size_limit(CELL)
    header: list[str] | None = None
    with _opened(path, advance) as handle:
        _skip_bom(handle)
        # Bytes that are not UTF-8 become lone surrogates here, so that they spoil one row and not the file.
        reader = csv.reader((line.decode("utf-8", "surrogateescape") for line in handle), strict=True)
        while True:
            number = reader.line_num + 1
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                fix = "a quote is not closed, or the file is cut"
                yield RawRow(number, Broken(f"broken CSV ({error})", fix, code="TORN"), b"")
                continue
            if header is None:
                header = _header(path, cells)
            elif cells:
                raw = ",".join(cells).encode("utf-8", "surrogateescape")
                yield RawRow(number, _named_cells(header, cells, raw), raw)


def _header(path: Path, cells: list[str]) -> list[str]:
    if len(set(cells)) < len(cells):
        raise DataError(f"{path}:1", "a column stands twice in the header", "expected each once")
    return cells


def _named_cells(header: list[str], cells: list[str], raw: bytes) -> Cells | Broken:
    if len(cells) != len(header):
        return Broken(f"{len(cells)} cells", f"expected {len(header)}, as in the header", code="BROKEN_CSV")
    try:
        decoded(raw)
    except Broken as problem:
        return problem
    return Cells(zip(header, cells, strict=True))


def read_parquet(path: Path, advance: Advance) -> Iterator[RawRow]:
    """Read Parquet, `BATCH` rows at a time."""
    with pyarrow.parquet.ParquetFile(path) as file:
        yield from _from_batches(path, file.iter_batches(batch_size=BATCH), file.metadata.num_rows, advance)


def read_arrow(path: Path, advance: Advance) -> Iterator[RawRow]:
    """Read Arrow IPC, a stream (what `datasets` writes) or a file, without loading it whole."""
    with pyarrow.memory_map(str(path)) as source:
        try:
            batches: Iterable[Any] = pyarrow.ipc.open_stream(source)
        except pyarrow.ArrowInvalid:
            file = pyarrow.ipc.open_file(source)
            batches = (file.get_batch(number) for number in range(file.num_record_batches))
        small = (batch.slice(start, BATCH) for batch in batches for start in range(0, batch.num_rows, BATCH))
        yield from _from_batches(path, small, 0, advance)


def _from_batches(path: Path, batches: Iterable[Any], rows: int, advance: Advance) -> Iterator[RawRow]:
    """Yield the rows of `pyarrow.RecordBatch`es; of how many `rows` in all, where that is known, shows the progress."""
    before, size = 0, path.stat().st_size
    for batch in batches:
        yield from (RawRow(number, fields) for number, fields in enumerate(batch.to_pylist(), start=before + 1))
        before += batch.num_rows
        advance(size * batch.num_rows // rows if rows else batch.nbytes)


FORMATS: dict[str, Format] = {
    ".jsonl": Format(read_jsonl, lines=True),
    ".json": Format(read_json, lines=False),
    ".csv": Format(read_csv, lines=True),
    ".parquet": Format(read_parquet, lines=False),
    ".arrow": Format(read_arrow, lines=False),
}
_PACKABLE = (read_jsonl, read_json, read_csv)
