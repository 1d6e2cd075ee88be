"""Locks of outputs: a second process that would write to the same output is refused.

Locks are files in the cache folder, held by the operating system, so they end with their process, even after a crash.
Each names its holder.
"""

from __future__ import annotations

import contextlib
import getpass
import hashlib
import json
import os
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from headwater.errors import UsageError
from headwater.files import caches

if TYPE_CHECKING:
    import filelock

_held: dict[Path, filelock.BaseFileLock] = {}
"""By output; for this process only."""


def hold(output: Path) -> None:
    """Keep other processes from writing to `output` until `release`, or the end of this process. Errors: `UsageError`.

    A process that already holds the lock continues.
    """
    place = output.absolute().parent.resolve() / output.name
    if place in _held:
        return
    lock = _acquired(place, output)
    if lock is not None:
        _held[place] = lock
        Path(lock.lock_file).write_text(json.dumps(_record(place)), encoding="utf-8")


def release(output: Path) -> None:
    """Allow other processes to write to `output`."""
    lock = _held.pop(output.absolute().parent.resolve() / output.name, None)
    if lock is not None:
        with contextlib.suppress(OSError):
            Path(lock.lock_file).unlink()  # before the lock ends: who waits for it sees that its file is gone
        lock.release()


@contextlib.contextmanager
def released() -> Iterator[None]:
    """Release at the end the locks taken in the block."""
    before = set(_held)
    try:
        yield
    finally:
        for place in set(_held) - before:
            release(place)


def _acquired(place: Path, output: Path) -> filelock.BaseFileLock | None:
    """Return the lock of an output; None where no folder supports locks. Errors: `UsageError` where it is held."""
    import filelock  # here, because the command line imports this, and --help answers at once

    name = hashlib.sha256(os.fsencode(place)).hexdigest()[:32] + ".lock"
    for folder in (caches.home() / "locks", Path(tempfile.gettempdir()) / f"headwater-locks-{getpass.getuser()}"):
        try:
            folder.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(folder / name, timeout=0, is_singleton=False)
            lock.acquire()
            return lock
        except filelock.Timeout as error:
            raise UsageError(f"--output {output}", *_holder(folder / name)) from error
        except OSError:
            continue
    return None


def _record(place: Path) -> dict[str, object]:
    now = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
    return {"output": os.fsdecode(place), "host": socket.gethostname(), "pid": os.getpid(), "since": now}


def _holder(file: Path) -> tuple[str, str]:
    """Return the holder of a lock, and advice."""
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        who = f"process {found['pid']} on {found['host']}, since {found['since']}"
    except (OSError, ValueError, KeyError, TypeError):
        who = "another process"
    return f"is being written by {who}", "wait for it, stop it, or name another output"
