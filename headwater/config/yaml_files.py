"""YAML files as flat mappings of options: read with the place of every entry, and nothing that could run or grow."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from headwater.config.calls import shown
from headwater.config.command_line import is_value
from headwater.config.options import Options
from headwater.errors import UsageError, did_you_mean, first_line
from headwater.marks import visible

LARGEST = 1_000_000
"""Bytes; a config is a short mapping."""
_TAGS = {f"tag:yaml.org,2002:{name}": name for name in ("str", "int", "float", "bool", "null", "timestamp")}


DEEPEST = 20
_BEGINNINGS = (
    yaml.FlowSequenceStartToken,
    yaml.FlowMappingStartToken,
    yaml.BlockSequenceStartToken,
    yaml.BlockMappingStartToken,
)
_ENDS = (yaml.FlowSequenceEndToken, yaml.FlowMappingEndToken, yaml.BlockEndToken)


class Scalar(NamedTuple):
    """A value as it is written, and as YAML reads it."""

    text: str
    value: Any


class Entry(NamedTuple):
    """A line of a file: `key: value`, or `key: [value, …]`."""

    place: str
    """File and line."""
    key: str
    values: tuple[Scalar, ...]
    listed: bool
    """Whether the values stand in a list."""


def entries(path: Path, flag: str = "--config") -> list[Entry]:
    """Read a flat mapping; `flag` is the option that names the file. Errors: `UsageError`, with the line."""
    node = document(path, flag)
    if node is None:
        return []
    found: dict[str, Entry] = {}
    for key, value in node.value:
        entry = _entry(path, key, value)
        name = entry.key.replace("-", "_")
        if name in found:
            line = found[name].place.rpartition(":")[2]
            raise UsageError(entry.place, f"gives {entry.key} again", f"it is in line {line}, too: leave one out")
        found[name] = entry
    return list(found.values())


def document(path: Path, flag: str = "--config") -> yaml.MappingNode | None:
    """Read the mapping that a file holds; None for an empty file. `flag` is the option that names the file.

    Errors: `UsageError`, with the line.
    """
    text = _text(path, flag)
    try:
        _refuse_tokens(path, text, flag)
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"{flag} {path}" + (f":{mark.line + 1}:{mark.column + 1}" if mark else "")
        problem = " ".join(part for part in (error.context, error.problem) if part)
        raise UsageError(where, f"is no YAML: {problem}", "write one `key: value` a line") from error
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        raise UsageError(f"{flag} {path}", f"is no YAML: {first_line(error)}", "write `key: value` lines") from error
    if node is None:
        return None
    if not isinstance(node, yaml.MappingNode):
        raise UsageError(f"{path}:{node.start_mark.line + 1}", "is not a mapping", "write one `key: value` a line")
    return node


def _text(path: Path, flag: str) -> str:
    """Read a file that is one, and of a size that a config has."""
    where = f"{flag} {visible(str(path))}"
    try:
        if path.exists() and not path.is_file():
            raise UsageError(where, "is no file", "name a YAML file")
        with path.open("rb") as file:
            raw = file.read(LARGEST + 1)
    except OSError as error:
        raise UsageError(where, error.strerror or "cannot be read", "name a YAML file") from error
    if len(raw) > LARGEST:
        raise UsageError(where, "is larger than 1 MB", "expected a short YAML mapping")
    try:
        return raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = raw[: error.start].count(b"\n") + 1
        raise UsageError(f"{where}:{line}", f"byte {error.start} is no UTF-8", "save it as UTF-8") from error


def _refuse_tokens(path: Path, text: str, flag: str) -> None:
    """Refuse what plain values have no need of: names for values, which can multiply, and tags, which can run code."""
    refused = {
        yaml.AnchorToken: "an anchor for an alias (&name)",
        yaml.AliasToken: "an alias (*name)",
        yaml.TagToken: "a tag (!name)",
        yaml.DirectiveToken: "a directive (%NAME)",
    }
    depth = 0
    for token in yaml.scan(text, Loader=yaml.SafeLoader):
        what = refused.get(type(token))
        depth += isinstance(token, _BEGINNINGS) - isinstance(token, _ENDS)
        if depth > DEEPEST:  # the time that PyYAML takes grows with the square of the depth
            raise UsageError(f"{flag} {path}:{token.start_mark.line + 1}", "is too deep", "keys are flat, one a flag")
        if what:
            raise UsageError(f"{flag} {path}:{token.start_mark.line + 1}", f"holds {what}", "write the value out")


def _entry(path: Path, key: Any, value: Any) -> Entry:
    place = f"{path}:{key.start_mark.line + 1}"
    if not isinstance(key, yaml.ScalarNode) or _TAGS.get(key.tag) != "str":
        which = shown(key.value) if isinstance(key, yaml.ScalarNode) else "a list or mapping"
        raise UsageError(place, f"has the key {which}", "expected the name of a flag; quote a text")
    name = str(key.value)
    if isinstance(value, yaml.MappingNode):
        raise UsageError(place, f"{shown(name)} holds a mapping", "keys are flat, one a flag")
    if isinstance(value, yaml.ScalarNode):
        return Entry(place, name, (_scalar(value, place, name),), listed=False)
    if any(not isinstance(item, yaml.ScalarNode) for item in value.value):
        raise UsageError(place, f"{shown(name)} holds lists in a list", "keys are flat, one a flag")
    return Entry(place, name, tuple(_scalar(item, place, name) for item in value.value), listed=True)


def _scalar(node: Any, place: str, name: str) -> Scalar:
    kind = _TAGS.get(node.tag)
    try:
        value = yaml.SafeLoader("").construct_object(node)
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        fix = "expected a text, a number, true or false"
        raise UsageError(place, f"{shown(name)} cannot be read: {first_line(error)}", fix) from error
    # 1:30 is 90 to YAML 1.1, and 2026-01-01 a date; a flag takes what is written.
    number = kind in ("int", "float") and ":" not in node.value
    return Scalar(str(value) if number or kind == "bool" else str(node.value), value)


def read_options(path: Path, options: Options) -> dict[str, Any]:
    """Return the values of a YAML file by field; an empty value is one that is not given.

    Errors: `UsageError`, with the line, for a key that is no option of the command and for a value of another type.
    """
    values: dict[str, Any] = {}
    given: dict[str, str] = {}
    for entry in entries(path):
        key = entry.key.replace("-", "_")
        if key not in options.names:
            fix = did_you_mean(entry.key, sorted(options))
            raise UsageError(entry.place, f"unknown key {shown(entry.key)}", fix)
        option = options[options.names[key]]
        if option.name in given:
            raise UsageError(entry.place, f"{entry.key} and {given[option.name]} are one flag", "leave one out")
        given[option.name] = entry.key
        kept = [scalar.text for scalar in entry.values if scalar.value is not None]
        if entry.listed and not option.several:
            raise UsageError(entry.place, f"{entry.key} holds a list", "expected one value")
        if entry.listed and len(kept) < len(entry.values):
            raise UsageError(entry.place, f"{entry.key} holds an empty item", "leave it out")
        dashed = next((text for text in kept if option.several and not is_value(text)), None)
        if dashed:  # on the command line it is a flag
            fix = "write ./ before a name with a dash"
            raise UsageError(entry.place, f"{entry.key} holds {shown(dashed)}", fix)
        if kept or entry.listed:
            values[option.name] = option.convert(kept, f"{entry.place} · {entry.key}: ")
    return values


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a flat YAML mapping. Errors: `UsageError`."""
    return {
        entry.key: [scalar.value for scalar in entry.values] if entry.listed else entry.values[0].value
        for entry in entries(path)
    }


def to_yaml(values: Mapping[str, Any]) -> str:
    """Write a flat mapping as YAML that `--config` reads back."""
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
