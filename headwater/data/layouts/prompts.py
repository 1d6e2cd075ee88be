r"""Prompts as texts in columns: `\xffuser\xffWhy?\xffassistant\xffBecause.…`, where no UTF-8 holds that byte.

An Arrow array of texts is its bytes and the places where texts begin and end. So parts of texts, and texts put
together, are often an array of the same bytes with other such places, and nothing is copied.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute as pc
from numpy.typing import NDArray

SEPARATOR = b"\xff"
"""Stands before a role and before a content."""

Places = NDArray[np.int64]


def joined(roles: Any, contents: Any) -> Any:
    """Return turns as prompts have them, from columns of bytes; a role may be one for all."""
    return pc.binary_join_element_wise(wide(b""), wide(roles), wide(contents), wide(SEPARATOR))


def wide(texts: Any) -> Any:
    """Return texts whose places are numbers of 64 bits, as many texts in one may need."""
    if isinstance(texts, bytes):
        return pyarrow.scalar(texts, pyarrow.large_binary())
    return pc.cast(texts, pyarrow.large_binary())


def runs(turns: Any, counts: NDArray[np.int64]) -> Any:
    """Return turns that follow each other as one text a row, of so many turns."""
    data, offsets = bytes_of(turns)
    return between(data, offsets[np.concatenate(([0], np.cumsum(counts)))])


def bytes_of(column: Any) -> tuple[NDArray[np.uint8], Places]:
    """Return the bytes of a column of texts, and where its rows begin and end among them, [rows + 1]."""
    is_wide = column.type in (pyarrow.large_string(), pyarrow.large_binary())
    kind = np.dtype(np.int64 if is_wide else np.int32)
    _, offsets, data = column.buffers()
    places = np.zeros(1)  # an empty column may have no buffers
    if len(column):
        places = np.frombuffer(offsets, kind, len(column) + 1, column.offset * kind.itemsize)
    return np.frombuffer(data or b"", np.uint8), places.astype(np.int64)


def between(data: NDArray[np.uint8], places: Places) -> Any:
    """Return what lies between places that follow each other: one text less than there are places."""
    buffers = [None, pyarrow.py_buffer(places), pyarrow.py_buffer(data)]
    return pyarrow.Array.from_buffers(pyarrow.large_binary(), len(places) - 1, buffers)
