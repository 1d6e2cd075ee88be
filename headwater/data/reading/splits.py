"""Finds the split of every file of a data set, by the names that data sets on the hub use.

    train.jsonl  test.jsonl  data/train-00000-of-00001.parquet      by the file's name
    data/train_prefs-00000-of-00001.parquet                         a split with a longer name
    train/part1.jsonl  test/part1.jsonl  default/test/0000.parquet  by its folder

A card that names them (`cards.py`) comes first.

Files of several splits are never read together: without `--split`, train is read, and the row counts say so.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from headwater.errors import UsageError

_NAMES = {
    "train": ("train", "training"),
    "test": ("test", "testing"),
    "validation": ("validation", "valid", "val", "dev"),
    "eval": ("eval", "evaluation"),
}
_KNOWN = {word: split for split, words in _NAMES.items() for word in words}
"""Word in the name of a file or folder: its split."""
_SHARD = re.compile(r"[-_.]\d+[-_]of[-_]\d+(?:-[0-9a-f]{16})?$")
_NUMBER = re.compile(r"(?:^|[-_.]|(?<=[a-z]))\d+$")
_PARTIAL = re.compile(r"^partial[-_]")
DEFAULT = "train"


class Split(NamedTuple):
    """The split of a file."""

    name: str
    """As the file has it: train, train_prefs; empty where no name says."""
    kind: str
    """The kind that it belongs to: train, test, validation, eval, or its own name."""
    is_sure: bool = False
    """Whether this certainly names a split and not a single file: the name of shards, or from a card."""

    def answers(self, asked: str) -> bool:
        """Return whether `--split` asks for it."""
        return asked in (self.name, self.kind) or _KNOWN.get(asked.lower()) == self.kind


NONE = Split("", "")


def split_of(path: Path) -> Split:
    """Return the split of a file by its path inside of a data set: by its name, else by the closest folder."""
    stem = _SHARD.sub("", _stem(path.name))
    is_shard = stem != _stem(path.name)
    stem = _NUMBER.sub("", stem)
    split = _by_words(stem, whole=is_shard)
    if split != NONE:
        return split
    folders = path.parts[:-1]
    if is_shard and folders[-1:] == ("data",):
        return named(stem)
    for folder in reversed(folders):
        split = _by_words(_PARTIAL.sub("", folder), whole=not stem)
        if split != NONE:
            return split
    return named(folders[-1]) if not stem and len(folders) > 1 else NONE


def named(name: str) -> Split:
    """Return the split of a name that certainly is one."""
    words = [word for word in re.split(r"[^A-Za-z0-9]+", name.lower()) if word]
    return Split(name, _KNOWN.get(words[0] if words else "", name), True)


def _stem(name: str) -> str:
    return re.sub(r"\.(jsonl|json|csv|parquet|arrow)(\.(gz|zst))?$", "", name, flags=re.IGNORECASE)


def _by_words(name: str, whole: bool) -> Split:
    """Return the split of a word in a name; a `whole` name that begins with the word is the split's own name."""
    words = [word for word in re.split(r"[^A-Za-z0-9]+", name.lower()) if word]
    found = next((word for word in words if word in _KNOWN), None)
    if found is None:
        return NONE
    begins = words[0] == found and re.fullmatch(r"\w+", name) is not None
    return Split(name if begins else found, _KNOWN[found], begins and whole)


class Chosen(NamedTuple):
    """Files of one split, and how messages call it."""

    files: Sequence[Path]
    said: str


def choose(place: str, files: Sequence[Path], splits: Sequence[Split], asked: str | None) -> Chosen:
    """Return the files of the split that is asked for; by default those of the only split, or of train.

    Errors: `UsageError` where no file has that split, or there are several splits and none is train.
    """
    held = list(zip(files, splits, strict=True))
    if asked is not None:
        return _of(place, held, asked)
    sure = {split.name for split in splits if split.is_sure}
    kinds = {split.kind for split in splits}
    if len(sure) < 2 and (len(kinds) == 1 or kinds <= {DEFAULT, ""}):
        return Chosen(files, "")
    if DEFAULT not in kinds:
        raise _several(place, "splits", splits)
    return _of(place, held, DEFAULT)


def _of(place: str, held: Sequence[tuple[Path, Split]], asked: str) -> Chosen:
    taken = (
        [(file, split) for file, split in held if split.name == asked]
        or [(file, split) for file, split in held if split.answers(asked)]
        or [(file, split) for file, split in held if asked in re.split(r"[^A-Za-z0-9]+", _stem(file.name))]
    )
    every = [split for _, split in held]
    if not taken:
        raise UsageError(place, f"has no data files of the split {asked}", f"choose one with --split: {_listed(every)}")
    of_kind = [split for _, split in taken]
    names = {split.name for split in of_kind}
    if len(names) > 1 and any(split.is_sure for split in of_kind):
        raise _several(place, f"splits of {asked}", of_kind)
    others = _listed(split for split in every if split not in of_kind)
    said = " and ".join(sorted(filter(None, names))) or asked
    return Chosen([file for file, _ in taken], f"{said} (not {others})" if others else said)


def _several(place: str, what: str, splits: Iterable[Split]) -> UsageError:
    return UsageError(place, f"has several {what}", f"choose one with --split: {_listed(splits)}, or name the files")


def _listed(splits: Iterable[Split]) -> str:
    names = dict.fromkeys(split.name or "files without a split" for split in splits)
    return ", ".join(names)
