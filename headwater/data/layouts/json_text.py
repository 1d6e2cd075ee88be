"""Lists and objects that a column holds as text: messages saved as JSON, or as `str` of a Python list."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Collection
from typing import Any

from headwater.data.layouts.layout import Broken, Cells, Fields

_JSON_SPACE = " \t\r\n"
_BEGINS_LIKE_MESSAGES = re.compile(r"""\s*(\[?)\s*\{\s*(["'])(?:role|content|from|value)\2\s*:""")
_LONGEST = 1 << 24
"""Characters of the longest text that is parsed as Python: the parser takes many times as much memory."""


def parsed(value: str) -> Any:
    """Return the list or object that a text spells, in JSON or Python; None for any other text."""
    if not _begins_like_json(value):
        return None
    try:
        found = json.loads(value)
    except (ValueError, RecursionError):
        found = _from_python(value)
    return found if isinstance(found, list | dict) else None


def _begins_like_json(value: str) -> bool:
    """Return whether a text begins like a list or an object."""
    return value.lstrip(_JSON_SPACE).startswith(("[", "{"))


def _from_python(value: str) -> Any:
    if not _BEGINS_LIKE_MESSAGES.match(value) or len(value) > _LONGEST:
        return None
    try:
        return ast.literal_eval(value.strip())
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return None


def with_messages(fields: Fields) -> tuple[Fields, Collection[str]]:
    """Return a row in which messages that were held as text are lists, and the names of those columns.

    Errors: `Broken` for a text that begins like messages and cannot be parsed: nobody means to train on such a text.
    """
    texts = {name: value for name, value in fields.items() if type(value) is str and _begins_like_json(value)}
    if not texts:
        return fields, ()
    found = {name: messages for name, value in texts.items() if (messages := _messages(value, name)) is not None}
    if not found:
        return fields, ()
    return (Cells if isinstance(fields, Cells) else dict)({**fields, **found}), found


def _messages(value: str, column: str) -> Any:
    found = parsed(value)
    if found is None:
        if _looks_like_messages(value):
            raise Broken(f"{column} begins like messages written as text", "expected JSON", "save messages as lists")
        return None
    if isinstance(found, dict):
        return found if _is_message(found) else None
    return found if found and all(map(_is_message, found)) else None


def _looks_like_messages(value: str) -> bool:
    begin = _BEGINS_LIKE_MESSAGES.match(value)
    if not begin or not begin[1]:
        return False
    return any(one in value and other in value for one, other in (("role", "content"), ("from", "value")))


def _is_message(item: Any) -> bool:
    return isinstance(item, dict) and any(
        isinstance(item.get(role), str) and (content in item or "tool_calls" in item)
        for role, content in (("role", "content"), ("from", "value"))
    )
