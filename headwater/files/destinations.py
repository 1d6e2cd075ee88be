"""Check before any work whether a command may write to a path, and whether it may replace what is there."""

from __future__ import annotations

import json
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headwater.errors import UsageError
from headwater.marks import visible

LONGEST = 200
"""Maximum length of a name in bytes; names of neighbouring files are longer, and file systems end at 255."""
MARK = {"command", "arguments", "started", "versions", "machine", "inputs"}
"""Keys that mark the `environment.json` of a run."""
BOOKKEEPING = {"manifest.json", "done", "environment.json"}
WRITTEN = (".json", ".jsonl", ".yaml", ".parquet", ".safetensors", ".jinja", ".html", ".model", ".gz", ".npy")
"""Suffixes and names of files that a run may hold before its manifest is written."""
NAMED = {"README.md", "trained_on.txt", "merges.txt", "vocab.txt", "done"}
MOVE = "move it away, or name another output"


def check_name(path: Path, flag: str = "--output") -> None:
    """Refuse a path that cannot be created, written down or printed. Errors: `UsageError`."""
    shown = f"{flag} {visible(str(path))}"
    for part in path.parts:
        try:
            size = len(part.encode("utf-8"))
        except UnicodeEncodeError as error:
            raise UsageError(shown, "is no UTF-8", "name it with letters that are") from error
        if size > LONGEST:
            short = f"{flag} {visible(part[:40])}…"
            raise UsageError(short, f"is a name of {size} bytes", f"expected {LONGEST} or fewer")
        if any(character < " " or character == "\x7f" for character in part):
            raise UsageError(shown, "holds a control character", "name it without")


def check_directory(path: Path, flag: str = "--output") -> None:
    """Refuse a path that cannot become an output directory, existing or not. Errors: `UsageError`."""
    check_name(path, flag)
    _refuse_link(path, flag)
    if path.exists() and not path.is_dir():
        raise UsageError(f"{flag} {path}", "is a file", "name a directory for the run")
    _check_parent(path, flag)


def check_file(path: Path, flag: str = "--output") -> None:
    """Refuse a path that cannot become an output file, existing or not. Errors: `UsageError`."""
    check_name(path, flag)
    _refuse_link(path, flag)
    if path.exists() and not path.is_file():
        raise UsageError(f"{flag} {path}", "is a directory" if path.is_dir() else "is no regular file", "name a file")
    _check_parent(path.parent, flag)


def _refuse_link(path: Path, flag: str) -> None:
    if path.is_symlink():
        target = visible(str(path.readlink()))
        raise UsageError(f"{flag} {path}", f"is a link to {target}", "name the place itself: links are not followed")


def _check_parent(path: Path, flag: str) -> None:
    """Refuse a path whose nearest existing parent is no directory, or is not writable."""
    nearest = next(place for place in (path, *path.absolute().parents) if os.path.lexists(place))
    if not nearest.is_dir():
        raise UsageError(f"{flag} {path}", f"{nearest} is no directory", "name another place")
    try:  # what the permissions say is not all: a disk may be read-only, or full of files
        with tempfile.TemporaryFile(dir=nearest):
            pass
    except OSError as error:
        raise UsageError(
            f"{flag} {path}", f"{nearest} is not writable: {error.strerror}", "name another place"
        ) from error


def check_own(path: Path, flag: str = "--output") -> None:
    """Refuse to replace a directory that is not a run, or that holds other files too. Errors: `UsageError`."""
    environment = path / "environment.json"
    if environment.is_symlink() or not set(_read(environment)) >= MARK:
        raise UsageError(f"{flag} {path}", "holds files that are not a run", "name another directory")
    stranger = next(_strangers(path), None)
    if stranger:
        name, why = stranger
        raise UsageError(f"{flag} {path}", f"holds {visible(name)}, which {why}", MOVE)


def remove_own(path: Path) -> None:
    """Delete a run after checking its contents once more. Errors: `UsageError`."""
    _refuse_link(path, "--output")
    if path.exists():
        if any(path.iterdir()):
            check_own(path)
        shutil.rmtree(path)


def _strangers(path: Path) -> Iterator[tuple[str, str]]:
    """Yield the files in a run that headwater did not write, with the reason."""
    listed = _read(path / "manifest.json") if (path / "done").is_file() else None
    began = (path / "environment.json").stat().st_mtime - 5  # file systems count in seconds, some in pairs
    for file in _files(path):
        name = str(file.relative_to(path))
        found = file.lstat()
        if stat.S_ISLNK(found.st_mode):
            yield name, "is a link"
        elif not stat.S_ISREG(found.st_mode):
            yield name, "is no regular file"
        elif listed is not None:
            unlisted = file.name in BOOKKEEPING or name.startswith(("checkpoint-", ".tmp-"))
            if name not in listed and not unlisted:
                yield name, "its manifest does not name"
        elif not (file.name.startswith(".tmp-") or file.name in NAMED or file.name.endswith(WRITTEN)):
            yield name, "headwater does not write"
        elif found.st_mtime < began and file.name != "config.yaml":
            yield name, "is older than the run"


def _files(path: Path) -> Iterator[Path]:
    """Yield everything in a directory except directories; links to directories are yielded, not followed."""
    for entry in sorted(path.iterdir()):
        if entry.is_dir() and not entry.is_symlink():
            yield from _files(entry)
        else:
            yield entry


def _read(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return {}
    return found if isinstance(found, dict) else {}
