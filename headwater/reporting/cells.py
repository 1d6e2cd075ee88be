"""Cells of the tables of the page, and the format of their values."""

from __future__ import annotations

from typing import NamedTuple

MISSING = "–"


class Cell(NamedTuple):
    """A cell: a text, small print beneath it, and the whole text where it was shortened."""

    text: str
    under: str = ""
    whole: str = ""


def duration(seconds: float) -> str:
    """Return a time span in its two largest units: `1 h 02 min`, `3 min 12 s`, `4.2 s`."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def large(value: float) -> str:
    """Return a large number with its power of ten: `1.24 · 10¹²`."""
    mantissa, _, exponent = f"{value:.2e}".partition("e")
    return f"{mantissa} · 10{str(int(exponent)).translate(_RAISED)}"


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
