"""Check that a trained model is loaded as its run wrote it: finished, with the same bytes.

The manifest of a run holds size and digest of every file. Sizes are compared on every load, and digests unless
`--trust-files` is given; hashing runs at memory speed, in parallel with loading. Models from elsewhere have no such
manifest.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from headwater.errors import ModelError
from headwater.files import manifest
from headwater.results import runs

WEIGHTS = ".safetensors"
LOADED = ("config.json", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "adapter_config.json")
"""Files beside the weights that affect a model's outputs."""
TRUST = "HEADWATER_TRUST_FILES"
"""Environment variable that skips digests; `--trust-files` sets it."""


@contextlib.contextmanager
def checking(folder: Path) -> Iterator[None]:
    """Check a model while it is loaded in the block; the check's error replaces an error of loading.

    Digests are computed in a thread; XXH3 releases the global interpreter lock. Errors: those of `check`.
    """
    trusted = bool(os.environ.get(TRUST))
    check(folder, digests=False)
    if trusted:
        yield
        return
    with ThreadPoolExecutor(1) as pool:
        found = pool.submit(check, folder)
        try:
            yield
        finally:
            found.result()


def check(folder: Path, *, digests: bool = True) -> None:
    """Refuse a model whose run did not finish, or whose files have changed. Errors: `ModelError`."""
    if runs.is_unfinished(folder):
        fix = "repeat the command that wrote it, which goes on where it was stopped"
        raise ModelError(str(folder), "is a run that did not finish", fix)
    for name, entry in _listed(folder).items():
        path = folder / name
        found = ""
        if path.suffix == WEIGHTS:
            found = manifest.difference(path, entry, digests=digests)
        elif name in LOADED and digests:
            found = manifest.difference(path, entry)
        if found:
            fix = "restore it; where it was changed on purpose, add --trust-files"
            raise ModelError(str(path), f"is not what its run wrote: it {found}", fix)


def _listed(folder: Path) -> Mapping[str, Any]:
    """Return the manifest entries of the model's files; empty where there is no run."""
    if not (folder / "done").is_file():
        return {}
    try:
        found = json.loads((folder / manifest.NAME).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except (OSError, ValueError) as error:
        raise ModelError(
            str(folder / manifest.NAME), f"cannot be read: {error}", "restore it, or train again"
        ) from error
    if not isinstance(found, dict):
        raise ModelError(str(folder / manifest.NAME), "is not a manifest", "restore it, or train again")
    return {name: entry for name, entry in found.items() if "/" not in name and isinstance(entry, dict)}
