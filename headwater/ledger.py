"""What has been paid for, on disk before the next is begun: a job that was killed goes on where it was."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import orjson

from headwater.errors import UsageError
from headwater.masking import mask_values


class Ledger:
    """JSON values by key, a line each; only their places are held in memory.

    A later command with the same settings takes it up. A last line that a crash cut off is dropped.
    """

    def __init__(self, path: Path, settings: Mapping[str, Any]) -> None:
        """Open or begin the ledger at `path`. Errors: `UsageError` when it was begun with other settings."""
        self.path = path
        self._places: dict[str, int] = {}
        path.parent.mkdir(parents=True, exist_ok=True)
        self._handle = path.open("a+b")
        header = orjson.dumps({"settings": dict(settings)}, option=orjson.OPT_APPEND_NEWLINE | orjson.OPT_SORT_KEYS)
        self._take_up(_without_secrets(header))

    def _take_up(self, header: bytes) -> None:
        self._handle.seek(0)
        lines = iter(self._handle)
        first = next(lines, b"")
        whole = len(first) if first.endswith(b"\n") else 0
        if whole and first != header:
            raise UsageError(str(self.path), "was begun with other settings", "delete it, or name another --output")
        for line in lines if whole else ():
            if not line.endswith(b"\n"):
                break
            self._places[orjson.loads(line)["key"]] = whole
            whole += len(line)
        self._handle.truncate(whole)
        if not whole:
            self._write(header)

    def __contains__(self, key: str) -> bool:
        """Say whether there is a value for `key`."""
        return key in self._places

    def __len__(self) -> int:
        """Return how many values there are."""
        return len(self._places)

    def __getitem__(self, key: str) -> Any:
        """Return the value for `key`."""
        self._handle.seek(self._places[key])
        return orjson.loads(self._handle.readline())["value"]

    def __setitem__(self, key: str, value: Any) -> None:
        """Write a value down; it is on disk when this returns."""
        self._handle.seek(0, os.SEEK_END)
        self._places[key] = self._handle.tell()
        self._write(orjson.dumps({"key": key, "value": value}, option=orjson.OPT_APPEND_NEWLINE))

    def close(self) -> None:
        """Close the file; it stays for a later command, unless it holds nothing."""
        self._handle.close()
        if not self._places:
            self.path.unlink(missing_ok=True)

    def discard(self) -> None:
        """Delete the file: what it held stands elsewhere."""
        self._handle.close()
        self.path.unlink()

    def _write(self, line: bytes) -> None:
        self._handle.write(_without_secrets(line))
        self._handle.flush()
        os.fsync(self._handle.fileno())


def _without_secrets(line: bytes) -> bytes:
    text = line.decode("utf-8")
    return mask_values(text).encode("utf-8")
