"""Finds data: a file, a directory or glob of files, a run, a folder saved by `datasets`, or a name on the hub.

Each of them becomes a list of parts, and a part is an iterator over rows.
"""

from __future__ import annotations

import glob
import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from headwater.data.reading import cards, memory, splits
from headwater.data.reading.formats import Advance, RawRow, format_of, read_file
from headwater.data.reading.options import ReadOptions
from headwater.errors import DataError, NetworkError, UsageError, first_line, nothing_at
from headwater.marks import visible
from headwater.network import hub

PREFERENCES = "preferences.jsonl"
"""The data file of a run directory that holds data."""
_NO_DATA = {"dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json", "config.json"}
"""Files with the suffix of a data file that describe data instead of holding it."""
_HUB = re.compile(r"[\w-][\w.-]*/[\w-][\w.-]*")


class Part(NamedTuple):
    """Rows that are numbered together: a file, or a split on the hub."""

    name: str
    """Begins the ids of its rows."""
    file: str
    """Begins the places of its rows in messages."""
    lines: bool
    """Whether rows are named by their lines."""
    rows: Callable[[Advance], Iterator[RawRow]]
    path: Path | None = None
    first: int = 1
    """The number of its first row: 0 for data in memory, whose rows are named by their position."""

    @property
    def size(self) -> int:
        """Bytes to be read; 0 where that is not known."""
        return self.path.stat().st_size if self.path else 0

    def place(self, number: int, column: int | None = None) -> str:
        """Return the place of a row: its line (`a.jsonl:5`, with a column `a.jsonl:5:7`) or number (`a.parquet[5]`).

        A row in memory is named by its position from 0 (`row 4 of list`).
        """
        if self.first == 0:
            return f"row {number} of {self.file}"
        if not self.lines:
            return f"{self.file}[{number}]"
        return f"{self.file}:{number}" + (f":{column}" if column else "")


class Located(NamedTuple):
    """The data at a place."""

    parts: list[Part]
    split: str = ""
    """Which of several splits the parts are, for messages: "train (not test)"; empty where there is only one."""


def parts_of(place: Path | str, read_options: ReadOptions) -> list[Part]:
    """Return the parts of the data at `place`. Errors: `UsageError`, `NetworkError`."""
    return locate(place, read_options).parts


def locate(place: Path | str, read_options: ReadOptions) -> Located:
    """Return the parts of the data at `place`, and which split they are. Errors: `UsageError`, `NetworkError`."""
    if data := memory.find(place):
        return _in_memory(data, str(place), read_options)
    path = Path(place)
    if path.exists():
        _refuse_flags_without_effect(path, read_options)
    if path.is_file():
        return Located([_file(path)])
    if path.is_dir():
        return _directory(path, read_options)
    if glob.has_magic(str(place)):
        return _fitting(str(place), read_options)
    check_there(place)
    return Located([_hub(str(place), read_options)])


def check_there(place: Path | str) -> None:
    """Refuse a place where no data can be, without reading it: no such file, and no name of the hub's.

    Errors: `UsageError`.
    """
    path = Path(place)
    if not (memory.find(place) or path.exists() or glob.has_magic(str(place)) or _names_hub(path)):
        raise nothing_at(path, "name a file, a directory, a run, or a dataset of the hub as OWNER/NAME")


def _names_hub(path: Path) -> bool:
    return _HUB.fullmatch(str(path)) is not None and format_of(path) is None


def _fitting(pattern: str, read_options: ReadOptions) -> Located:
    """Return the files that fit a pattern: all of them, even of several splits, which the row counts then name."""
    found = sorted(Path(name) for name in glob.glob(pattern, recursive=True))  # noqa: PTH207 - absolute too
    found = [file for file in found if file.is_file()]
    if not found:
        raise UsageError(pattern, "no file fits the pattern")
    known = [splits.split_of(Path(file.name)) for file in found]
    if read_options.split:
        chosen = splits.choose(pattern, found, known, read_options.split)
        return Located(_told_apart([_file(file) for file in chosen.files]), chosen.said)
    kinds = sorted({split.kind for split in known if split.kind})
    return Located(_told_apart([_file(file) for file in found]), " and ".join(kinds) if len(kinds) > 1 else "")


