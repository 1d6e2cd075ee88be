"""Nested YAML files to frozen dataclasses: every key known, every value of its type, every message with its line.

    @dataclass(frozen=True)
    class Step:
        command: str
        options: Mapping[str, tuple[str, ...]]
        place: str = ""

    build(Steps, root_of(path, "RECIPE"))

Fields are keys. A field is a text, a number, a switch, a dataclass, or a tuple or mapping of these; one that is called
`place` gets the file and line instead. A tuple of texts may be written as one text.
"""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping
from dataclasses import MISSING
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import yaml

from headwater.config.calls import shown
from headwater.config.options import default_of
from headwater.config.yaml_files import document
from headwater.errors import UsageError, did_you_mean

T = TypeVar("T")

PLACE = "place"
"""Field that gets the file and line of a mapping."""
_SWITCHES = {"true": True, "false": False}


class Node(NamedTuple):
    """A node of a YAML file, with the file."""

    file: Path
    node: yaml.Node

    @property
    def place(self) -> str:
        """File and line, as messages begin."""
        return f"{self.file.name}:{self.node.start_mark.line + 1}"

    def entries(self) -> dict[str, Node]:
        """Return the entries of a mapping. Errors: `UsageError` for another node, and for a key that is there twice."""
        if not isinstance(self.node, yaml.MappingNode):
            raise UsageError(self.place, "is not a mapping", "expected `key: value` lines")
        found: dict[str, Node] = {}
        for key, value in self.node.value:
            name = Node(self.file, key).text()
            if name in found:
                raise UsageError(Node(self.file, key).place, f"gives {shown(name)} again", "leave one out")
            found[name] = Node(self.file, value)
        return found

    def items(self) -> list[Node]:
        """Return the items of a list; a single value is a list of one."""
        if isinstance(self.node, yaml.SequenceNode):
            return [Node(self.file, item) for item in self.node.value]
        return [self]

    def text(self) -> str:
        """Return a value as it is written. Errors: `UsageError` for a list, a mapping, and nothing."""
        if not isinstance(self.node, yaml.ScalarNode):
            raise UsageError(self.place, "holds a list or mapping", "expected one value")
        if self.node.tag == "tag:yaml.org,2002:null":
            raise UsageError(self.place, "has no value", "write one, or leave the key out")
        return str(self.node.value)


def root_of(path: Path, flag: str) -> Node:
    """Return the mapping of a file; `flag` is what the message calls it. Errors: `UsageError`."""
    found = document(path, flag)
    if found is None:
        raise UsageError(f"{flag} {path}", "is empty", "expected `key: value` lines")
    return Node(path, found)


def build(kind: type[T], node: Node, without: tuple[str, ...] = ()) -> T:
    """Return the dataclass `kind` of a mapping; keys in `without` are left to the caller.

    Errors: `UsageError` for an unknown key (with a suggestion), a missing one, and a value of another type.
    """
    fields = {each.name: each for each in dataclasses.fields(kind) if each.name != PLACE}  # type: ignore[arg-type]
    hints = _hints(typing.cast("Any", kind))
    values: dict[str, Any] = {PLACE: node.place} if PLACE in hints else {}
    entries = {name: entry for name, entry in node.entries().items() if name not in without}
    for name, entry in entries.items():
        if name not in fields:
            raise UsageError(entry.place, f"unknown key {shown(name)}", did_you_mean(name, fields))
        values[name] = value_of(hints[name], entry)
    for name, field in fields.items():
        if name not in values and name not in without and default_of(field) is MISSING:
            raise UsageError(node.place, f"has no {name}", f"expected the keys {', '.join(fields)}")
    return kind(**values)


def value_of(hint: Any, node: Node) -> Any:
    """Return the value of type `hint` that a node holds. Errors: `UsageError`."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return value_of(next(one for one in arguments if one is not type(None)), node)
    if origin is tuple:
        return tuple(value_of(arguments[0], item) for item in node.items())
    if origin in (dict, Mapping):
        return {name: value_of(arguments[1], entry) for name, entry in node.entries().items()}
    if dataclasses.is_dataclass(hint):
        return build(typing.cast("type[Any]", hint), node)
    if origin is typing.Literal:
        return _one_of({str(one): one for one in arguments}, node)
    if hint is bool:
        return _one_of(_SWITCHES, node)
    if hint in (int, float):
        return _number(hint, node)
    return node if hint is Node else node.text()


def _number(kind: type, node: Node) -> Any:
    try:
        return kind(node.text())
    except ValueError:
        expected = "a whole number" if kind is int else "a number"
        raise UsageError(node.place, f"{shown(node.text())} is not {expected}", f"expected {expected}") from None


def _one_of(known: Mapping[str, Any], node: Node) -> Any:
    if node.text() not in known:
        raise UsageError(node.place, f"unknown value {shown(node.text())}", did_you_mean(node.text(), known))
    return known[node.text()]


@functools.cache
def _hints(kind: Any) -> dict[str, Any]:
    return typing.get_type_hints(kind)
