"""Fingerprints of what a result depends on: digests of data, weights and tokenizer; settings and versions.

Names are not enough: a folder is trained again, a base changes under its adapters, a file is overwritten. Digests are
XXH3 (128 bits): they detect changes, not forgery. Digests of files are cached for as long as path, size, time and inode
of a file stay the same.
"""

from __future__ import annotations

import functools
import importlib.metadata
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import xxhash
from huggingface_hub import try_to_load_from_cache

from headwater import files
from headwater.data import token_cache
from headwater.data.tokenizers import Tokenizer, is_call
from headwater.data.tokens import PairTokens
from headwater.results import runs

VERSIONS = ("headwater", "torch", "transformers")
OF_MODELS = (".safetensors", ".json", ".jinja", ".model", ".txt", ".gguf")
"""Suffixes of the files that a model is loaded from."""
OF_RUNS = frozenset(
    {"environment.json", "facts.json", "account.json", "metrics.json", "manifest.json", "overlap.json", runs.TRAINED_ON}
)
"""Files beside a trained model that do not affect it."""


def versions() -> dict[str, str]:
    """Return the versions of the libraries that affect numbers."""
    return {package: importlib.metadata.version(package) for package in VERSIONS}


def of_weights(model: torch.nn.Module) -> str:
    """Return the digest of all weights and buffers of a model, with their names."""
    digest = xxhash.xxh3_128()
    for name, tensor in model.state_dict().items():
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(memoryview(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()))
    return digest.hexdigest()


def of_tokenizer(tokenizer: Tokenizer) -> str:
    """Return the digest of a tokenizer and its chat template."""
    return xxhash.xxh3_128_hexdigest(f"{tokenizer.backend_tokenizer.to_str()}\0{tokenizer.chat_template}".encode())


def of_pairs(pairs: Iterable[PairTokens]) -> str:
    """Return the digest of rows as training uses them: their ids, tokens and numbers."""
    digest = xxhash.xxh3_128()
    for pair in pairs:
        gap = pair.columns.get("score_gap")
        digest.update(f"{pair.id} {len(pair.prompt)} {len(pair.chosen)} {len(pair.rejected)} {gap}".encode())
        # The gap stands for the margin; in this order, checkpoints of 0.1 keep their digests.
        for name, value in sorted(pair.columns.items()):
            if name not in ("score_gap", "margin"):
                digest.update(f" {name} {value}".encode())
        for ids in (pair.prompt, pair.chosen, pair.rejected, *(mask for mask in pair.masks if mask is not None)):
            digest.update(ids.tobytes())
    return digest.hexdigest()


def of_data(paths: Sequence[Path]) -> dict[str, str]:
    """Return the digests of data files, by path."""
    return {str(path): of_file(path) for path in paths if path.is_file()}


def of_model_files(name: str) -> str:
    """Return the digest of the files that a model, an ensemble, or adapters with their base, are loaded from.

    For a name that is neither a folder nor in the hub's cache, the digest of the name.
    """
    digest = xxhash.xxh3_128(name.encode())
    for member in runs.members_of(name):
        folder = _folder_of(member)
        if Path(member).is_file():  # a GGUF file
            digest.update(of_file(Path(member)).encode())
        for path in sorted(folder.iterdir()) if folder is not None else ():
            if path.suffix in OF_MODELS and path.name not in OF_RUNS and path.is_file():
                digest.update(f"{path.name} {of_file(path)}".encode())
        base = _base_of(folder)
        if base is not None and base != name:
            digest.update(of_model_files(base).encode())
    return digest.hexdigest()


def of_models(names: Iterable[str | None]) -> dict[str, str]:
    """Return the digests of models by name, and of the references in their training runs."""
    found = {}
    for name in names:
        if name is None or is_call(name):
            continue
        found[name] = of_model_files(name)
        reference = runs.facts_of(Path(name)).get("reference")
        if reference is not None:
            inside = Path(name) / reference
            found[f"{name}, reference"] = of_model_files(str(inside if inside.is_dir() else reference))
    return found


def of_file(path: Path) -> str:
    """Return the digest of a file, from the cache while the file is unchanged."""
    path = path.resolve()
    return _of_file(path, files.stamp(path))


@functools.lru_cache(maxsize=4096)
def _of_file(path: Path, stamp: tuple[int, ...]) -> str:
    kept = token_cache.home() / "digests" / xxhash.xxh3_128_hexdigest(f"{path} {stamp}".encode())
    try:
        return kept.read_text(encoding="ascii")
    except (OSError, ValueError):
        found = files.digest(path)
        files.write_optional(kept, found)
        return found


def _folder_of(name: str) -> Path | None:
    if Path(name).is_dir():
        return Path(name)
    for file in ("config.json", "adapter_config.json"):
        try:
            found = try_to_load_from_cache(name, file)
        except ValueError:  # no name that the hub could have
            return None
        if isinstance(found, str):
            return Path(found).parent
    return None


def _base_of(folder: Path | None) -> str | None:
    """Return the base of adapters; None for anything else."""
    try:
        about = json.loads(((folder or Path()) / "adapter_config.json").read_text(encoding="utf-8"))
        return str(about["base_model_name_or_path"]) if folder is not None else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Describe the differences of two sets of fingerprints: digests by name, plain values with both values."""
    found = []
    for section in now:
        ours, theirs = (side.get(section) for side in (now, before))
        if isinstance(ours, Mapping) and isinstance(theirs, Mapping):
            names = [name for name in {**theirs, **ours} if ours.get(name) != theirs.get(name)]
            found += [_difference(section, name, theirs.get(name), ours.get(name)) for name in names]
        elif ours != theirs:
            found.append(_difference("", section, theirs, ours))
    return found


def _difference(section: str, name: str, before: Any, now: Any) -> str:
    if section == "settings":
        return f"--{name.replace('_', '-')} {before} → {now}"
    if section == "data":
        if None in (before, now):
            return f"{name} {'is new' if before is None else 'is not read any more'}"
        return f"{name} has changed"
    if _is_digest(before) or _is_digest(now):
        return f"the content of the {name} has changed"
    return f"{name} {before} → {now}"


def _is_digest(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 32 and set(value) <= set("0123456789abcdef")