def _refuse_flags_without_effect(path: Path, read_options: ReadOptions) -> None:
    """Refuse options that only data on the hub, or of several files, can have."""
    _refuse_hub_flags(f"{path} lies on this machine", read_options, config_counts=path.is_dir())
    if read_options.split and (path.is_file() or (path / PREFERENCES).is_file()):
        raise UsageError(f"--split {read_options.split}", f"{path} is one file", "leave --split out")


def _refuse_hub_flags(why: str, read_options: ReadOptions, config_counts: bool = False) -> None:
    for_the_hub = {
        "--dataset-config": None if config_counts else read_options.dataset_config,
        "--revision": read_options.revision,
        "--streaming": read_options.streaming,
    }
    for flag, given in for_the_hub.items():
        if given:
            raise UsageError(flag, why, f"{flag} is for datasets on the hub; leave it out")


def _in_memory(data: memory.Held, place: str, read_options: ReadOptions) -> Located:
    """Return the data that is held under a name, of several splits the one that is asked for, or the training split."""
    _refuse_hub_flags("the data is in memory", read_options)
    if "" in data.splits:
        if read_options.split:
            raise UsageError(f"--split {read_options.split}", f"{place} has no splits", "leave --split out")
        return Located([_rows(data.splits[""], data.kind, data.kind)])
    split, said = _split_of(place, list(data.splits), read_options)
    return Located([_rows(data.splits[split], split, f"{split} ({data.kind})")], said)


def _rows(split: memory.Split, name: str, file: str) -> Part:
    def rows(advance: Advance) -> Iterator[RawRow]:
        yield from (RawRow(number, fields) for number, fields in enumerate(split.rows()))

    return Part(name, file, False, rows, first=0)


def _split_of(place: str, known: Sequence[str], read_options: ReadOptions) -> tuple[str, str]:
    """Return the split that is asked for, or the training split, and what to say of the others."""
    asked = read_options.split or (splits.DEFAULT if splits.DEFAULT in known else None)
    split = _chosen(place, asked, known, _SPLIT)
    others = ", ".join(name for name in known if name != split)
    return split, f"{split} (not {others})" if others else ""


def data_file(path: Path) -> Path:
    """Return the file that `path` names: itself, or the data of a run directory. Errors: `UsageError`."""
    (part,) = parts_of(path, ReadOptions()) if path.is_file() or (path / PREFERENCES).is_file() else (None,)
    if part is None or part.path is None:
        raise UsageError(str(path), "no such file", f"name a data file or a run that holds {PREFERENCES}")
    return part.path


def _file(path: Path) -> Part:
    try:
        str(path).encode("utf-8")
    except UnicodeEncodeError as error:  # a name that ids and messages could not hold
        raise UsageError(visible(str(path)), "is a name that is not UTF-8", "rename the file") from error
    known = format_of(path)
    return Part(path.name.split(".")[0], str(path), bool(known and known.lines), partial(read_file, path), path)


def _directory(path: Path, read_options: ReadOptions) -> Located:
    if (path / PREFERENCES).is_file():
        return Located([_file(path / PREFERENCES)])
    if (path / "dataset_dict.json").is_file():
        known = json.loads((path / "dataset_dict.json").read_text("utf-8"))["splits"]
        split, said = _split_of(str(path), known, read_options)
        return Located(_saved(path / split, f"{path.name}-{split}"), said)
    if (path / "state.json").is_file() and (path / "dataset_info.json").is_file():
        return Located(_saved(path, path.name))
    files = _with_splits(path, read_options)
    if not files:
        raise UsageError(str(path), f"is a directory without {PREFERENCES} or data files", "name data or a run")
    chosen = splits.choose(str(path), [file for file, _ in files], [split for _, split in files], read_options.split)
    return Located(_told_apart([_file(file) for file in chosen.files]), chosen.said)


def _with_splits(path: Path, read_options: ReadOptions) -> list[tuple[Path, splits.Split]]:
    """Return the data files below a folder, each with its split: of one configuration, where there are several."""
    configs = {config.name: config for config in cards.configs_of(path)}
    if configs:
        first = next((config.name for config in configs.values() if config.is_default), None)
        default = first or ("default" if "default" in configs else None)
        config = configs[_chosen(str(path), read_options.dataset_config or default, list(configs), _CONFIG)]
        return [(file, splits.named(split)) for file, split in config.files(path)]
    inside = (file for file in sorted(path.rglob("*")) if not file.name.startswith(".") and file.name not in _NO_DATA)
    files = [file for file in inside if file.is_file() and format_of(file)]
    below = [file.relative_to(path) for file in files]
    if below and all(_CONVERTED.fullmatch(file.as_posix()) for file in below):
        known = list(dict.fromkeys(file.parts[0] for file in below))
        default = "default" if "default" in known else None
        config_name = _chosen(str(path), read_options.dataset_config or default, known, _CONFIG)
        below = [file for file in below if file.parts[0] == config_name]
    elif read_options.dataset_config:
        raise UsageError("--dataset-config", f"{path} has no configurations", "leave it out")
    return [(path / file, splits.split_of(file)) for file in below]


