"""A layout described in one line, the value of `--columns`: where a row holds its prompt, responses and verdict.

    prompt=question, chosen=best, rejected=worst
    prompt=question, a=answer_x, b=answer_y, winner=label{1:a, 2:b, 0:tie}
    prompt=question, responses=answers[].text, scores=answers[].score
    prompt=question, a=answer_x, b=answer_y, winner=votes[].choice{x:a, y:b}
    prompt=messages[0].content, completion=messages[-1].content, label=ok{yes:true, no:false}

    description  entry, entry, …
    entry        NAME=SOURCE, or NAME=SOURCE{VALUE:MEANING, …} for `winner` and `label`
    SOURCE       PATH, or PATH+PATH+… : texts joined by line breaks; for `responses`, `scores` and `ranks` one item each
    PATH         a column; `.key` is a field of an object, `[2]` an item of a list ([-1]: the last), `[]` every item
    VALUE        a value of the column, or <NUMBER or >NUMBER

A name of a column, key or value with one of `, . [ ] { } + = : < >` or a quote in it is written in quotes: `"a.b"`,
with the escapes of JSON, or `'a.b'` without escapes. The same as YAML, an entry a line, is the value of
`--layout FILE.yaml`: there a list is written for `+`.
"""

from __future__ import annotations

import functools
import json
import reprlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple, NoReturn

from headwater.config.yaml_files import entries
from headwater.data.layouts.layout import Broken, Cells, Fields
from headwater.data.layouts.paths import (
    SPECIAL,
    Step,
    Steps,
    Tree,
    check_columns,
    joined,
    left_out,
    spelled,
    tree_of,
    value_at,
    written,
)
from headwater.data.preference import PAIR_COLUMNS
from headwater.errors import UsageError, did_you_mean

Kind = Literal["pairs", "judged", "candidates", "unpaired", "prompts"]

_SIDES = ("chosen", "rejected")
ALWAYS = ("id", "source", "prompt", "system")
"""Names that every kind of data may have."""
KINDS: Mapping[Kind, tuple[str, ...]] = {
    "judged": ("a", "b", "winner", "score_a", "score_b", "model_a", "model_b", "judge", "category", *PAIR_COLUMNS),
    "candidates": ("responses", "scores", "ranks"),
    "unpaired": ("completion", "label", "score", "complete"),
    "pairs": (
        *_SIDES,
        *(f"score_{side}" for side in _SIDES),
        *(f"{side}_complete" for side in _SIDES),
        *PAIR_COLUMNS,
    ),
}
"""Names by the kind of data. An entry with one of them decides the kind; `margin` alone means pairs."""
_DECIDE = {name: kind for kind, names in KINDS.items() for name in names if name not in PAIR_COLUMNS}
NAMES = tuple(dict.fromkeys((*ALWAYS, *(name for names in KINDS.values() for name in names))))
"""Every name that a description can give."""
_ABOUT = {
    **{side: (f"score_{side}", f"{side}_complete") for side in _SIDES},
    "completion": ("score", "complete"),
    "responses": ("scores", "ranks"),
    "a": ("score_a", "model_a"),
    "b": ("score_b", "model_b"),
}
"""What belongs to a response, and goes where it is replaced by another column."""
_MEANINGS = {"winner": ("a", "b", "tie", "none"), "label": ("true", "false")}
"""What the values of a column can mean, by name."""
_JOINED = ("prompt", "system", *_SIDES, "a", "b", "completion")
_LISTED = ("responses", "scores", "ranks")
_VOTES = ("winner",)
"""Names whose column may hold a list, the votes of several annotators."""


