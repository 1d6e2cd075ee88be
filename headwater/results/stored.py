"""The base of every stored result: a frozen dataclass with its file, `write`, `read`, `to_pandas` and an HTML table.

    @dataclass(frozen=True)
    class SignalCurve(StoredResult):
        FILE: ClassVar[str] = "curves.json"

        points: tuple[CurvePoint, ...]

    SignalCurve(points).write(run.path)
    SignalCurve.read("runs/signal").to_pandas()

The fields of the class are the keys of the file, so that a command and the report never spell a key twice. Values are
plain (numbers, texts, None), `Estimate`s and other named tuples or frozen dataclasses, and tuples, lists and dicts of
these. A result with a single field is stored as the value of that field, without a key. Fields that are None by
default and None in fact are left out of the file. A result whose file ends in .parquet or .jsonl holds
one sequence of records.
"""

from __future__ import annotations

import dataclasses
import functools
import html
import json
import types
import typing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import pyarrow
import pyarrow.parquet

from headwater.errors import UsageError
from headwater.files import to_json, write_atomically, write_json, write_text
from headwater.statistics import Estimate

if TYPE_CHECKING:
    import pandas

SHOWN = 50
"""Rows of the HTML table of a notebook."""


@dataclass(frozen=True)
class StoredResult:
    """A result that a run stores in one file: JSON, JSON lines or Parquet."""

    FILE: ClassVar[str]
    """Name of the file in the run directory."""
    OLD_FILES: ClassVar[tuple[str, ...]] = ()
    """Names that earlier versions gave the file; `read` finds these too."""

    def write(self, run: Path) -> Path:
        """Write the result into the run directory and return its file. NaN and infinities become null."""
        path = run / self.FILE
        if path.suffix == ".parquet":
            write_parquet(path, as_json(self))
        elif path.suffix == ".jsonl":
            write_text(path, "".join(f"{to_json(record)}\n" for record in as_json(self)))
        else:
            write_json(path, as_json(self))
        return path

    @classmethod
    def read(cls, run: Path | str) -> Self:
        """Read the result of a run directory. Errors: `UsageError` where the run holds no such result."""
        found = cls.find(run)
        if found is None:
            raise UsageError(str(run), f"holds no {cls.FILE}", "name the run of a command that writes one")
        return found

    @classmethod
    def find(cls, run: Path | str) -> Self | None:
        """Read the result of a run directory; None where the run holds no such result."""
        paths = (Path(run) / name for name in (cls.FILE, *cls.OLD_FILES))
        path = next((path for path in paths if path.is_file()), None)
        if path is None:
            return None
        if path.suffix == ".parquet":
            return cls.from_json(pyarrow.parquet.read_table(path).to_pylist())
        if path.suffix == ".jsonl":
            return cls.from_json([json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()])
        return cls.from_json(json.loads(path.read_text(encoding="utf-8")))

    @classmethod
    def from_json(cls, stored: Any) -> Self:
        """Return the result from the JSON value of its file, of this version or an earlier one."""
        stored = cls.migrate(stored)
        fields = dataclasses.fields(cls)
        found: Self = from_json(cls, {_key(fields[0]): stored} if len(fields) == 1 else stored)
        return found

    @classmethod
    def migrate(cls, stored: Any) -> Any:
        """Return the JSON value of a file of an earlier version with the keys of this one; override after a rename."""
        return stored

    def table_rows(self) -> list[dict[str, Any]]:
        """Return the result as rows of a table, by column: its first sequence of records, or else its figures."""
        values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        records = next((value for value in values.values() if _is_records(value)), None)
        return list(_figure_rows(values)) if records is None else [flat(record) for record in records]

    def to_pandas(self) -> pandas.DataFrame:
        """Return `table_rows` as a data frame. Errors: `UsageError` where pandas is not installed."""
        return to_pandas(self.table_rows())

    def _repr_html_(self) -> str:
        """Return the table that a notebook shows."""
        return html_table(type(self).__name__, self.table_rows())


def stored_as(key: str) -> dict[str, str]:
    """Return the metadata of a field whose key in the file is not its name, such as `rewards/margins`."""
    return {"key": key}


def _key(field: dataclasses.Field[Any]) -> str:
    return str(field.metadata.get("key", field.name))


def to_pandas(rows: Sequence[Mapping[str, Any]]) -> pandas.DataFrame:
    """Return rows as a data frame, a column a key. Errors: `UsageError` where pandas is not installed."""
    try:
        import pandas
    except ImportError as error:
        raise UsageError("to_pandas", "needs pandas, which is not installed", "pip install pandas") from error
    return pandas.DataFrame([dict(row) for row in rows])


def write_parquet(path: Path, rows: Sequence[Mapping[str, Any]]) -> None:
    """Write records as Parquet, atomically; a column is missing (null) in the rows that do not have it."""
    columns = dict.fromkeys(column for row in rows for column in row)
    table = pyarrow.Table.from_pylist([{column: row.get(column) for column in columns} for row in rows])
    write_atomically(path, lambda temporary: pyarrow.parquet.write_table(table, temporary))


