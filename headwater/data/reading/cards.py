"""The card of a data set (README.md): names the files of every configuration and split, as on the hub."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from headwater.errors import DataError, first_line

CARD = "README.md"
_HEAD = re.compile(r"\A---\s*\n(.*?)\n---", re.DOTALL)


class Config(NamedTuple):
    """A configuration of a data set: patterns of files, each with its split."""

    name: str
    patterns: Sequence[tuple[str, str]]
    """(split, pattern below the folder)."""
    is_default: bool

    def files(self, folder: Path) -> Iterator[tuple[Path, str]]:
        """Yield the files that exist, each with its split. Errors: `DataError` for a pattern that matches none."""
        for split, pattern in self.patterns:
            found = sorted(file for file in folder.glob(pattern) if file.is_file())
            if not found:
                raise DataError(str(folder / CARD), f"names {pattern}", "no such file: was all of it copied?")
            yield from ((file, split) for file in found)


def configs_of(folder: Path) -> list[Config]:
    """Return the configurations that the card of a folder names; an empty list where it names none."""
    path = folder / CARD
    head = _HEAD.match(path.read_text("utf-8", "replace").lstrip("\ufeff")) if path.is_file() else None
    if not head:
        return []
    try:
        metadata = yaml.safe_load(head[1])
    except yaml.YAMLError as error:
        raise DataError(str(path), f"its head is no YAML: {first_line(error)}", "mend it, or name the files") from error
    configs = metadata.get("configs") if isinstance(metadata, Mapping) else None
    if not isinstance(configs, list):
        return []
    named = [config for config in configs if isinstance(config, Mapping) and config.get("data_files")]
    return [
        Config(
            str(config.get("config_name") or "default"),
            list(_patterns(config["data_files"])),
            config.get("default") is True,
        )
        for config in named
    ]


def _patterns(data_files: Any, split: str = "train") -> Iterator[tuple[str, str]]:
    """Yield (split, pattern) of `data_files`: a pattern, a list, a split to patterns, or objects of split and path."""
    if isinstance(data_files, Mapping):
        if "path" in data_files:
            yield from _patterns(data_files["path"], str(data_files.get("split") or split))
        else:
            for name, patterns in data_files.items():
                yield from _patterns(patterns, str(name))
    elif isinstance(data_files, list):
        for one in data_files:
            yield from _patterns(one, split)
    else:
        yield split, str(data_files).removeprefix("./")
