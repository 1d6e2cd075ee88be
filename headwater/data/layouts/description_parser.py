"""Parses the description of a layout (`description.py`): the text of `--columns`, or a YAML file of `--layout`."""

from __future__ import annotations

import json
import reprlib
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

from headwater.config.yaml_files import entries
from headwater.data.layouts.description import JOINED, LISTED, NAMES, VOTES, Description, Source
from headwater.data.layouts.meanings import MEANINGS, number, plain
from headwater.data.layouts.paths import SPECIAL, Step, Steps, written
from headwater.errors import UsageError, did_you_mean


def parse(text: str) -> Description:
    """Return the description that the text of `--columns` spells. Errors: `UsageError`, with the place in the text."""
    parser = _Parser(text, "--columns")
    sources: dict[str, Source] = {}
    while True:
        name = parser.word("=,", "a name, such as prompt")
        _check_name(name, f"--columns {name}=…")
        if name in sources:
            raise UsageError(f"--columns {name}=…", "is given twice", "leave one of them out")
        parser.take("=", f"= behind {name}")
        sources[name] = parser.source(name)
        if not parser.goes_on(","):
            parser.end()
            return Description(text, sources)


def of_column(column: str) -> Description:
    """Return the description of prompts in a column, which is named as it is."""
    return Description(f"prompt={written(column)}", {"prompt": Source(written(column), ((column,),))}, "--column")


def of_file(path: Path) -> Description:
    """Return the description of a YAML file, an entry a line. Errors: `UsageError`, with the line."""
    sources: dict[str, Source] = {}
    for entry in entries(path, "--layout"):
        _check_name(entry.key, f"{entry.place} · {entry.key}")
        if any(scalar.value is None for scalar in entry.values):
            raise UsageError(entry.place, f"{entry.key} names no column", "leave the line out, or name one")
        text = "+".join(scalar.text for scalar in entry.values)
        parser = _Parser(text, f"{entry.place} · {entry.key}: {text}")
        sources[entry.key] = parser.source(entry.key)
        parser.end()
    if not sources:
        raise UsageError(f"--layout {path}", "describes nothing", "write one `name: column` a line")
    text = ", ".join(f"{name}={source.text}" for name, source in sources.items())
    return Description(text, sources, f"--layout {path}")


def _check_name(name: str, place: str) -> None:
    if name not in NAMES:
        raise UsageError(place, "no such name", did_you_mean(name, NAMES))


class _Parser:
    """Reads a description from its beginning to its end. Errors: `UsageError` with the place in the text."""

    def __init__(self, text: str, where: str) -> None:
        self._text = text
        self._where = where
        self._at = 0

    def source(self, name: str) -> Source:
        """Return the source of a name."""
        self._skip()
        start = self._at
        paths = [self._path(name)]
        while self.goes_on("+"):
            if name not in (*JOINED, *LISTED):
                self._refuse("+", f"{name} has one column", self._at - 1)
            paths.append(self._path(name))
        if len(paths) > 1 and any(None in steps for steps in paths):
            self._refuse("[] beside +", "write one of them", start)
        meanings = self._meanings(name) if self.goes_on("{") else None
        return Source(self._text[start : self._at].strip(), tuple(paths), meanings)

    def _path(self, name: str) -> Steps:
        steps: list[Step] = [self.word(SPECIAL, "the name of a column")]
        while True:
            if self.goes_on("."):
                steps.append(self.word(SPECIAL, "a key behind the dot"))
            elif self.goes_on("["):
                start = self._at - 1
                place = self.word("]", "", empty=True)
                if place and not place.removeprefix("-").isdecimal():
                    self._refuse(f"[{place}]", "expected [] for every item, or its place, such as [0] or [-1]", start)
                if not place and name not in (*LISTED, *VOTES):
                    self._refuse(f"[] in {name}", "expected the place of an item, such as [0] or [-1]", start)
                steps.append(int(place) if place else None)
                self.take("]", "] behind [")
            else:
                return tuple(steps)

    def _meanings(self, name: str) -> Mapping[str, str]:
        known = MEANINGS.get(name)
        if known is None:
            self._refuse("{", f"only {' and '.join(MEANINGS)} say what values mean", self._at - 1)
        found: dict[str, str] = {}
        while True:
            self._skip()
            start = self._at
            compared = next((sign for sign in "<>" if self.goes_on(sign)), "")
            value = self.word(":,{}", "a value of the column")
            if compared and number(value) is None:
                self._refuse(f"{compared}{value}", f"expected a number behind {compared}", start)
            self.take(":", f": and what {value} means ({', '.join(known)})")
            meaning = self.word(",}", ", ".join(known))
            if meaning not in known:
                self._refuse(f"{value}:{meaning}", f"expected {' or '.join(known)}", start)
            if compared + plain(value) in found:
                self._refuse(f"{value} again", "each value means one thing", start)
            found[compared + plain(value)] = meaning
            if not self.goes_on(","):
                self.take("}", "} behind the values")
                return found

    def word(self, ends: str, expected: str, empty: bool = False) -> str:
        """Return a word, up to one of the characters `ends`, or what stands in quotes."""
        self._skip()
        start = self._text[self._at : self._at + 1]
        if start in ("'", '"') and start:
            return self._quoted(start)
        rest = range(self._at, len(self._text))
        end = next((at for at in rest if self._text[at] in ends and self._text[at] != "'"), len(self._text))
        found = self._text[self._at : end].strip()
        if not found and not empty:
            self._refuse(self._next(), f"expected {expected}")
        self._at = end
        return found

    def _quoted(self, quote: str) -> str:
        try:
            if quote == '"':
                found, self._at = json.JSONDecoder().raw_decode(self._text, self._at)
                return str(found)
            end = self._text.index(quote, self._at + 1)
        except ValueError:
            self._refuse(self._next(), f"expected another {quote} behind it")
        found, self._at = self._text[self._at + 1 : end], end + 1
        return found

    def goes_on(self, mark: str) -> bool:
        """Pass over a mark and return True, where it comes next."""
        self._skip()
        if self._text[self._at : self._at + 1] != mark:
            return False
        self._at += 1
        return True

    def take(self, mark: str, expected: str) -> None:
        """Pass over a mark that must come next."""
        if not self.goes_on(mark):
            self._refuse(self._next(), f"expected {expected}")

    def end(self) -> None:
        """Check that nothing follows."""
        self._skip()
        if self._at < len(self._text):
            self._refuse(self._next(), "expected a comma or the end; quote a name with signs in it")

    def _skip(self) -> None:
        while self._text[self._at : self._at + 1].isspace():
            self._at += 1

    def _next(self) -> str:
        return reprlib.repr(self._text[self._at :]) if self._at < len(self._text) else "the end"

    def _refuse(self, found: str, expected: str, at: int | None = None) -> NoReturn:
        """Errors: `UsageError` with the place in the text: `at`, or where the parser is."""
        place = self._at if at is None else at
        raise UsageError(f"{self._where}, character {place + 1}", f"found {found}", expected)