def html_table(title: str, rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the first rows of a table as HTML; every text in it is escaped."""
    columns = list(dict.fromkeys(column for row in rows for column in row))
    head = "".join(f"<th>{html.escape(str(column))}</th>" for column in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_cell(row.get(column)))}</td>" for column in columns) + "</tr>"
        for row in rows[:SHOWN]
    )
    more = f", the first {SHOWN} of {len(rows)} rows" if len(rows) > SHOWN else ""
    caption = f"<caption>{html.escape(title + more)}</caption>"
    return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _figure_rows(values: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield a row for every number and estimate, also of nested mappings."""
    for name, value in values.items():
        if isinstance(value, Estimate):
            yield {"figure": name, **value._asdict()}
        elif isinstance(value, Mapping):
            yield from _figure_rows(value)
        elif isinstance(value, int | float):
            yield {"figure": name, "value": value}


def _cell(value: Any) -> str:
    if value is None:
        return "–"
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def flat(record: Any) -> dict[str, Any]:
    """Return a dataclass, named tuple or mapping as one row: an `Estimate` takes a column for each of its parts.

    `accuracy: Estimate` becomes the columns accuracy, accuracy_low, accuracy_high, accuracy_n and accuracy_clusters.
    """
    row: dict[str, Any] = {}
    for name, value in _items(record):
        if isinstance(value, Estimate):
            parts = value._asdict()
            row[name] = parts.pop("value")
            row |= {f"{name}_{part}": each for part, each in parts.items()}
        else:
            row[name] = value
    return row


def _items(record: Any) -> Iterable[tuple[str, Any]]:
    if isinstance(record, Mapping):
        return record.items()
    if dataclasses.is_dataclass(record):
        return [(field.name, getattr(record, field.name)) for field in dataclasses.fields(record)]
    named: dict[str, Any] = record._asdict()
    return named.items()


def _is_records(value: Any) -> bool:
    """Say whether a value is a sequence of dataclasses, named tuples or mappings."""
    if not isinstance(value, list | tuple) or hasattr(value, "_fields") or not value:
        return False
    return isinstance(value[0], Mapping) or dataclasses.is_dataclass(value[0]) or hasattr(value[0], "_fields")


# ---- Between typed values and JSON ----


def as_json(value: Any) -> Any:
    """Return the JSON value of a typed one: dataclasses and named tuples become mappings."""
    if isinstance(value, StoredResult) and len(fields := dataclasses.fields(value)) == 1:
        return as_json(getattr(value, fields[0].name))
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            _key(field): as_json(each)
            for field in dataclasses.fields(value)
            if (each := getattr(value, field.name)) is not None or field.default is not None
        }
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return {name: as_json(each) for name, each in _items(value)}
    if isinstance(value, Mapping):
        return {str(key): as_json(each) for key, each in value.items()}
    return [as_json(each) for each in value] if isinstance(value, list | tuple) else value


def from_json(kind: Any, stored: Any) -> Any:
    """Return the value of type `kind` that a JSON value stands for.

    Keys that the type does not know are passed over: a later version may have written them. A null where a number
    is expected is NaN. Errors: `TypeError` where a key without a default is missing.
    """
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        options = [option for option in arguments if option is not type(None)]
        if stored is None and len(options) < len(arguments):
            return None
        return from_json(next((one for one in options if _fits(one, stored)), Any), stored)
    if stored is None:
        return float("nan") if kind is float else None
    if origin is tuple and arguments[-1:] != (...,):
        return tuple(from_json(one, each) for one, each in zip(arguments, stored, strict=True))
    if origin in (tuple, list, Sequence):
        return (list if origin is list else tuple)(from_json(arguments[0], each) for each in stored)
    if origin in (dict, Mapping):
        return {key: from_json(arguments[1], each) for key, each in stored.items()}
    if isinstance(kind, type) and (dataclasses.is_dataclass(kind) or hasattr(kind, "_fields")):
        hints, keys = _hints(kind), _keys(kind)
        return kind(**{name: from_json(hints[name], stored[key]) for name, key in keys.items() if key in stored})
    return float(stored) if kind is float else stored


@functools.cache
def _hints(kind: type) -> dict[str, Any]:
    """Return the types of the fields of a dataclass or named tuple."""
    return typing.get_type_hints(kind)


@functools.cache
def _keys(kind: type) -> dict[str, str]:
    """Return the keys of the fields of a dataclass or named tuple in its file, by name."""
    if dataclasses.is_dataclass(kind):
        return {field.name: _key(field) for field in dataclasses.fields(kind) if field.init}
    return {name: name for name in kind._fields}  # type: ignore[attr-defined]


def _fits(kind: Any, stored: Any) -> bool:
    """Say whether a JSON value may be one of type `kind`, an option of a union."""
    origin = typing.get_origin(kind) or kind
    if isinstance(origin, type) and (dataclasses.is_dataclass(origin) or hasattr(origin, "_fields")):
        return isinstance(stored, Mapping)
    if origin in (tuple, list, Sequence):
        return isinstance(stored, list)
    if origin in (dict, Mapping):
        return isinstance(stored, Mapping)
    return origin is Any or (isinstance(origin, type) and isinstance(stored, origin))
