"""Refuses a command whose data, files or models are not there, before any library is imported for its work."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from headwater.config.options import MODELS, Option, Options
from headwater.data import gguf_files
from headwater.data.reading import memory
from headwater.data.reading.places import check_there
from headwater.errors import ModelError, did_you_mean, nothing_at
from headwater.results.runs import is_untrained, trained_of

DATA = ("data", "dataset", "input", "prompts", "eval_data")
"""Options that name data: a file, directory, pattern, run, or name on the hub."""
PACKAGED = {
    "SmolLM2-135M-Instruct": "HuggingFaceTB/SmolLM2-135M-Instruct",
    "all-MiniLM-L6-v2": "sentence-transformers/all-MiniLM-L6-v2",
}
"""Folders that `headwater download-models` writes, with the names of these models on the hub."""
WRITTEN = ("output", "figures", "export_for_annotation", "write")
"""Options that name what a command writes; every other path is an input."""


def check(config: Any) -> None:
    """Refuse a config that names something that is not there.

    A name that may be on the hub is left to the hub; with `--endpoint`, a model is left to the server.
    Errors: `UsageError` for data and files, `ModelError` for models.
    """
    options = Options(type(config))
    on_a_server = "endpoint" in options and _values(config, options["endpoint"]) != (None,)
    for option in options.values():
        if not (on_a_server and option.name in MODELS):
            for value in _values(config, option):
                _check_one(option, value)


def _values(config: Any, option: Option) -> tuple[Any, ...]:
    holder = getattr(config, option.group) if option.group else config
    value = getattr(holder, option.name)
    return value if isinstance(value, tuple) else (value,)


def _check_one(option: Option, value: Any) -> None:
    if option.name in MODELS and isinstance(value, str):
        check_model(value)
    elif isinstance(value, Path) and option.name in DATA:
        check_there(value)
    elif isinstance(value, Path) and option.name not in WRITTEN and not (memory.find(value) or value.exists()):
        raise nothing_at(value)


def check_model(name: str) -> None:
    """Refuse a path where nothing is, and a name in a folder of runs that is none of them.

    Other names are left to the hub, and names of constructors, such as `scratch(hidden=256)`, to those who build them.
    Errors: `ModelError`.
    """
    if is_untrained(name):
        name = trained_of(name)
    path = Path(name)
    if "(" in name or path.exists():
        return
    if name.endswith(gguf_files.SUFFIX) and (path.parent.is_dir() or not gguf_files.ON_HUB.fullmatch(name)):
        raise nothing_at(path)
    if path.name in PACKAGED and name != PACKAGED[path.name]:
        fix = f"get it: headwater download-models {path.name} --output {path.parent} (in the checkout: make models)"
        raise ModelError(name, "no such folder", fix)
    there = [each.name for each in path.parent.iterdir()] if path.parent.is_dir() else []
    runs = [each for each in there if (path.parent / each / "environment.json").is_file()]
    if name.startswith((".", "/", "~")) or (runs and path.parent != Path()):
        known = {str(path.parent / each): each for each in runs}
        fix = did_you_mean(str(path), known) if known else "name a run, a path, or a model of the hub as OWNER/NAME"
        raise ModelError(name, "no such file or directory", fix)
