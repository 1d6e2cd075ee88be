"""Rows in blocks: one by one as items, and at once as columns where they can be.

What is said of a row always comes from its item. Columns are a quick way to the rows of which nothing is to be said.
"""

from __future__ import annotations

import contextlib
import functools
import io
import itertools
import json
import os
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
import pyarrow
from numpy.typing import NDArray

from headwater.data.reading.strict import Bad, parse, parse_lines
from headwater.errors import DataError, first_line

S = TypeVar("S")
T = TypeVar("T")

PARSED = 1 << 17
"""Bytes of lines that are parsed together."""
AT_ONCE = 4
"""Blocks that are looked at at once, at most: what follows takes one after the other."""
DAMAGED = (EOFError, OSError, zlib.error, pyarrow.ArrowException, UnicodeDecodeError)
"""What gzip and pyarrow raise for a file that is cut, has flipped bits, or is of another kind."""


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


class Block:
    """Some rows that follow each other; as they are here, one by one only."""

    columns: Any = None
    """The same rows as a `pyarrow.RecordBatch` in which all texts are UTF-8; None where they are not all sure."""

    def __init__(self, items: Iterable[Item] = ()) -> None:
        self._items = items

    def __iter__(self) -> Iterator[Item]:
        return iter(self._items)

    def item(self, place: int) -> Item:
        """Return one of the rows of `columns`."""
        raise NotImplementedError


@dataclass
class Lines(Block):
    """Whole lines of JSON."""

    data: bytes
    number: int
    """Lines before them in the file."""
    offset: int
    """Bytes before them in the file."""

    @functools.cached_property
    def ends(self) -> NDArray[np.intp]:
        """Where line breaks are."""
        return np.flatnonzero(np.frombuffer(self.data, np.uint8) == ord("\n"))

    def __iter__(self) -> Iterator[Item]:
        number, offset, handle = self.number, self.offset, io.BytesIO(self.data)
        while lines := handle.readlines(PARSED):
            for line, fields in zip(lines, parse_lines(lines), strict=True):
                number += 1
                if type(fields) is dict or line.strip():
                    yield Item(number, fields, line, offset)
                offset += len(line)

    def item(self, place: int) -> Item:
        """Return one line."""
        start = int(self.ends[place - 1]) + 1 if place else 0
        line = self.data[start : int(self.ends[place]) + 1]
        return Item(self.number + place + 1, parse(line), line, self.offset + start)


class Batch(Block):
    """Rows of a columnar file."""

    def __init__(self, path: Path, batch: Any, number: int) -> None:
        self._path, self._batch, self._number = path, batch, number
        with contextlib.suppress(pyarrow.ArrowInvalid):
            batch.validate(full=True)
            self.columns = batch

    def __iter__(self) -> Iterator[Item]:
        return (Item(number, fields) for number, fields in enumerate(self._rows(self._batch), start=self._number + 1))

    def item(self, place: int) -> Item:
        """Return one row."""
        (fields,) = self._rows(self._batch.slice(place, 1))
        return Item(self._number + place + 1, fields)

    def _rows(self, batch: Any) -> list[dict[str, Any]]:
        with refused_if_damaged(self._path):
            rows: list[dict[str, Any]] = batch.to_pylist()
        return rows


@contextlib.contextmanager
def refused_if_damaged(path: Path) -> Iterator[None]:
    """Turn what libraries raise for a damaged file into a `DataError`."""
    try:
        yield
    except DAMAGED as error:
        raise DataError(
            str(path), f"cannot be read: {first_line(error)}", "the file looks cut or is not what it says"
        ) from error


def ahead(items: Iterator[S], work: Callable[[S], T]) -> Iterator[T]:
    """Yield what `work` makes of items, in their order, as many at once as there are processors; errors in their turn.

    The second one is begun when the first has been seen to, so that what was learned from that is known by then.
    """
    yield from map(work, itertools.islice(items, 1))
    most = min(AT_ONCE, os.cpu_count() or 1)
    begun: deque[Future[T]] = deque()
    with ThreadPoolExecutor(most) as threads:
        for future in _errors_last(threads.submit(work, item) for item in items):
            begun.append(future)
            if len(begun) > 2 * most:
                yield begun.popleft().result()
        while begun:
            yield begun.popleft().result()


def _errors_last(futures: Iterator[Future[T]]) -> Iterator[Future[T]]:
    """Yield futures; what keeps the next from being begun is the last one's error."""
    try:
        yield from futures
    except Exception as error:
        failed: Future[T] = Future()
        failed.set_exception(error)
        yield failed
