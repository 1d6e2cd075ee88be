"""What the values of a column mean, as `--columns` says it: `{1:a, 2:b, 0:tie}` or `{<0:a, >0:b}`."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping
from typing import Any

from headwater.data.layouts.layout import Broken

MEANINGS = {"winner": ("a", "b", "tie", "none"), "label": ("true", "false")}
"""What the values of a column can mean, by name."""


def meaning_of(value: Any, name: str, meanings: Mapping[str, str], column: str) -> str | bool | None:
    """Return what a value of a column means. Errors: `Broken` for one that the description does not name."""
    meaning = meanings.get(plain(value)) or _compared(value, meanings)
    if meaning is None:
        said = ",".join(f"{value}:{meaning}" for value, meaning in meanings.items())
        expected = f"expected {' or '.join(meanings)}, as {name}={column}{{{said}}} says"
        raise Broken(f"{column} is {reprlib.repr(value)}", expected)
    if name == "label":
        return meaning == "true"
    return None if meaning == "none" else meaning


def _compared(value: Any, meanings: Mapping[str, str]) -> str | None:
    """Return the meaning of a number that lies below or above a limit."""
    found = number(value)
    for spelling, meaning in meanings.items():
        limit = number(spelling[1:]) if spelling[0] in "<>" else None
        if found is not None and limit is not None and (found < limit if spelling[0] == "<" else found > limit):
            return meaning
    return None


def number(value: Any) -> float | None:
    """Return the number that a value is or spells; None for any other."""
    try:
        return None if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def plain(value: Any) -> str:
    """Return a value as descriptions spell it: 1, 1.0 and "1" are the same, and so are true, True and "true"."""
    found = number(value)
    if found is not None and found.is_integer() and abs(found) < 2**53:
        return str(int(found))
    return "null" if value is None else str(value).strip().casefold() or "null"
