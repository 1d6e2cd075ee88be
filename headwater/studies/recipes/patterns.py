"""Patterns: texts of a recipe with places for values, data, models and runs, such as `{keep}` and `{run:train-{keep}}`.

Values are filled in first, then what they may be part of.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from headwater.errors import UsageError, did_you_mean

_VALUE = re.compile(r"\{(\w+)\}")
_PLACE = re.compile(r"\{(run|cell|data|model):([^{}]*)\}")


def names_in(text: str) -> tuple[str, ...]:
    """Return the names of values in a text, in order, each once."""
    return tuple(dict.fromkeys(_VALUE.findall(text)))


def with_values(text: str, values: Mapping[str, str], place: str) -> str:
    """Return a text with values in the places of their names. Errors: `UsageError` for a name without a value."""

    def value(found: re.Match[str]) -> str:
        name = found[1]
        if name not in values:
            fix = did_you_mean(name, values) if values else "write it into the name of the cells, too"
            raise UsageError(place, f"{{{name}}} is no value of these cells", fix)
        return values[name]

    return _VALUE.sub(value, text)


def with_places(text: str, place_of: Callable[[str, str], str]) -> str:
    """Return a text with what `place_of(kind, name)` says in the places of runs, data and models."""
    return _PLACE.sub(lambda found: place_of(found[1], found[2]), text)


def directory(name: str) -> str:
    """Return the name of a cell as that of a directory: letters, digits, `-` and `_`."""
    return re.sub(r"[^\w-]", "", re.sub(r"(?<=\d)\.(?=\d)", "_", name))
