"""Lines of JSON to columns, by Arrow: in a fraction of the time, and outside of Python's lock; or not at all.

Arrow's reader is as strict as ours where a key stands twice, a text holds half a character, or JSON is broken. It lets
by bytes that are not UTF-8, NaN, numbers beyond all numbers, two objects in a line and one on two lines, and crashes on
a million brackets; so these are looked for here, and only columns that were learned from rows are read.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow
import pyarrow.compute
import pyarrow.json

from headwater.data.reading.blocks import Block, Lines

_MOST = 1 << 26
"""Bytes of a block that is read as columns: a row as long as that is looked at by itself."""
_UNLIKE = (pyarrow.ArrowException, OverflowError, TypeError, ValueError)
"""What Arrow raises for rows that are not alike, and for what it cannot hold."""


class Columns:
    """Gives blocks of lines their columns, once it has learned from rows which ones there are."""

    def __init__(self) -> None:
        self._schema: Any = None

    def learn(self, rows: Iterable[dict[str, Any]]) -> None:
        """Learn names and types of columns from some more rows; of rows that are not alike, nothing."""
        try:
            schema = pyarrow.schema(pyarrow.array(rows).type)
            if self._schema is not None:
                schema = pyarrow.unify_schemas([self._schema, schema], promote_options="permissive")
        except _UNLIKE:
            return
        self._schema = schema

    def read(self, block: Block) -> None:
        """Give a block its columns, where all its rows are sure."""
        if self._schema is not None and isinstance(block, Lines) and len(block.data) < _MOST:
            self._read(block, self._schema)

    @staticmethod
    def _read(lines: Lines, schema: Any) -> None:
        if not _are_objects(lines):
            return
        try:
            table = pyarrow.json.read_json(
                pyarrow.BufferReader(lines.data),
                pyarrow.json.ReadOptions(use_threads=False, block_size=len(lines.data) + 1),
                pyarrow.json.ParseOptions(schema, unexpected_field_behavior="error"),
            )
            _check_utf8(lines.data)
        except pyarrow.ArrowException:
            return
        if table.num_rows == len(lines.ends) and all(map(_is_finite, table.columns)):
            lines.columns = table.combine_chunks().to_batches()[0]


_OPEN, _CLOSE = b"{}"


def _are_objects(lines: Lines) -> bool:
    """Say whether lines all look like `{…}`.

    Between `}` and `{` stands no line break inside of an object. So as many objects as lines are one in each.
    """
    text, ends = np.frombuffer(lines.data, np.uint8), lines.ends
    if not len(ends) or ends[-1] != len(text) - 1 or ends[0] == 0:
        return False
    return bool(text[0] == _OPEN and (text[ends[:-1] + 1] == _OPEN).all() and (text[ends - 1] == _CLOSE).all())


def _check_utf8(data: bytes) -> None:
    """Errors: `ArrowInvalid` for bytes that are not UTF-8."""
    if data.isascii():
        return
    buffers = [None, pyarrow.py_buffer(np.array([0, len(data)], np.int64)), pyarrow.py_buffer(data)]
    pyarrow.Array.from_buffers(pyarrow.large_utf8(), 1, buffers).validate(full=True)


def _is_finite(column: Any) -> bool:
    """Say whether all numbers of a column are finite, also those of its fields and items."""
    kind = column.type
    if not _holds_floats(kind):
        return True
    if pyarrow.types.is_list(kind):
        return _is_finite(pyarrow.compute.list_flatten(column))
    if pyarrow.types.is_struct(kind):
        return all(_is_finite(pyarrow.compute.struct_field(column, [place])) for place in range(kind.num_fields))
    return pyarrow.compute.all(pyarrow.compute.is_finite(column)).as_py() is not False


def _holds_floats(kind: Any) -> bool:
    fields = [kind.field(number).type for number in range(kind.num_fields)]
    return pyarrow.types.is_floating(kind) or any(map(_holds_floats, fields))
