"""Read the configuration of adapters (peft): their kind, and the model they are for."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

from headwater.data import gguf_files
from headwater.errors import ModelError

CONFIG = "adapter_config.json"
WHOLE = ("model.safetensors", "model.safetensors.index.json")
TOKENIZER = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt")
NAME_ON_HUB = re.compile(r"[\w.-]+(/[\w.-]+)?")


def config_of(name: str) -> dict[str, Any] | None:
    """Return the configuration of adapters, by path or hub name; None for anything else.

    Errors: `ModelError` for one that is damaged, or stored beside the weights of a whole model.
    """
    path = _config_path(name)
    if path is None:
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError(str(path), "is not JSON", "copy the adapter again") from error
    if not isinstance(found, dict):
        raise ModelError(str(path), "is not the configuration of an adapter", "copy the adapter again")
    whole = [file for file in WHOLE if (Path(name) / file).is_file()]
    if whole:
        found_both = f"holds a whole model ({whole[0]}) and an adapter ({CONFIG})"
        raise ModelError(name, found_both, "expected one of them", "move the adapter to a folder of its own")
    return found


def _config_path(name: str) -> Path | None:
    if Path(name).is_dir():
        return path if (path := Path(name) / CONFIG).is_file() else None
    if Path(name).exists() or not NAME_ON_HUB.fullmatch(name):
        return None
    from transformers.utils.peft_utils import find_adapter_config_file

    try:
        found = find_adapter_config_file(name)
    except (OSError, ValueError):
        return None  # the loader reports what is wrong with the name
    return None if found is None else Path(found)


def base_of(name: str, config: dict[str, Any]) -> str:
    """Return the base model of adapters: a path where it is found as one, else a name on the hub.

    A relative path is resolved from the working directory, as in peft, or from the adapter's own folder or its parent.
    Errors: `ModelError` where none is named, or where its folder does not exist.
    """
    named = config.get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        raise ModelError(name, f"is an adapter, and its {CONFIG} names no base model", "write base_model_name_or_path")
    around = Path(name).resolve()
    places = (Path(named), around.parent / named, around / named) if Path(name).is_dir() else (Path(named),)
    for place in places:
        if place.is_dir() or (place.is_file() and gguf_files.is_gguf(str(place))):
            return str(place)
    if not (NAME_ON_HUB.fullmatch(named) or gguf_files.ON_HUB.fullmatch(named)) or named.startswith("."):
        fix = f"bring it there, or write its place into {CONFIG}"
        raise ModelError(name, f"is an adapter of {named}", "there is no such folder", fix)
    return named


def tokenizer_of(name: str) -> str:
    """Return where the tokenizer of a model is: for adapters without their own, in their base."""
    config = config_of(name)
    if config is None or _has_tokenizer(name):
        return name
    return tokenizer_of(base_of(name, config))


def _has_tokenizer(name: str) -> bool:
    if Path(name).is_dir():
        return any((Path(name) / file).is_file() for file in TOKENIZER)
    from transformers.utils import cached_file

    try:
        return cached_file(name, "tokenizer_config.json", _raise_exceptions_for_missing_entries=False) is not None
    except OSError:
        return False
