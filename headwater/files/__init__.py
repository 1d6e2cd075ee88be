"""Atomic writing of files: to a temporary name, synced, then renamed."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import mmap
import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import xxhash

from headwater.errors import ResourceError, first_line
from headwater.masking import mask_values

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
"""Error numbers of a full disk, a full quota, or a limit on the size of files."""
FULL_MESSAGES = ("No space left on device", "Disk quota exceeded", "File too large", "os error 28", "os error 27")
"""Messages of libraries that hide the error number."""


@contextlib.contextmanager
def room_for(path: Path) -> Iterator[None]:
    """Turn errors of a full disk in the block into `ResourceError`, whichever library raises them."""
    try:
        yield
    except ResourceError:
        raise
    except Exception as error:
        if not is_full(error):
            raise
        fix = "free some space, or write elsewhere; what was finished before is kept"
        raise ResourceError(str(path), f"there is no room to write it: {first_line(error)}", fix) from error


def is_full(error: BaseException) -> bool:
    """Return whether an error means that a disk is full."""
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in FULL
    return any(message in str(error) for message in FULL_MESSAGES)


def write_optional(path: Path, text: str) -> None:
    """Write a small file of a cache atomically; a failure is ignored."""
    with contextlib.suppress(OSError, ResourceError):
        write_text(path, text)


def stamp(path: Path) -> tuple[int, ...]:
    """Return values that change when a file is written or replaced: size, time and inode."""
    try:
        found = path.stat()
    except OSError:
        return ()
    return found.st_size, found.st_mtime_ns, found.st_ino


def sync(path: Path) -> None:
    """Wait until a file, or the entries of a folder, are on disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_atomically(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` fill a temporary file beside `path`, then rename it; after an error no file is left."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # The suffix is kept because writers choose their format (gzip, parquet) by it.
    temporary = path.with_name(f".tmp-{os.getpid()}-{path.name}")
    try:
        with room_for(path):
            write(temporary)
            sync(temporary)
            temporary.replace(path)
            sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically, without the secrets of the environment."""
    masked = mask_values(text)
    write_atomically(path, lambda temporary: temporary.write_text(masked, encoding="utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write JSON atomically."""
    write_text(path, to_json(value, indent=1) + "\n")


def to_json(value: Any, indent: int | None = None) -> str:
    """Return a value as JSON; NaN and infinities become null, because JSON has neither."""
    return json.dumps(_finite(value), indent=indent, ensure_ascii=False)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    return [_finite(item) for item in value] if isinstance(value, list | tuple) else value


def digest(path: Path) -> str:
    """Return the XXH3 digest of a file's bytes, 128 bits in hexadecimal; it detects damage, not forgery."""
    with path.open("rb") as handle:
        if os.fstat(handle.fileno()).st_size == 0:
            return xxhash.xxh3_128_hexdigest(b"")
        with mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ) as content:
            return xxhash.xxh3_128_hexdigest(content)


def sha256(path: Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal."""
    with path.open("rb") as handle:
        return hashlib.file_digest(handle, "sha256").hexdigest()
