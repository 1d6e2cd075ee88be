"""File formats, one small function each: from a file to its rows, in blocks. ★ A newcomer adds a format here.

A reader yields every row, also a bad one, with its number: the line, for formats that have lines. What makes a whole
file unreadable is a `DataError`.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow
import pyarrow.ipc
import pyarrow.parquet

from headwater.data.layouts import Cells
from headwater.data.reading.arrays import elements
from headwater.data.reading.blocks import Batch, Block, Item, Lines, refused_if_damaged
from headwater.data.reading.strict import Bad, decoded, parse
from headwater.errors import DataError, UsageError

BOM = b"\xef\xbb\xbf"
BLOCK = 1 << 22
"""Bytes of lines in a block."""
FIRST = 1 << 16
"""Bytes of the first one, from which the columns are learned."""
BATCH = 1024
"""Rows of a columnar file that are in memory at a time."""

CELL = 1 << 24
"""Characters of the longest cell of CSV: a quote that is not closed would take in the rest of the file, held whole."""

Advance = Callable[[int], None]
"""Told how many bytes of the file were read since the last call."""


Reader = Callable[[Path, Advance], Iterator[Block]]


class Format(NamedTuple):
    """A reader, whether it numbers lines (`a.jsonl:5`) or rows (`a.json[5]`), and whether blocks can have columns."""

    read: Reader
    lines: bool
    columns: bool


def format_of(path: Path) -> Format | None:
    """Return the format that a file's name stands for."""
    name = path.name.lower()
    for suffix, known in FORMATS.items():
        if name.endswith(suffix) or (known.read in _PACKABLE and name.endswith((f"{suffix}.gz", f"{suffix}.zst"))):
            return known
    return None


def read_blocks(path: Path, advance: Advance = lambda count: None) -> Iterator[Block]:
    """Yield the rows of one file. Errors: `UsageError` for an unknown suffix, `DataError` for an unreadable file."""
    known = format_of(path)
    if known is None:
        packed = "all but parquet and arrow also as .gz and .zst"
        raise UsageError(str(path), "unknown kind of file", f"expected one of {', '.join(FORMATS)} ({packed})")
    with refused_if_damaged(path):
        yield from known.read(path, advance)


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


def read_jsonl(path: Path, advance: Advance) -> Iterator[Block]:
    r"""Read one JSON object a line; lines end at `\n` alone, and empty ones are no rows."""
    number, size = 0, min(FIRST, BLOCK)
    with _opened(path, advance) as handle:
        offset = _skip_bom(handle)
        while data := handle.read(size):
            data += b"" if data.endswith(b"\n") else handle.readline()
            lines = Lines(data, number, offset)
            yield lines
            number, offset, size = number + len(lines.ends), offset + len(data), BLOCK


def read_json(path: Path, advance: Advance) -> Iterator[Block]:
    """Read an array of objects, one element after the other. Errors: `DataError` for a torn array."""
    with _opened(path, advance) as handle:
        _skip_bom(handle)
        for number, text in enumerate(elements(path, handle), start=1):
            raw = text.encode("utf-8")
            yield Block([Item(number, parse(raw), raw)])


def read_csv(path: Path, advance: Advance) -> Iterator[Block]:
    """Read CSV with a header. Cells are texts: only a layout knows which of them are numbers, labels or lists."""
    return (Block([item]) for item in _csv_items(path, advance))


def _csv_items(path: Path, advance: Advance) -> Iterator[Item]:
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
    return Cells(zip(header, cells, strict=True))


def read_parquet(path: Path, advance: Advance) -> Iterator[Block]:
    """Read Parquet, some rows at a time."""
    with pyarrow.parquet.ParquetFile(path) as file:
        yield from _columnar(path, file.iter_batches(batch_size=BATCH), file.metadata.num_rows, advance)


def read_arrow(path: Path, advance: Advance) -> Iterator[Block]:
    """Read Arrow IPC, a stream (what `datasets` writes) or a file, without loading it whole."""
    with pyarrow.memory_map(str(path)) as source:
        try:
            batches: Iterable[Any] = pyarrow.ipc.open_stream(source)
        except pyarrow.ArrowInvalid:
            file = pyarrow.ipc.open_file(source)
            batches = (file.get_batch(number) for number in range(file.num_record_batches))
        yield from _columnar(path, _small(batches), 0, advance)


def _small(batches: Iterable[Any]) -> Iterator[Any]:
    for batch in batches:
        for start in range(0, batch.num_rows, BATCH):
            yield batch.slice(start, BATCH)


def _columnar(path: Path, batches: Iterable[Any], rows: int, advance: Advance) -> Iterator[Block]:
    number, size = 0, path.stat().st_size
    for batch in batches:
        yield Batch(path, batch, number)
        number += batch.num_rows
        advance(size * batch.num_rows // rows if rows else batch.nbytes)


FORMATS: dict[str, Format] = {
    ".jsonl": Format(read_jsonl, lines=True, columns=True),
    ".json": Format(read_json, lines=False, columns=False),
    ".csv": Format(read_csv, lines=True, columns=False),
    ".parquet": Format(read_parquet, lines=False, columns=True),
    ".arrow": Format(read_arrow, lines=False, columns=True),
}
_PACKABLE = (read_jsonl, read_json, read_csv)
