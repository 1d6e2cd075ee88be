"""Whether a text can be a value of a field, by the field's annotation."""

from __future__ import annotations

import types
import typing
from pathlib import Path
from typing import Any, Literal


def takes_several(hint: Any) -> bool:
    """Say whether a field takes any number of values."""
    return any(typing.get_origin(one) in (tuple, list) for one in _members(hint))


def mismatch(text: str, hint: Any) -> str:
    """Return what a field expects instead of `text`; nothing where it fits."""
    expected = [one for member in _members(hint) for one in _items(member) if one is not type(None)]
    if not expected or any(_accepts(one, text) for one in expected):
        return ""
    return " or ".join(dict.fromkeys(_named(one) for one in expected))


def is_number(text: str) -> bool:
    """Say whether a text is a number."""
    return _accepts(float, text)


def _members(hint: Any) -> tuple[Any, ...]:
    """Return what a field may be: the members of a union, without what annotates them."""
    if typing.get_origin(hint) is typing.Annotated:
        return _members(typing.get_args(hint)[0])
    if typing.get_origin(hint) in (typing.Union, types.UnionType):
        return tuple(one for member in typing.get_args(hint) for one in _members(member))
    return (hint,)


def _items(hint: Any) -> tuple[Any, ...]:
    if typing.get_origin(hint) not in (tuple, list):
        return (hint,)
    return tuple(one for member in typing.get_args(hint) if member is not ... for one in _members(member))


def _accepts(hint: Any, text: str) -> bool:
    if typing.get_origin(hint) is Literal:
        return text in map(str, typing.get_args(hint))
    if hint is bool:
        return text in ("True", "False")
    if hint in (int, float):
        try:
            hint(text)
        except ValueError:
            return False
    return True


def _named(hint: Any) -> str:
    if typing.get_origin(hint) is Literal:
        return ", ".join(map(str, typing.get_args(hint)))
    return {int: "a whole number", float: "a number", bool: "true or false", Path: "a path"}.get(hint, str(hint))
