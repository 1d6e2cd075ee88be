"""Write records to files: canonical JSONL and Parquet that read back equal, and a form for other libraries.

Rows are streamed, files appear complete or not at all, and the same records always give the same bytes.
"""

from __future__ import annotations

import contextlib
import gzip
import itertools
import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import orjson
import pyarrow
import pyarrow.parquet

from headwater import files
from headwater.data.layouts import canonical_row, condition_of, prompt_row
from headwater.data.preference import PAIR_COLUMNS, Candidates, Preference, Record
from headwater.errors import DataError, UsageError

SUFFIXES = (".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet")
MOST_SHARDS = 200
"""All shards are open at once."""
ROW_GROUP = 1000
"""Rows of Parquet that are in memory at a time."""

ToRow = Callable[[Any], Mapping[str, Any]]


def check_writable(path: Path) -> None:
    """Refuse a data file name whose suffix cannot be written. Errors: `UsageError`."""
    if not path.name.lower().endswith(SUFFIXES):
        raise UsageError(f"--output {path}", "unknown kind of file", f"expected {', '.join(SUFFIXES)}")


def shard_paths(path: Path, shards: int) -> list[Path]:
    """Return the files that `write` makes: `path`, or `a-00001-of-00003.jsonl` and so on. Errors: `UsageError`."""
    if not 1 <= shards <= MOST_SHARDS:
        raise UsageError(f"--shards {shards}", f"expected 1 to {MOST_SHARDS}")
    if shards == 1:
        return [path]
    suffix = next(suffix for suffix in SUFFIXES[::-1] if path.name.lower().endswith(suffix))
    stem, ending = path.name[: -len(suffix)], path.name[-len(suffix) :]
    return [path.with_name(f"{stem}-{number:05}-of-{shards:05}{ending}") for number in range(1, shards + 1)]


def write(path: Path, records: Iterable[Record], shards: int = 1) -> list[Path]:
    """Write records atomically and return the files; reading them gives back equal values.

    Several shards are dealt out in turn, `a-00001-of-00003.jsonl` the first row, so that their number of rows need
    not be known. All records must be of one kind.
    """
    return _write(path, records, row_of, shards)


def export(path: Path, preferences: Iterable[Preference], shards: int = 1) -> list[Path]:
    """Write TRL's explicit-prompt conversational form: `prompt`, `chosen`, `rejected`.

    Ids, scores, and which responses were cut are left out.
    """
    return _write(path, preferences, exported_row, shards)


def row_of(record: Record) -> dict[str, Any]:
    """Return the row that headwater writes for a record; `headwater.data.layouts` reads it back.

    A condition is read back by `--condition-column condition`.
    """
    if isinstance(record, Preference):
        return canonical_row(record)
    head: dict[str, Any] = {"id": record.id, "source": record.source} | condition_of(record)
    if isinstance(record, Candidates):
        completions = [{"response": r.text, "overall_score": r.score, "complete": r.complete} for r in record.responses]
        return head | prompt_row(record.prompt, "instruction") | {"completions": completions}
    answer = [turn.fields for turn in record.response.turns]
    given = {"score": record.response.score, "complete": record.response.complete}
    return head | prompt_row(record.prompt) | {"completion": answer, "label": record.label} | given


def exported_row(preference: Preference) -> dict[str, Any]:
    """Return a row of TRL's explicit-prompt conversational form."""
    sides = {"chosen": preference.chosen, "rejected": preference.rejected}
    answers = {side: [turn.fields for turn in response.turns] for side, response in sides.items()}
    return prompt_row(preference.prompt) | answers


class _Sink(Protocol):
    """A file that takes rows."""

    def add(self, row: Mapping[str, Any]) -> None: ...

    def close(self) -> None: ...


def _write(path: Path, records: Iterable[Any], to_row: ToRow, shards: int) -> list[Path]:
    check_writable(path)
    paths = shard_paths(path, shards)

    def fill(temporaries: Sequence[Path]) -> None:
        with contextlib.ExitStack() as stack:
            sinks = [stack.enter_context(contextlib.closing(_sink(file))) for file in temporaries]
            for sink, record in zip(itertools.cycle(sinks), records, strict=False):
                sink.add(to_row(record))

    _write_together(paths, fill)
    return paths


def _write_together(paths: Sequence[Path], fill: Callable[[Sequence[Path]], None], opened: Sequence[Path] = ()) -> None:
    """Let `fill` write all temporary files, then rename them: one that fails leaves none of them behind."""
    if not paths:
        fill(opened)
        return
    first, *others = paths
    files.write_atomically(first, lambda temporary: _write_together(others, fill, [*opened, temporary]))


def _sink(path: Path) -> _Sink:
    return _Parquet(path) if path.suffix.lower() == ".parquet" else _Jsonl(path)


