"""From the fields of a row to values of a known type; a value of any other type is `Broken`, and named."""

from __future__ import annotations

import reprlib
import sys
from typing import Any, TypeVar

from headwater.data.layouts.json_text import parsed
from headwater.data.layouts.layout import Broken, Cells, Fields

T = TypeVar("T")


def kind(value: Any) -> str:
    """Return the type of a value, for a message."""
    return "null" if value is None else f"a {type(value).__name__}"


def own_id(fields: Fields, name: str) -> str:
    """Return the id that the data gives a row, else `name`. The ids of data need not be unique."""
    given = fields.get("id")
    return name if given is None or given == "" else str(given)


def text(fields: Fields, column: str) -> str:
    """Return the text of a column. Errors: `Broken` for anything else."""
    value = fields.get(column)
    if not isinstance(value, str):
        raise Broken(f"{column} is {kind(value)}", "expected a text")
    return value


def optional_text(fields: Fields, column: str) -> str:
    """Return the text of a column, "" where it is absent or null. Errors: `Broken`."""
    return "" if fields.get(column) is None else text(fields, column)


def number(fields: Fields, column: str) -> float | None:
    """Return the finite number of a column, None where it is absent or null (in CSV: empty). Errors: `Broken`."""
    value = fields.get(column)
    if isinstance(value, str) and isinstance(fields, Cells):
        value = _number_of(value)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Broken(f"{column} is {kind(value)}", "expected a number")
    # The comparison is false for nan too, and for an integer that no float can hold.
    if not abs(value) <= sys.float_info.max:
        raise Broken(f"{column} is {reprlib.repr(value)}", "expected a finite number, or null", code="SCORE")
    return float(value)  # so that 9 and 9.0 give the same record


def _number_of(value: str) -> Any:
    """Return the number that a text spells, None for an empty one, else the text."""
    if not value.strip():
        return None
    try:
        return float(value) if "_" not in value else value
    except ValueError:
        return value


def boolean(fields: Fields, column: str) -> bool:
    """Return true or false, in CSV also as pandas writes it (`True`). Errors: `Broken`, also for 1 and 0."""
    value = fields.get(column)
    if isinstance(value, str) and isinstance(fields, Cells):
        value = _TRUTH.get(value.strip().lower(), value)
    if not isinstance(value, bool):
        raise Broken(f"{column} is {kind(value)}", "expected true or false")
    return value


_TRUTH = {"true": True, "false": False}


def label(fields: Fields, column: str) -> bool:
    """Return whether a response is desirable: true or false, or 1 or 0. Errors: `Broken`."""
    value = fields.get(column)
    if isinstance(value, str) and isinstance(fields, Cells):
        value = _number_of(value)
    if value in (0, 1):
        return bool(value)
    return boolean(fields, column)


def complete(fields: Fields, column: str) -> bool:
    """Return whether a response is complete, which it is where the column is absent or null (in CSV: empty)."""
    nothing = (None, "") if isinstance(fields, Cells) else (None,)
    return fields.get(column) in nothing or boolean(fields, column)


def choice(fields: Fields, column: str, *choices: T) -> T:
    """Return the one of `choices` that a column holds, as itself or as its text (2 or "2"). Errors: `Broken`."""
    value = fields.get(column)
    for known in choices:
        if not isinstance(value, bool) and (value in (known, str(known)) or _is_number(value, known)):
            return known
    found = "null" if value is None else reprlib.repr(value)
    raise Broken(f"{column} is {found}", f"expected {' or '.join(map(str, choices))}")


def listed(fields: Fields, column: str) -> Any:
    """Return the value of a column that should hold a list; a list written as text (JSON) is parsed."""
    value = fields.get(column)
    found = parsed(value) if isinstance(value, str) else None
    return value if found is None else found


def _is_number(value: Any, known: Any) -> bool:
    """Return whether a text is a certain integer as pandas may write it: `1.0`."""
    return isinstance(value, str) and isinstance(known, int) and _number_of(value) == known


def items(fields: Fields, column: str) -> list[dict[str, Any]]:
    """Return the list of objects of a column. Errors: `Broken`."""
    value = listed(fields, column)
    if not isinstance(value, list):
        raise Broken(f"{column} is {kind(value)}", "expected a list of objects")
    for item in value:
        if not isinstance(item, dict):
            raise Broken(f"{column} holds {kind(item)}", "expected a list of objects")
    return value


def without_an_answer(column: str, expected: str) -> Broken:
    """Return the error for a conversation whose last turn is no answer."""
    return Broken(f"{column} does not end in an assistant turn", expected, code="NO_ASSISTANT_TURN")
