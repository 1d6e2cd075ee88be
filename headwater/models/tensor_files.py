"""The safetensors files of a model: their list, their headers, and whether they are complete."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from transformers.utils import cached_file

from headwater.data import gguf_files
from headwater.errors import ModelError, first_line

SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLES = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "consolidated.00.pth")
FLOATS = frozenset({"F64", "F32", "F16", "BF16"})


class Header(NamedTuple):
    """Entry of a tensor in the header of a file."""

    dtype: str
    shape: tuple[int, ...]


def check_folder(folder: Path) -> None:
    """Refuse a folder whose weights are pickled, stored twice, or incomplete. Errors: `ModelError`."""
    single, index = folder / SINGLE, folder / INDEX
    if not single.is_file() and not index.is_file():
        _refuse_without_weights(folder)
    if not index.is_file():
        return
    named = _index(index)
    if single.is_file() and set(named.values()) != {SINGLE}:
        found = f"has {SINGLE} and {INDEX}: two sets of weights"
        raise ModelError(str(folder), found, "remove the wrong one")
    _check_shards(folder, named)


def _refuse_without_weights(folder: Path) -> None:
    pickles = [name for name in PICKLES if (folder / name).exists()]
    if pickles:
        found = f"has pickled weights ({pickles[0]}), which can run code"
        raise ModelError(str(folder), found, f"expected {SINGLE}", "load and save it with transformers, which converts")
    gguf = next(iter(sorted(folder.glob("*.gguf"))), None)
    fix = f"name the GGUF file in it: {gguf}" if gguf else ""
    raise ModelError(str(folder), "holds no model: no weights in it", f"expected {SINGLE} or {INDEX}", fix)


def _index(path: Path) -> dict[str, str]:
    """Return the file that holds each tensor, by an index."""
    try:
        named = json.loads(path.read_text(encoding="utf-8"))["weight_map"]
        return {str(name): str(file) for name, file in named.items()}
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(str(path), "is not an index of weights", "copy the model again") from error


def _check_shards(folder: Path, named: Mapping[str, str]) -> None:
    files = sorted(set(named.values()))
    missing = [file for file in files if not (folder / file).is_file()]
    if missing:
        found = f"{len(missing)} of {len(files)} files of weights are missing: {listed(missing)}"
        raise ModelError(str(folder), found, "copy the model again")
    held = {file: set(headers([folder / file])) for file in files}
    times = Counter(name for names in held.values() for name in names)
    twice = sorted(name for name, count in times.items() if count > 1)
    if twice:
        raise ModelError(str(folder), f"two files hold {listed(twice)}", "copy the model again")
    lost = sorted(name for name, file in named.items() if name not in held[file])
    if lost:
        found = f"{INDEX} names {len(lost)} weights that are not in their files: {listed(lost)}"
        raise ModelError(str(folder), found, "copy the model again")


def files_of(name: str) -> list[Path]:
    """Return the weight files of a loaded model, by path or hub name."""
    name = gguf_files.model_folder(name)
    single, index = (_file(name, file) for file in (SINGLE, INDEX))
    if single is not None or index is None:
        return [] if single is None else [single]
    return [found for file in sorted(set(_index(index).values())) if (found := _file(name, file)) is not None]


def _file(name: str, file: str) -> Path | None:
    if Path(name).is_dir():
        return path if (path := Path(name) / file).is_file() else None
    try:
        found = cached_file(name, file, local_files_only=True, _raise_exceptions_for_missing_entries=False)
    except OSError:
        return None
    return None if found is None else Path(found)


def headers(files: list[Path]) -> dict[str, Header]:
    """Return the header entries of the tensors of `files`. Errors: `ModelError` for a damaged file."""
    return {name: header for file in files for name, header in _headers(file)}


def _headers(file: Path) -> Iterator[tuple[str, Header]]:
    try:
        with safe_open(file, framework="pt") as opened:
            for name in opened.keys():  # noqa: SIM118 - not a mapping
                part = opened.get_slice(name)
                yield name, Header(part.get_dtype(), tuple(part.get_shape()))
    except (SafetensorError, OSError) as error:
        raise ModelError(str(file), f"is damaged: {first_line(error)}", "copy the model again") from error


def tensors(files: list[Path]) -> dict[str, torch.Tensor]:
    """Read all tensors of `files`."""
    return {name: tensor for file in files for name, tensor in load_file(file).items()}


def listed(names: list[str], most: int = 3) -> str:
    """Return the first few names, and the number of the rest."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more
