"""What a table of the page is made of, and how its values are written."""

from __future__ import annotations

from typing import NamedTuple

MISSING = "–"


class Cell(NamedTuple):
    """A table's cell: a value, what stands small beneath it, and the whole of what was shortened."""

    text: str
    under: str = ""
    whole: str = ""


def duration(seconds: float) -> str:
    """Write a time span in the two units that matter: `1 h 02 min`, `3 min 12 s`, `4.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def large(value: float) -> str:
    """Write a large number by its power of ten: `1.24 · 10¹²`."""
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{mantissa} · 10{str(int(exponent)).translate(_RAISED)}"


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