_CONVERTED = re.compile(r"[^/]+/[^/]+/\d{4}\.parquet")
"""Files that the hub has converted a data set to: configuration/split/number."""


def _told_apart(parts: Sequence[Part]) -> list[Part]:
    """Name parts whose file names are the same by their paths below the common folder: `b/train`.

    Ids begin with these names, and no two rows that are read together may get the same id.
    """
    paths = [part.path for part in parts if part.path]
    below = {path: os.path.relpath(path, os.path.commonpath([path.parent for path in paths])) for path in paths}
    for whole in (False, True):  # with the suffix where a folder holds data.csv beside data.jsonl
        counts = Counter(part.name for part in parts)
        parts = [_renamed(part, below, whole) if counts[part.name] > 1 else part for part in parts]
    return list(parts)


def _renamed(part: Part, below: Mapping[Path, str], whole: bool) -> Part:
    if part.path is None:
        return part
    name = below[part.path].replace(os.sep, "/")
    return part._replace(name=name if whole else name.removesuffix("".join(part.path.suffixes)))


def _chosen(place: str, asked: str | None, known: Sequence[str], what: tuple[str, str]) -> str:
    """Return the one that is asked for, or the only one. Errors: `UsageError`."""
    if asked in known or (asked is None and len(known) == 1):
        return asked or known[0]
    kind, flag = what
    found = f"has no {kind} {asked}" if asked else f"has several {kind}s"
    raise UsageError(place, found, f"choose one with {flag}: {', '.join(known)}")


_SPLIT = ("split", "--split")
_CONFIG = ("configuration", "--dataset-config")


def _saved(path: Path, name: str) -> list[Part]:
    """Return the Arrow files of a dataset saved by `datasets`, in its order."""
    state = json.loads((path / "state.json").read_text("utf-8"))
    files = [path / file["filename"] for file in state["_data_files"]]
    missing = [file for file in files if not file.is_file()]
    if missing:
        raise DataError(str(missing[0]), "is not there, but state.json names it", "the folder was not copied whole")
    several = len(files) > 1
    return [
        Part(f"{name}-{number}" if several else name, str(file), False, partial(read_file, file), file)
        for number, file in enumerate(files, start=1)
    ]


def _hub(name: str, read_options: ReadOptions) -> Part:
    label = "/".join(part for part in (name, read_options.dataset_config, read_options.split) if part)
    return Part(label, label, False, lambda advance: _hub_rows(name, read_options))


def _hub_rows(name: str, read_options: ReadOptions) -> Iterator[RawRow]:
    try:
        for number, fields in enumerate(_hub_dataset(name, read_options), start=1):
            yield RawRow(number, fields)
    except (UsageError, GeneratorExit):
        raise
    except Exception as error:  # the network and its libraries fail in many ways
        found = f"no such file here, and not to be had from the hub: {first_line(error)}"
        raise NetworkError(name, found, hub.advice(name, error)) from error


def _hub_dataset(name: str, read_options: ReadOptions) -> Any:
    import datasets

    try:
        found = datasets.load_dataset(
            name,
            name=read_options.dataset_config,
            split=read_options.split,
            revision=read_options.revision,
            streaming=read_options.streaming,
        )
    except ValueError as error:  # a split or configuration that the dataset does not have, or that it needs
        if _ABOUT_CONFIGS.search(str(error)):
            known = datasets.get_dataset_config_names(name, revision=read_options.revision)
            _chosen(name, read_options.dataset_config, known, _CONFIG)
        raise UsageError(f"--split {read_options.split}" if read_options.split else name, first_line(error)) from error
    if isinstance(found, dict):
        found = found[_chosen(name, read_options.split, list(found), _SPLIT)]
    return found


_ABOUT_CONFIGS = re.compile("Config name is missing|BuilderConfig .* not found")
"""The messages of `datasets` for a configuration that is needed or unknown."""