class Source(NamedTuple):
    """Where a value is found in a row, and what the values of the column mean."""

    text: str
    """As it is written."""
    paths: tuple[Steps, ...]
    meanings: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Description:
    """A layout that a user describes: the source of every name."""

    text: str
    """As it is written."""
    sources: Mapping[str, Source]
    flag: str = "--columns"
    """The option that gives it, for messages."""

    @functools.cached_property
    def kind(self) -> Kind:
        """The kind of data by the names that are given; `prompts` where none but `prompt` and `system` is."""
        found = next((_DECIDE[name] for name in self.sources if name in _DECIDE), None)
        return found or ("pairs" if any(name in PAIR_COLUMNS for name in self.sources) else "prompts")

    def row(self, fields: Fields) -> dict[str, Any]:
        """Return a row under the described names.

        A column that already has such a name keeps it, unless it is described or belongs to a response that is
        replaced (its score). All others are left out, so that no other layout fits. Errors: `Broken`.
        """
        check_columns(fields, self._columns)
        found = {name: fields[name] for name in self._keeps if name in fields}
        for name, source in self.sources.items():
            found[name] = _found(fields, name, source)
        return Cells(found) if isinstance(fields, Cells) else found

    def left_out(self, fields: Fields, also_read: str | None = None) -> list[tuple[str, Any]]:
        """Return what a row holds and the description does not read, by place; `also_read` is a column that is read."""
        tree = self._tree if also_read is None else {**self._tree, **tree_of([(also_read,)])}
        return left_out(fields, tree)

    @functools.cached_property
    def _paths(self) -> tuple[Steps, ...]:
        return tuple(steps for source in self.sources.values() for steps in source.paths)

    @functools.cached_property
    def _columns(self) -> tuple[str, ...]:
        """The columns in which the paths begin."""
        return tuple(dict.fromkeys(str(steps[0]) for steps in self._paths))

    @functools.cached_property
    def _keeps(self) -> tuple[str, ...]:
        """The names under which a column is read that has one of them already."""
        names = NAMES if self.kind == "prompts" else (*ALWAYS, *KINDS[self.kind])
        gone = {*self._columns, *self.sources, *(about for name in self.sources for about in _ABOUT.get(name, ()))}
        return tuple(name for name in names if name not in gone)

    @functools.cached_property
    def _tree(self) -> Tree:
        return tree_of([*self._paths, *((name,) for name in self._keeps)])


def _found(fields: Fields, name: str, source: Source) -> Any:
    """Return the value of a name in a row. Errors: `Broken`."""
    if len(source.paths) > 1 and name not in _LISTED:
        return joined(fields, source.paths)
    values = [value_at(fields, steps) for steps in source.paths]
    if source.meanings is not None:
        votes = isinstance(values[0], list) and name in _VOTES
        return [_meaning(vote, name, source) for vote in values[0]] if votes else _meaning(values[0], name, source)
    return values if len(values) > 1 else values[0]


def _meaning(value: Any, name: str, source: Source) -> str | bool | None:
    """Return what a value of a column means. Errors: `Broken` for one that the description does not name."""
    meanings = source.meanings or {}
    meaning = meanings.get(_plain(value)) or _compared(value, meanings)
    if meaning is None:
        expected = f"expected {' or '.join(meanings)}, as {name}={source.text} says"
        raise Broken(f"{spelled(source.paths[0])} is {reprlib.repr(value)}", expected)
    if name == "label":
        return meaning == "true"
    return None if meaning == "none" else meaning


def _compared(value: Any, meanings: Mapping[str, str]) -> str | None:
    """Return the meaning of a number that lies below or above a limit."""
    number = _number(value)
    for spelling, meaning in meanings.items():
        limit = _number(spelling[1:]) if spelling[0] in "<>" else None
        if number is not None and limit is not None and (number < limit if spelling[0] == "<" else number > limit):
            return meaning
    return None


def _number(value: Any) -> float | None:
    try:
        return None if value is None or isinstance(value, bool) else float(value)
    except (TypeError, ValueError, OverflowError):
        return None


def _plain(value: Any) -> str:
    """Return a value as descriptions spell it: 1, 1.0 and "1" are the same, and so are true, True and "true"."""
    number = _number(value)
    if number is not None and number.is_integer() and abs(number) < 2**53:
        return str(int(number))
    return "null" if value is None else str(value).strip().casefold() or "null"


# --- from a text to a description ---------------------------------------------------------------------------------


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
            if name not in (*_JOINED, *_LISTED):
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
                if not place and name not in (*_LISTED, *_VOTES):
                    self._refuse(f"[] in {name}", "expected the place of an item, such as [0] or [-1]", start)
                steps.append(int(place) if place else None)
                self.take("]", "] behind [")
            else:
                return tuple(steps)

    def _meanings(self, name: str) -> Mapping[str, str]:
        known = _MEANINGS.get(name)
        if known is None:
            self._refuse("{", f"only {' and '.join(_MEANINGS)} say what values mean", self._at - 1)
        found: dict[str, str] = {}
        while True:
            self._skip()
            start = self._at
            compared = next((sign for sign in "<>" if self.goes_on(sign)), "")
            value = self.word(":,{}", "a value of the column")
            if compared and _number(value) is None:
                self._refuse(f"{compared}{value}", f"expected a number behind {compared}", start)
            self.take(":", f": and what {value} means ({', '.join(known)})")
            meaning = self.word(",}", ", ".join(known))
            if meaning not in known:
                self._refuse(f"{value}:{meaning}", f"expected {' or '.join(known)}", start)
            if compared + _plain(value) in found:
                self._refuse(f"{value} again", "each value means one thing", start)
            found[compared + _plain(value)] = meaning
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
