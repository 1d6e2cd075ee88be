"""Save a model that a Python program holds, so that it has a name: a folder in the cache, by a digest of its files."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from headwater.errors import UsageError
from headwater.files import caches, digest


def saved(model: Any, tokenizer: Any) -> Path:
    """Return the folder of a model and its tokenizer, which is written unless it is there already.

    The object is not changed. Errors: `UsageError` for adapters that are not merged, and for weights that
    transformers cannot save.
    """
    kind = type(model).__name__
    if hasattr(model, "merge_and_unload"):
        raise UsageError(f"a {kind}", "holds adapters that are not merged", "pass model.merge_and_unload(), or a path")
    home = caches.home() / "models"
    home.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=home) as aside:
        folder = Path(aside) / "model"
        try:
            model.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
        except (NotImplementedError, ValueError, RuntimeError) as error:
            raise UsageError(f"a {kind}", f"cannot be saved: {error}", "load it unquantised, or pass a path") from error
        place = home / f"{kind}-{_digest(folder)}"
        if not place.exists():
            shutil.move(folder, place)
    return place


def _digest(folder: Path) -> str:
    """Return a digest of all files of a folder, 12 hexadecimal digits."""
    import xxhash

    found = xxhash.xxh3_128()
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        found.update(f"{path.relative_to(folder).as_posix()} {digest(path)}\n".encode())
    return found.hexdigest()[:12]
