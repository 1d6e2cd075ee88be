"""Journal of finished work, written before the next unit begins, so that a killed job continues where it was."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

import orjson

from headwater.errors import UsageError
from headwater.masking import mask_values

logger = logging.getLogger(__name__)


class Journal:
    """JSON values by key, one a line; only file offsets are held in memory.

    A later command with the same settings continues it. A last line cut off by a crash is dropped, as are damaged
    lines, which are printed.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Open or create the journal at `path`. Errors: `UsageError` when it was written with other settings."""
        self.path = path
        self._places: dict[str, int] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = path.open("a+b")
        header = orjson.dumps({"settings": dict(settings)}, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SORT_KEYS)
        self._take_up(_without_secrets(header))

    def _take_up(self, header: bytes) -> None:
        """Index the stored values; damaged lines are removed and printed, and their work is repeated."""
        self._handle.seek(0)
        lines = iter(self._handle)
        first = next(lines, b"")
        if first.endswith(b"\n") and first != header:
            raise UsageError(str(self.path), *_other(first, header))
        whole, damaged = len(first) if first == header else 0, []
        place = whole
        for number, line in enumerate(lines if whole else (), start=2):
            key = _key_of(line)
            if key is not None:
                self._places[key] = place
            elif line.endswith(b"\n"):  # a last line without an end was cut off by a crash, which is ordinary
                damaged.append(number)
            place += len(line)
            whole = place if line.endswith(b"\n") else whole
        self._handle.truncate(whole)
        if damaged:
            numbers = ", ".join(map(str, damaged[:10])) + (", …" if len(damaged) > 10 else "")
            logger.warning(
                "%s: damaged in line %s; these are cut, and what they held is done again", self.path, numbers
            )
            self._cut(header)
        if not whole:
            self._write(header)

    def _cut(self, header: bytes) -> None:
        """Rewrite the journal without its damaged lines."""

        def write(temporary: Path) -> None:
            with temporary.open("wb") as copy:
                copy.write(header)
                for key, place in self._places.items():
                    self._handle.seek(place)
                    self._places[key] = copy.tell()
                    copy.write(self._handle.readline())

        temporary = self.path.with_name(f".tmp-{os.getpid()}-{self.path.name}")
        try:
            write(temporary)
            self._handle.close()
            temporary.replace(self.path)
        finally:
            temporary.unlink(missing_ok=True)
        self._handle = self.path.open("a+b")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        """Close the file, see `close`; a journal that was discarded is gone."""
        self.close()

    def __contains__(self, key: str) -> bool:
        """Return whether there is a value for `key`."""
        return key in self._places

    def __len__(self) -> int:
        """Return the number of values."""
        return len(self._places)

    def __getitem__(self, key: str) -> Any:
        """Return the value for `key`."""
        self._handle.seek(self._places[key])
        return orjson.loads(self._handle.readline())["value"]

    def __setitem__(self, key: str, value: Any) -> None:
        """Append a value; it is on disk when this returns."""
        self._handle.seek(0, os.SEEK_END)
        self._places[key] = self._handle.tell()
        self._write(orjson.dumps({"key": key, "value": value}, option=orjson.OPT_APPEND_NEWLINE))

    def close(self) -> None:
        """Close the file; it stays for a later command, unless it is empty."""
        self._handle.close()
        if not self._places:
            self.path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Delete the file, after its values were written elsewhere."""
        self._handle.close()
        self.path.unlink()

    def _write(self, line: bytes) -> None:
        self._handle.write(_without_secrets(line))
        self._handle.flush()
        os.fsync(self._handle.fileno())


def _differences(before: bytes, now: bytes) -> str:
    """Describe which settings differ between two headers; empty where one of them is damaged."""
    try:
        one, other = (_flat(orjson.loads(line)["settings"]) for line in (before, now))
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return ""
    names = [name for name in {**one, **other} if one.get(name) != other.get(name)]
    return ", ".join(
        f"the content of {name.removeprefix('models ')} has changed"
        if name.startswith("models ")
        else f"{name} {one.get(name)} → {other.get(name)}"
        for name in names
    )


def _flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings with those of groups as entries of their own, under both names."""
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= {f"{name} {key}": each for key, each in value.items()} if isinstance(value, dict) else {name: value}
    return found


def _without_secrets(line: bytes) -> bytes:
    text = line.decode("utf-8")
    return mask_values(text).encode("utf-8")


def _key_of(line: bytes) -> str | None:
    """Return the key of a line; None where it is damaged."""
    try:
        found = orjson.loads(line)
    except orjson.JSONDecodeError:
        return None
    key = found.get("key") if isinstance(found, dict) and "value" in found and line.endswith(b"\n") else None
    return key if isinstance(key, str) else None


def _other(first: bytes, header: bytes) -> tuple[str, str]:
    """Return why a journal with this first line, not `header`, cannot be continued, and what to do."""
    found = _differences(first, header)
    found = f"was begun with other settings: {found}" if found else "is damaged in line 1, which says what it is of"
    return found, "delete it, or name another --output"
