"""From a JSON array to the texts of its elements, in bounded memory: one element and a block of the file are held.

The standard library parses a whole array or nothing. Here every element is cut out of the text by itself, so that a
malformed one is one malformed row, and a file of many gigabytes can be read.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from headwater.data.reading.strict import not_utf8
from headwater.errors import DataError

BLOCK = 1 << 20
"""Bytes that are read at a time."""
_WHERE_TORN = 16
"""An error this close to the end of the text so far may only mean that the value goes on; longer ones are strings."""
_MORE_OF_A_NUMBER = 3
"""Characters that must follow before a number is known to have ended: `1` may become `1e+5`."""
_SPACE = re.compile(r"[ \t\r\n]*")
_scan = json.JSONDecoder().raw_decode


def elements(path: Path, handle: IO[bytes]) -> Iterator[str]:
    """Yield the text of every element of an array.

    Errors: `DataError` for a file that holds no array, with line and column where the array is broken or torn.
    """
    window = _Window(_texts(path, handle))
    try:
        yield from _elements(path, window)
    except json.JSONDecodeError as error:
        hint = "expected an array of objects; JSON lines are named .jsonl" if error.msg == "Extra data" else ""
        raise DataError(f"{path}:{window.place_of(error)}", f"broken JSON ({error.msg})", hint) from error
    except RecursionError as error:
        raise DataError(str(path), "brackets inside brackets, too deep to read") from error


def _elements(path: Path, window: _Window) -> Iterator[str]:
    if window.next() != "[":
        kind = type(json.loads(window.value())).__name__
        window.expect_end()
        raise DataError(str(path), f"holds a {kind}", "expected an array of objects, or name it .jsonl")
    window.skip()
    if window.next() != "]":
        yield window.value()
        while window.next() == ",":
            window.skip()
            window.next()
            yield window.value()
        if window.next() != "]":
            raise window.error("Expecting ',' delimiter")
    window.skip()
    window.expect_end()


class _Window:
    """The part of a text that is in memory: from the current place to as far as was needed."""

    def __init__(self, texts: Iterator[str]) -> None:
        self._texts = texts
        self._text, self._place = "", 0
        self._ended = False
        self._line, self._column = 1, 1

    def next(self) -> str:
        """Go to the next character that is no white space and return it; "" at the end."""
        while True:
            self._place = _SPACE.match(self._text, self._place).end()  # type: ignore[union-attr]
            if self._place < len(self._text) or self._ended:
                return self._text[self._place : self._place + 1]
            self._grow()

    def skip(self) -> None:
        """Go one character further."""
        self._place += 1

    def value(self) -> str:
        """Return the text of the JSON value that begins here, and go to its end. Errors: `JSONDecodeError`."""
        while True:
            try:
                _, end = _scan(self._text, self._place)
                if end + _MORE_OF_A_NUMBER <= len(self._text) or self._ended:
                    begin, self._place = self._place, end
                    return self._text[begin:end]
            except json.JSONDecodeError as error:
                goes_on = error.msg.startswith("Unterminated") or error.pos > len(self._text) - _WHERE_TORN
                if self._ended or not goes_on:
                    raise
            self._grow()

    def expect_end(self) -> None:
        """Errors: `JSONDecodeError` if anything but white space follows."""
        if self.next():
            raise self.error("Extra data")

    def error(self, message: str) -> json.JSONDecodeError:
        """Return an error at the current place."""
        return json.JSONDecodeError(message, self._text, self._place)

    def place_of(self, error: json.JSONDecodeError) -> str:
        """Return line and column of an error in the whole text, as `5:12`."""
        first = error.lineno == 1
        return f"{self._line + error.lineno - 1}:{error.colno + (self._column - 1 if first else 0)}"

    def _grow(self) -> None:
        """Drop the text before the current place, and read at least as much again as is left.

        Doubling keeps the work linear: a long element is not copied once for every block.
        """
        gone = self._text[: self._place]
        lines = gone.count("\n")
        self._column = len(gone) - gone.rindex("\n") if lines else self._column + len(gone)
        self._line += lines
        held = [self._text[self._place :]]
        wanted = max(len(held[0]), 1)
        while wanted > 0 and not self._ended:
            text = next(self._texts, "")
            self._ended = not text
            held.append(text)
            wanted -= len(text)
        self._text, self._place = "".join(held), 0


def _texts(path: Path, handle: IO[bytes]) -> Iterator[str]:
    """Yield a file decoded block by block, no block empty. Errors: `DataError` for bytes that are not UTF-8."""
    decoder, before = codecs.getincrementaldecoder("utf-8")(), 0
    while True:
        block = handle.read(BLOCK)
        kept_back = len(decoder.getstate()[0])
        try:
            text = decoder.decode(block, final=not block)
        except UnicodeDecodeError as error:
            problem = not_utf8(error, f"byte {before - kept_back + error.start + 1}")
            raise DataError(str(path), problem.message) from error
        if text:
            yield text
        if not block:
            return
        before += len(block)
