"""Lines of JSON to the fields of rows, or to the reasons why they are none.

orjson is quick and strict (UTF-8, no NaN, whole surrogate pairs), but says little, and lets a repeated key pass: the
last value wins and the others are lost in silence. So it only says yes, to many lines at once where it can; whatever it
refuses, and whatever may hold a key twice, goes to the standard library, which is slow and can say why.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import orjson

Fields = dict[str, Any]


class Bad(Exception):  # noqa: N818 - a verdict on a row; becomes a quarantine record, or a DataError
    """A row that cannot be read: a code, the column where it is known, and what to say (found, expected, …)."""

    def __init__(self, code: str, *parts: str, column: int | None = None) -> None:
        super().__init__(code, *parts)
        self.code, self.parts, self.column = code, parts, column

    @property
    def message(self) -> str:
        """Return what was found and expected, in one line."""
        return " · ".join(part for part in self.parts if part)


def parse_lines(lines: Sequence[bytes]) -> Sequence[Fields | Bad]:
    """Return the fields of each line, or what is wrong with it; the same as `parse` of every line."""
    rows = _sure(lines)
    return rows if rows is not None else [parse(line) for line in lines]


def parse(line: bytes) -> Fields | Bad:
    """Return the fields of a row, or what is wrong with it."""
    rows = _sure([line])
    if rows is not None:
        return rows[0]
    try:
        return _explained(line)
    except Bad as problem:
        return problem


def _sure(lines: Sequence[bytes]) -> list[Fields] | None:
    r"""Return the fields of lines that are all surely objects without a repeated key; None if any may not be.

    What orjson read is written again and the colons are counted: a key that was lost to its repetition took one with
    it. Only an escape (`\u003a`) can make up for that; lines that have one are not sure.
    """
    try:
        rows = [orjson.loads(line) for line in lines]
        again = orjson.dumps(rows)
    except (ValueError, TypeError):  # not JSON; or brackets too deep to be written
        return None
    text = b"".join(lines)
    sure = count(text, b":") == count(again, b":") and not _holds_colon_escape(text) and set(map(type, rows)) <= {dict}
    return rows if sure else None


# Every byte of a row read by itself passes through these two: numpy is ten times as fast as `bytes.count` and `in`.


def count(text: bytes, byte: bytes) -> int:
    """Count a byte."""
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == ord(byte)))


def _holds_colon_escape(text: bytes) -> bool:
    size = len(text)
    pairs = (np.frombuffer(text, "<u2", size // 2), np.frombuffer(text, "<u2", (size - 1) // 2, offset=1))
    return any((two == _ESCAPE).any() for two in pairs) and _COLON_ESCAPE.search(text) is not None


_ESCAPE = int.from_bytes(rb"\u", "little")
_COLON_ESCAPE = re.compile(rb"\\u003[aA]")


def as_object(value: Any) -> Fields:
    """Return `value` if it is an object. Errors: `Bad`."""
    if not isinstance(value, dict):
        raise Bad("NOT_OBJECT", f"found a {type(value).__name__}", "expected a JSON object with named fields")
    return value


def _explained(line: bytes) -> Fields:
    """Parse slowly, and say what is wrong. Errors: `Bad`."""
    text = decoded(line)
    try:
        fields = json.loads(text, object_pairs_hook=_unique, **_NUMBERS)
    except json.JSONDecodeError as error:
        torn = not line.endswith(b"\n")
        hint = "the last line has no end: the file looks cut" if torn else ""
        raise Bad("TORN" if torn else "BROKEN_JSON", f"broken JSON ({error.msg})", hint, column=error.colno) from error
    except RecursionError as error:
        raise Bad("BROKEN_JSON", "brackets inside brackets, too deep to read") from error
    _check_surrogates(fields)
    return as_object(fields)


def decoded(line: bytes) -> str:
    """Return the text of some bytes. Errors: `Bad`, with the place of the first byte that is not UTF-8."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(error, f"byte {error.start + 1} of the line") from error


def not_utf8(error: UnicodeDecodeError, place: str) -> Bad:
    """Return what to say of bytes that are not UTF-8: they end too soon, or are something else."""
    # Only where the bytes end can a character end too soon.
    cut = error.reason == "unexpected end of data"
    fix = "the file looks cut" if cut else "save the file as UTF-8"
    return Bad("TORN" if cut else "UNICODE", f"{place} is not UTF-8", fix)


def _unique(pairs: list[tuple[str, Any]]) -> Fields:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise Bad("DUPLICATE_KEY", f"the key {json.dumps(twice)} stands twice in one object", "expected it once")
    return fields


def _refused(constant: str) -> NoReturn:
    raise Bad("BROKEN_JSON", f"broken JSON ({constant} is not JSON)", "write null where there is no number")


def _finite(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise Bad("BROKEN_JSON", f"broken JSON ({digits[:20]} is larger than any number)")
    return value


def _whole(digits: str) -> int | float:
    """Return what orjson makes of a whole number: a float where 64 bits do not hold it."""
    value = int(digits) if len(digits) <= 20 else None
    return value if value is not None and -(2**63) <= value < 2**64 else _finite(digits)


_NUMBERS: dict[str, Any] = {"parse_int": _whole, "parse_float": _finite, "parse_constant": _refused}
_SURROGATE = re.compile("[\ud800-\udfff]")


def _check_surrogates(value: Any) -> None:
    if isinstance(value, str):
        half = _SURROGATE.search(value)
        if half:
            raise Bad("UNICODE", f"a text holds half a character ({half[0]!r})", "expected both surrogates of the pair")
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_surrogates(key)
            _check_surrogates(item)
    elif isinstance(value, list):
        for item in value:
            _check_surrogates(item)
