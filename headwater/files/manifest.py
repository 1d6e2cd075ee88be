"""Manifests: names, sizes and digests of the files in a folder, so that damaged or changed files are refused.

A folder is filled under a temporary name, its files and the folder itself are synced, the manifest is written last, and
only then is the folder renamed into place. An interruption at any point leaves a folder that is not read.

    manifest.json    {"files": {"NAME": {"bytes": …, "xxh3": …}}, …what the writer adds}
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from headwater import files

NAME = "manifest.json"
STAGED = ".tmp-"
"""Prefix of the names of folders that are not complete yet."""


def commit(folder: Path, fill: Callable[[Path], object], about: Mapping[str, Any]) -> None:
    """Let `fill` write files to a staged folder, add the manifest, and rename it to `folder`, which is replaced.

    After an error no folder is left. Errors: `ResourceError` for a full disk.
    """
    with staged(folder) as place:
        fill(place)
        write(place, about)
        if folder.exists():
            shutil.rmtree(folder)
        place.replace(folder)
        files.sync(folder.parent)


@contextlib.contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Yield an empty folder beside `target`, which is removed afterwards.

    Errors: `ResourceError` for a full disk.
    """
    place = target.with_name(f"{STAGED}{target.name}-{os.urandom(4).hex()}")
    try:
        with files.room_for(target):
            place.mkdir(parents=True)
            yield place
    finally:
        shutil.rmtree(place, ignore_errors=True)


def write(folder: Path, about: Mapping[str, Any]) -> None:
    """Sync every file of a folder and write its manifest, with the entries `about` it."""
    listed = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.name != NAME:
            files.sync(path)
            listed[path.relative_to(folder).as_posix()] = {"bytes": path.stat().st_size, "xxh3": files.digest(path)}
    files.write_json(folder / NAME, {"files": listed, **about})
    files.sync(folder)


def read(folder: Path) -> dict[str, Any]:
    """Return a manifest. Errors: OSError, ValueError where there is none, or it cannot be read."""
    found = json.loads((folder / NAME).read_text(encoding="utf-8"))
    if not isinstance(found, dict) or not isinstance(found.get("files"), dict):
        raise ValueError("no list of files")
    return found


def problem(folder: Path) -> str:
    """Describe how a folder differs from its manifest; empty where it does not."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return "is empty"
    try:
        listed = read(folder)["files"]
    except FileNotFoundError:
        return "has no manifest"
    except (OSError, ValueError) as error:
        return f"has a manifest that cannot be read ({error})"
    for name, entry in listed.items():
        found = difference(folder / name, entry)
        if found:
            return f"{name} {found}"
    return ""


def difference(path: Path, entry: Mapping[str, Any], *, digests: bool = True) -> str:
    """Describe how a file differs from its entry, by size and, with `digests`, by content; empty where equal."""
    if not path.is_file():
        return "is missing"
    if path.stat().st_size != entry["bytes"]:
        return f"has {path.stat().st_size} bytes, not {entry['bytes']}"
    if digests and "xxh3" in entry and files.digest(path) != entry["xxh3"]:
        return "has other bytes than were written"
    return ""
