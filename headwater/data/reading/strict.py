r"""Strict JSON: lines to the fields of rows, or to the reason why a line is no row.

orjson is fast and strict (UTF-8, no NaN, complete surrogate pairs), but its errors are terse, and of a repeated key it
keeps the last value without a word. So it only confirms good lines, many at once. Any line that it refuses, or that may
repeat a key, is parsed again by the standard library, which is slow and can say what is wrong and where.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
import orjson

from headwater.data.layouts.layout import Broken

Fields = dict[str, Any]


def parse_lines(lines: Sequence[bytes]) -> Sequence[Fields | Broken]:
    """Return the fields of each line, or what is wrong with it; the same as `parse` of every line."""
    rows = _confirmed(lines)
    return rows if rows is not None else [parse(line) for line in lines]


def parse(line: bytes) -> Fields | Broken:
    """Return the fields of one line, or what is wrong with it."""
    rows = _confirmed([line])
    if rows is not None:
        return rows[0]
    try:
        return _parsed_slowly(line)
    except Broken as problem:
        return problem


def _confirmed(lines: Sequence[bytes]) -> list[Fields] | None:
    r"""Return the fields of lines that certainly are objects without a repeated key; None where any may not be.

    The parsed rows are written as JSON again and the colons of both texts are counted: a value that was lost to a
    repeated key took its colon with it. Only an escaped colon (`\u003a`) could hide that, so lines with one are not
    confirmed.
    """
    try:
        rows = [orjson.loads(line) for line in lines]
        again = orjson.dumps(rows)
    except (ValueError, TypeError):  # not JSON; or nested too deeply to be written
        return None
    text = b"".join(lines)
    all_sure = _colons(text) == _colons(again) and not _has_escaped_colon(text) and set(map(type, rows)) <= {dict}
    return rows if all_sure else None


# Every byte of the data passes through these two; numpy is ten times as fast as `bytes.count` and `in`.


def _colons(text: bytes) -> int:
    return int(np.count_nonzero(np.frombuffer(text, np.uint8) == ord(":")))


def _has_escaped_colon(text: bytes) -> bool:
    size = len(text)
    # Compare two bytes at a time: all pairs that begin at an even place, then all that begin at an odd one.
    pairs = (np.frombuffer(text, "<u2", size // 2), np.frombuffer(text, "<u2", (size - 1) // 2, offset=1))
    return any((two == _ESCAPE).any() for two in pairs) and _ESCAPED_COLON.search(text) is not None


_ESCAPE = int.from_bytes(rb"\u", "little")
_ESCAPED_COLON = re.compile(rb"\\u003[aA]")


def _parsed_slowly(line: bytes) -> Fields:
    """Return the fields of a line. Errors: `Broken`, which says what is wrong and where."""
    text = decoded(line)
    try:
        fields = json.loads(text, object_pairs_hook=_without_repeated_keys, **_NUMBERS)
    except json.JSONDecodeError as error:
        torn = not line.endswith(b"\n")
        hint = "the last line has no end: the file looks cut" if torn else ""
        code = "TORN" if torn else "BROKEN_JSON"
        raise Broken(f"broken JSON ({error.msg})", hint, code=code, column=error.colno) from error
    except RecursionError as error:
        raise Broken("brackets inside brackets, too deep to read", code="BROKEN_JSON") from error
    _check_surrogates(fields)
    if not isinstance(fields, dict):
        found = f"found a {type(fields).__name__}"
        raise Broken(found, "expected a JSON object with named fields", code="NOT_OBJECT")
    return fields


def decoded(line: bytes) -> str:
    """Return bytes as text. Errors: `Broken`, with the place of the first byte that is not UTF-8."""
    try:
        return line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise not_utf8(error, f"byte {error.start + 1} of the line") from error


def not_utf8(error: UnicodeDecodeError, place: str) -> Broken:
    """Return the verdict on bytes that are not UTF-8: a character that is cut off, or another encoding."""
    # A character can be incomplete only where the bytes end.
    cut = error.reason == "unexpected end of data"
    fix = "the file looks cut" if cut else "save the file as UTF-8"
    return Broken(f"{place} is not UTF-8", fix, code="TORN" if cut else "UNICODE")


def _without_repeated_keys(pairs: list[tuple[str, Any]]) -> Fields:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        found = f"the key {json.dumps(twice)} stands twice in one object"
        raise Broken(found, "expected it once", code="DUPLICATE_KEY")
    return fields


def _refuse_constant(constant: str) -> NoReturn:
    raise Broken(f"broken JSON ({constant} is not JSON)", "write null where there is no number", code="BROKEN_JSON")


def _finite(digits: str) -> float:
    value = float(digits)
    if value in (float("inf"), float("-inf")):
        raise Broken(f"broken JSON ({digits[:20]} is larger than any number)", code="BROKEN_JSON")
    return value


def _whole(digits: str) -> int | float:
    """Return what orjson returns for an integer: a float where 64 bits do not hold it."""
    value = int(digits) if len(digits) <= 20 else None
    return value if value is not None and -(2**63) <= value < 2**64 else _finite(digits)


_NUMBERS: dict[str, Any] = {"parse_int": _whole, "parse_float": _finite, "parse_constant": _refuse_constant}
_SURROGATE = re.compile("[\ud800-\udfff]")


def _check_surrogates(value: Any) -> None:
    if isinstance(value, str):
        half = _SURROGATE.search(value)
        if half:
            found = f"a text holds half a character ({half[0]!r})"
            raise Broken(found, "expected both surrogates of the pair", code="UNICODE")
    elif isinstance(value, dict):
        for key, item in value.items():
            _check_surrogates(key)
            _check_surrogates(item)
    elif isinstance(value, list):
        for item in value:
            _check_surrogates(item)
