"""Save the results of an interrupted pass over many rows, so that the same command continues from there.

A pass that is not interrupted costs nothing: values are written only when `Stopped` is raised, to
`$HEADWATER_CACHE/stopped`, under a hash of everything they depend on (weights, tokens, the computed quantity). The next
pass with the same hash reads them and removes the file.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from headwater.console import say
from headwater.data import token_cache
from headwater.data.tokens import PairTokens
from headwater.files import write_atomically
from headwater.interrupts import Stopped

Key = Callable[[], str]
"""A function that returns the hexadecimal hash of everything the values depend on."""

KEPT_DAYS = 30
"""Days after which unused values are removed."""


def folder() -> Path:
    """Return the folder for values of interrupted passes."""
    return token_cache.home() / "stopped"


@contextlib.contextmanager
def kept(key: Key | None, values: NDArray[Any], done: NDArray[np.bool_]) -> Iterator[None]:
    """Fill `values` [rows, …] from an earlier interrupted pass, and save them if this one is interrupted.

    `done` [rows] marks the rows that have their values. `key` is called only where there is something to read or to
    write; without it, nothing is saved. A file that cannot be read or written is ignored: the rows are computed again.
    """
    if key is None:
        yield
        return
    path = folder() / f"{key()}.safetensors" if folder().is_dir() and any(folder().iterdir()) else None
    if path is not None and _take(path, values, done):
        say(f"resumed: {int(done.sum()):,} of {len(done):,} rows were computed before the command was stopped")
    try:
        yield
    except Stopped:
        if done.any():
            _put(folder() / f"{key()}.safetensors", values, done)
        raise
    if path is not None:
        path.unlink(missing_ok=True)


def is_named(function: Callable[..., Any]) -> bool:
    """Return whether a function's name determines its result, which is not so where it closes over other values."""
    return "<" not in function.__qualname__


def key_of(model: Any, what: str, rows: Sequence[PairTokens], *others: Any) -> str:
    """Return the hexadecimal hash of a model's weights, the tokens of `rows`, and the computed quantity `what`."""
    digest = xxhash.xxh3_128(repr((what, len(rows), *others)).encode())
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(memoryview(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()))
    for row in rows:
        masks = [mask for mask in row.masks if mask is not None]
        for part in (row.prompt, row.chosen, row.rejected, row.chosen_reference, row.rejected_reference, *masks):
            digest.update(f"{None if part is None else len(part)} ".encode())
            digest.update(b"" if part is None else np.ascontiguousarray(part).tobytes())
    return digest.hexdigest()


def _take(path: Path, values: NDArray[Any], done: NDArray[np.bool_]) -> bool:
    try:
        found = load_file(path)
        if found["values"].shape != values.shape or found["done"].shape != done.shape:
            return False
    except (OSError, SafetensorError, KeyError, ValueError):
        return False
    values[...], done[...] = found["values"], found["done"]
    return True


def _put(path: Path, values: NDArray[Any], done: NDArray[np.bool_]) -> None:
    arrays: Mapping[str, NDArray[Any]] = {"values": values, "done": done}
    with contextlib.suppress(OSError, SafetensorError):
        write_atomically(path, lambda place: save_file(dict(arrays), place))
        oldest = time.time() - KEPT_DAYS * 24 * 3600
        for other in path.parent.iterdir():
            if other.stat().st_mtime < oldest:
                other.unlink()
