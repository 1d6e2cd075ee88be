"""Refuse models that come with code, before anything of them is loaded.

`trust_remote_code=False` is not enough: without the argument transformers asks on the terminal, nested configurations
have named code of their own (CVE-2026-5241), and local folders have bypassed the check (CVE-2026-68770). The files are
therefore read first, with a JSON parser only.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headwater.data import adapter_files, gguf_files
from headwater.errors import ModelError, first_line
from headwater.network import hub

CONFIGS = (
    "config.json",
    "tokenizer_config.json",
    "adapter_config.json",
    "generation_config.json",
    "processor_config.json",
    "preprocessor_config.json",
    "image_processor_config.json",
    "video_preprocessor_config.json",
    "feature_extractor_config.json",
    "model_index.json",
)
"""Files of a repository that can name code to run."""
ADAPTER = "adapter_config.json"
LARGEST = 64_000_000
"""Bytes of a configuration; larger ones are refused unread."""
DEEPEST_BASE = 4
"""Maximum depth of adapters on adapters; a longer chain is taken for a circle."""
IMPLEMENTATIONS = ("attn_implementation", "_attn_implementation", "experts_implementation", "_experts_implementation")
FIX = "headwater runs no code that comes with a model; use one that transformers has built in"


def check_model(name: str, base: int = 0) -> None:
    """Refuse a model, adapter or tokenizer that names code to run: a folder, or a name on the hub.

    The base of an adapter is checked too. Errors: `ModelError`; `NetworkError` for a hub that does not answer.
    """
    if gguf_files.is_gguf(name):  # a format without code; no other file of the folder is read
        return
    if base > DEEPEST_BASE:
        raise ModelError(name, "is an adapter of an adapter of an adapter …", "name a model to start from")
    for file in _configurations(name):
        found = _parsed(file)
        where = next(_code_in(found), None)
        if where is not None:
            raise ModelError(name, f"names code to run: {where} in {file.name}", FIX)
        if file.name == ADAPTER and isinstance(found, dict) and found.get("base_model_name_or_path"):
            check_model(adapter_files.base_of(name, found), base + 1)


def _configurations(name: str) -> Iterator[Path]:
    """Yield the files of a model that can name code."""
    folder = Path(name)
    if _is_folder(folder):
        # Any *.json whose name says configuration: transformers has added names before.
        for file in sorted(folder.glob("*.json")):
            if file.name in CONFIGS or "config" in file.name:
                yield file
    else:
        yield from hub.files_of(name, CONFIGS)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long for one
        return False


def _parsed(file: Path) -> Any:
    try:
        if file.stat().st_size > LARGEST:
            raise ModelError(str(file), f"is larger than {LARGEST:,} bytes", "expected a configuration")
        return json.loads(file.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(str(file), f"cannot be read: {first_line(error)}", "expected JSON") from error


def _code_in(value: Any, path: str = "") -> Iterator[str]:
    """Yield the places in a configuration that name code, at any depth."""
    if isinstance(value, dict):
        for key, item in value.items():
            here = f"{path}.{key}" if path else str(key)
            if _names_code(str(key), item):
                yield here
            yield from _code_in(item, here)
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _code_in(item, f"{path}[{index}]")


def _names_code(key: str, item: Any) -> bool:
    if key in ("auto_map", "custom_pipelines", "trust_remote_code"):
        return bool(item)
    if key in IMPLEMENTATIONS:  # a repository of kernels, which transformers would download and run
        return any("/" in one for one in _strings(item))
    # peft imports the module that this names.
    return key == "parent_library" and not str(item or "transformers.").startswith("transformers.")


def _strings(item: Any) -> Iterator[str]:
    if isinstance(item, str):
        yield item
    for inner in item.values() if isinstance(item, dict) else item if isinstance(item, list) else ():
        yield from _strings(inner)