class _Jsonl:
    """JSON lines, plain or packed."""

    def __init__(self, path: Path) -> None:
        self._raw = path.open("wb")
        self._handle: Any = self._raw
        if path.suffix.lower() == ".gz":  # no time and no name: the same rows give the same bytes
            self._handle = gzip.GzipFile("", "wb", fileobj=self._raw, mtime=0)
        elif path.suffix.lower() == ".zst":
            self._handle = pyarrow.CompressedOutputStream(self._raw, "zstd")

    def add(self, row: Mapping[str, Any]) -> None:
        self._handle.write(_json_line(row))

    def close(self) -> None:
        if self._handle is not self._raw:
            self._handle.close()
        self._raw.close()


def _json_line(row: Mapping[str, Any]) -> bytes:
    try:
        return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # a whole number of more than 64 bits, as a score
        return json.dumps(row, ensure_ascii=False).encode("utf-8") + b"\n"


class _Parquet:
    """Parquet, a row group at a time. The columns are those of the first group; they are the same in every row."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: list[Mapping[str, Any]] = []
        self._writer: Any = None
        self._message_keys: dict[str, list[str]] = {}

    def add(self, row: Mapping[str, Any]) -> None:
        self._rows.append(_with_json(row))
        if len(self._rows) == ROW_GROUP:
            self._flush()

    def _flush(self) -> None:
        schema = _schema(self._columns(), self._keys())
        table = pyarrow.Table.from_pylist(self._rows, schema=schema)
        if self._writer is None:
            self._writer = pyarrow.parquet.ParquetWriter(self._path, schema)
        self._writer.write_table(table)
        self._rows = []

    def _columns(self) -> Iterable[str]:
        """Return the columns of the current rows, or of earlier ones.

        Errors: `DataError` for a column that appears late.
        """
        columns = dict.fromkeys(column for row in self._rows for column in row)
        if self._writer is None:
            return columns
        late = [column for column in columns if column not in self._writer.schema.names]
        if late:
            raise DataError(str(self._path), f"{', '.join(late)} is not in the first rows", "write .jsonl")
        known: list[str] = self._writer.schema.names
        return known

    def _keys(self) -> Mapping[str, Sequence[str]]:
        """Return the keys of messages by column, like `_columns`. Errors: `DataError` for a key that appears late."""
        found = {
            column: {key for row in self._rows for turn in row.get(column, ()) for key in turn} for column in _MESSAGES
        }
        if self._writer is None:
            self._message_keys = {
                column: [key for key in _KEYS if key in keys or key in _KEYS[:2]] for column, keys in found.items()
            }
        late = [key for key in _KEYS if any(key in found[of] and key not in self._message_keys[of] for of in found)]
        if late:
            raise DataError(str(self._path), f"{', '.join(late)} of messages is not in the first rows", "write .jsonl")
        return self._message_keys

    def close(self) -> None:
        if self._rows or self._writer is None:
            self._flush()
        self._writer.close()


_KEYS = ("role", "content", "tool_calls", "tool_call_id", "name")
"""Keys of messages. Calls of tools have any form, and are written as JSON; so is the column `tools`."""
_MESSAGES = ("prompt", "instruction", "chosen", "rejected", "completion")
"""Columns of messages, which may hold calls of tools."""


def _with_json(row: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a row in which tools and calls of tools are texts."""
    found = dict(row)
    if "tools" in row:
        found["tools"] = orjson.dumps(row["tools"]).decode()
    for column in _MESSAGES:
        if any("tool_calls" in turn for turn in row.get(column, ())):
            found[column] = [
                {**turn, "tool_calls": orjson.dumps(turn["tool_calls"]).decode()} if "tool_calls" in turn else turn
                for turn in row[column]
            ]
    return found


def _messages(keys: Iterable[str]) -> Any:
    return pyarrow.list_(pyarrow.struct([(key, pyarrow.string()) for key in keys]))


_COMPLETION = [("response", pyarrow.string()), ("overall_score", pyarrow.float64()), ("complete", pyarrow.bool_())]
_TYPES = {
    **dict.fromkeys(("id", "source", "tools"), pyarrow.string()),
    **dict.fromkeys(("score", "score_chosen", "score_rejected", *PAIR_COLUMNS), pyarrow.float64()),
    **dict.fromkeys(("label", "complete", "chosen_complete", "rejected_complete"), pyarrow.bool_()),
    "completions": pyarrow.list_(pyarrow.struct(_COMPLETION)),
}


def _schema(columns: Iterable[str], message_keys: Mapping[str, Sequence[str]]) -> Any:
    """Return the types of columns; said, not guessed, because a group may hold nothing but nulls."""
    types = _TYPES | {column: _messages(keys) for column, keys in message_keys.items()}
    return pyarrow.schema([(column, types[column]) for column in columns])
