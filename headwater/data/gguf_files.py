"""Models in GGUF files, the format of llama.cpp: `--model FILE.gguf`.

A file is converted once (`gguf_conversion`) to an ordinary model folder in the cache, and read from there.

    $HEADWATER_CACHE/gguf/DIGEST-OF-THE-FILE/model        config, weights, tokenizer
    $HEADWATER_CACHE/gguf/DIGEST-OF-THE-FILE/tokenizer    tokenizer alone, for commands that need nothing else
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from pathlib import Path

from headwater import files
from headwater.console import say
from headwater.errors import ModelError
from headwater.files import caches, manifest

SUFFIX = ".gguf"
ON_HUB = re.compile(r"[\w.-]+/[\w.-]+/.+\.gguf")


def is_gguf(name: str) -> bool:
    """Return whether a model is a GGUF file: a path, OWNER/NAME/FILE.gguf on the hub, or a folder with nothing else."""
    return (name.lower().endswith(SUFFIX) and not Path(name).is_dir()) or _alone(Path(name)) is not None


def _alone(folder: Path) -> Path | None:
    """Return the GGUF file of a folder without a model in another form; None where there is none."""
    try:
        if not folder.is_dir() or any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
            return None
    except OSError:  # a name that is too long for a path
        return None
    return next(iter(sorted(folder.glob(f"*{SUFFIX}"))), None)


def file_of(name: str) -> Path:
    """Return the GGUF file that a model is, downloaded where it is on the hub.

    Errors: `ModelError` where there is no such file, or a folder holds several; `NetworkError`.
    """
    path = Path(name)
    if path.is_dir():
        found = sorted(path.glob(f"*{SUFFIX}"))
        if len(found) > 1:
            raise ModelError(name, f"holds {len(found)} GGUF files", f"name one of them, such as {found[0]}")
        return found[0]
    if path.is_file():
        return path
    if ON_HUB.fullmatch(name) is None:
        raise ModelError(name, "no such file", "name a GGUF file, or OWNER/NAME/FILE.gguf on the hub")
    from headwater.network import hub

    owner, repository, file = name.split("/", 2)
    return hub.file_of(f"{owner}/{repository}", file)


def model_folder(name: str) -> str:
    """Return the folder that a model is loaded from: for a GGUF file, what it is converted to; else `name` itself.

    Errors: `ModelError`, `NetworkError`.
    """
    if not is_gguf(name):
        return name
    from headwater.data import gguf_conversion

    return str(_converted(file_of(name), "model", gguf_conversion.convert))


def tokenizer_folder(name: str) -> str:
    """Return the folder that a tokenizer is loaded from: for a GGUF file, what it is converted to; else `name` itself.

    Errors: `ModelError`, `NetworkError`.
    """
    if not is_gguf(name):
        return name
    from headwater.data import gguf_conversion

    file = file_of(name)
    whole = _place(file) / "model"
    return str(whole if _is_whole(whole) else _converted(file, "tokenizer", gguf_conversion.write_tokenizer))


def _place(file: Path) -> Path:
    return caches.home() / "gguf" / files.digest(file)


def _converted(file: Path, part: str, convert: Callable[[Path, Path], None]) -> Path:
    """Return the folder of a part of a converted file, which is written unless it is there."""
    folder = _place(file) / part
    if _is_whole(folder):
        return folder
    say(f"{part}: {file.name} is converted once, to {folder}")
    with manifest.staged(folder) as place:
        convert(file, place)
        manifest.write(place, {"from": file.name})
        if not _is_whole(folder):  # another process may have been faster
            shutil.rmtree(folder, ignore_errors=True)
            place.replace(folder)
    return folder


def _is_whole(folder: Path) -> bool:
    """Return whether a converted folder is there with all its files; their bytes are not read again."""
    try:
        listed = manifest.read(folder)["files"]
    except (OSError, ValueError):
        return False
    return not any(manifest.difference(folder / name, entry, digests=False) for name, entry in listed.items())
