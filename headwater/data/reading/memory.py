"""Data in memory: lists of rows, data frames and data sets that Python functions take in place of a path.

Data is held under a name while a function runs, and the name stands for it wherever a path does:
`in memory: list, 120 rows, 5f0c3a9b12de`, of which the last word is a digest of all rows. A row is named by its
position, counted from 0: `row 17 of list` is `rows[17]` of a list and `frame.iloc[17]` of a data frame.

    list of dicts                       rows; or records, such as the pairs of `headwater.load`
    pandas.DataFrame                    NaN, NaT and NA are null; a named index is a column
    polars.DataFrame, pyarrow.Table     as the same table in a Parquet file
    datasets.Dataset                    as the same table in a Parquet file
    datasets.IterableDataset            read whole, once
    datasets.DatasetDict, dict of any   splits, of which `split=…` names one
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple, Protocol

import numpy as np
import orjson

from headwater.data.layouts import Broken
from headwater.data.preference import Candidates, Preference, Record, Unpaired
from headwater.data.writing import row_of
from headwater.errors import UsageError

PREFIX = "in memory: "
"""Begins the names of data in memory."""
RECORDS = (Preference, Candidates, Unpaired)
"""Records, which stand for the rows that headwater writes for them."""
NO_FACTS: Mapping[str, Any] = MappingProxyType({})
BATCH = 1024
"""Rows of a table that are converted at a time."""


class HasColumns(Protocol):
    """A data frame, of pandas or polars."""

    @property
    def columns(self) -> Any:
        """The names of the columns."""


class HasColumnNames(Protocol):
    """A data set of `datasets`, or a table of pyarrow."""

    @property
    def column_names(self) -> Any:
        """The names of the columns."""


Rows = Sequence[Mapping[str, Any] | Record] | Mapping[str, Any] | HasColumns | HasColumnNames
"""Data in memory that Python functions take in place of a path."""
Fields = dict[str, Any] | Broken


@dataclass(frozen=True)
class Split:
    """Rows that can be read again and again, each time the same."""

    kind: str
    count: int
    rows: Callable[[], Iterable[Fields]]


class Held(NamedTuple):
    """Data that is held under a name."""

    kind: str
    splits: Mapping[str, Split]
    """By name; one without a name for data that has no splits."""
    digest: str
    """SHA-256 of the rows of all splits, as JSON lines."""
    facts: Mapping[str, Any]
    """What later commands need to know of the data, such as how it was truncated."""


_HELD: dict[str, list[Held]] = {}
"""Held data by name, once for every function that holds it at the moment."""


@contextlib.contextmanager
def held(data: Any, limit: int | None = None, facts: Mapping[str, Any] = NO_FACTS) -> Iterator[Path]:
    """Hold data under a name while the block runs, and return the name; `limit` rows of an IterableDataset.

    Errors: `UsageError` for an object that holds no rows.
    """
    splits = _splits(data, limit)
    digest = hashlib.sha256()
    for name, split in splits.items():
        digest.update(f"{name}\n".encode() if name else b"")
        for fields in split.rows():
            digest.update(_as_json(fields))
    kind = type(data).__name__ if "" not in splits else splits[""].kind
    kind = f"{kind} ({', '.join(splits)})" if "" not in splits else kind
    count = sum(split.count for split in splits.values())
    name = f"{PREFIX}{kind}, {count} row{'' if count == 1 else 's'}, {digest.hexdigest()[:12]}"
    name = name.replace("/", "-")
    _HELD.setdefault(name, []).append(Held(type(data).__name__, splits, digest.hexdigest(), facts))
    try:
        yield Path(name)
    finally:
        _HELD[name].pop()
        if not _HELD[name]:
            del _HELD[name]


def find(place: Path | str) -> Held | None:
    """Return the data that is held under a name; None for any other place.

    Errors: `UsageError` for a name of data that is not held any more.
    """
    name = str(place)
    if name in _HELD:
        return _HELD[name][-1]
    if name.startswith(PREFIX) and not Path(name).exists():
        raise UsageError(name, "was data in the memory of a Python program", "pass the same data again")
    return None


def digest_of(place: Path) -> str | None:
    """Return the SHA-256 of the rows that are held under a name; None for any other place."""
    return _HELD[str(place)][-1].digest if str(place) in _HELD else None


def facts_of(place: Path) -> Mapping[str, Any]:
    """Return the facts of data that is held under a name; none for any other place."""
    return _HELD[str(place)][-1].facts if str(place) in _HELD else NO_FACTS


def name_of(place: Path) -> str:
    """Return the name of data without suffixes, for the names of outputs: `in-memory-list-5f0c3a9b12de`."""
    if str(place).startswith(PREFIX):
        words = str(place).removeprefix(PREFIX).split(" ")
        return f"in-memory-{words[0].strip(',')}-{words[-1]}"
    return place.name.split(".")[0]


def has_turns(value: Any) -> bool:
    """Return whether a value is records, of which some have a response of several turns."""
    if not isinstance(value, Sequence) or isinstance(value, str):
        return False
    return any(isinstance(one, RECORDS) and any(response.before for response in one.responses) for one in value)


def is_rows(value: Any) -> bool:
    """Return whether a value is data in memory rather than a path, or a list of places."""
    if isinstance(value, Sequence) and not isinstance(value, str):
        return not all(isinstance(item, str | Path | list | tuple) or _is_table(item) for item in value) or not value
    return isinstance(value, Mapping) or _is_table(value)


def _is_table(value: Any) -> bool:
    if isinstance(value, RECORDS):
        return False
    return hasattr(value, "column_names") or hasattr(value, "columns")


def _splits(data: Any, limit: int | None) -> Mapping[str, Split]:
    if not isinstance(data, Mapping):
        return {"": _split(data, limit)}
    if not data or not all(is_rows(one) and not isinstance(one, Mapping) for one in data.values()):
        keys = ", ".join(map(str, data)) or "nothing"
        raise UsageError(
            f"a {type(data).__name__} of {keys}", "is no data", "expected a list of rows, or splits by name"
        )
    return {str(name): _split(one, limit) for name, one in data.items()}


def _split(data: Any, limit: int | None) -> Split:
    kind, module = type(data).__name__, type(data).__module__.partition(".")[0]
    if isinstance(data, Sequence) and not isinstance(data, str):
        return _copied(kind, (_row(row) for row in data))
    if module == "pandas" and hasattr(data, "columns"):
        return _copied(kind, _of_pandas(data))
    if module == "polars" and hasattr(data, "collect"):
        data = data.collect()
    if hasattr(data, "to_arrow"):  # polars
        data = data.to_arrow()
    if hasattr(data, "to_batches"):  # pyarrow
        return Split(kind, data.num_rows, lambda: _of_batches(data.to_batches(max_chunksize=BATCH)))
    if hasattr(data, "column_names") and hasattr(data, "with_format"):
        if not hasattr(data, "__len__"):  # an IterableDataset
            return _copied(kind, (_row(row) for row in itertools.islice(data, limit)))
        arrow = data.with_format("arrow")
        return Split(kind, len(data), lambda: _of_batches(arrow.iter(batch_size=BATCH)))
    raise UsageError(f"a {module}.{kind}", "is no data", "expected a path, a list of rows, a data frame or a data set")


def _copied(kind: str, rows: Iterable[Fields]) -> Split:
    """Return rows that stay as they are when the caller changes the original."""
    copy = tuple(rows)
    return Split(kind, len(copy), lambda: copy)


def _of_batches(batches: Iterable[Any]) -> Iterator[Fields]:
    for batch in batches:
        yield from batch.to_pylist()


def _of_pandas(frame: Any) -> Iterator[Fields]:
    if any(name is not None for name in frame.index.names):
        frame = frame.reset_index()
    names = [str(name) for name in frame.columns]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise UsageError(f"a DataFrame with the column {twice} twice", "expected each name once", "rename one")
    columns = [frame.iloc[:, place].tolist() for place in range(len(names))]
    for cells in zip(*columns, strict=True):
        yield {name: _plain(cell, nan_is_null=True) for name, cell in zip(names, cells, strict=True)}


def _row(row: Any) -> Fields:
    """Return the fields of a row, or what is wrong with it."""
    if isinstance(row, RECORDS):
        return row_of(row)
    if not isinstance(row, Mapping):
        return Broken(f"found a {type(row).__name__}", "expected a dict with named fields", code="NOT_OBJECT")
    try:
        return {str(key): _plain(value, nan_is_null=False) for key, value in row.items()}
    except RecursionError:
        return Broken("lists inside lists, too deep to read", code="MALFORMED")


def _plain(value: Any, nan_is_null: bool) -> Any:
    """Return a value as JSON has it: arrays as lists, dates as texts, and what pandas calls missing as null."""
    if value is None or type(value) in (str, bool, int):
        return value
    if isinstance(value, float):
        return None if nan_is_null and math.isnan(value) else float(value)
    if isinstance(value, Mapping):
        return {str(key): _plain(inner, nan_is_null) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner, nan_is_null) for inner in value]
    if type(value).__name__ in ("NAType", "NaTType") or (isinstance(value, np.datetime64) and np.isnat(value)):
        return None
    if hasattr(value, "isoformat"):  # dates and times
        return value.isoformat()
    if isinstance(value, np.datetime64):
        return str(value)
    if hasattr(value, "tolist"):  # arrays, tensors and their numbers
        return _plain(value.tolist(), nan_is_null)
    return value


def _as_json(fields: Fields) -> bytes:
    value = fields.args if isinstance(fields, Broken) else fields
    try:
        return orjson.dumps(value, default=str, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # half a character, or an integer of more than 64 bits
        return json.dumps(value, default=str).encode()
