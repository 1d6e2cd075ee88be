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
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from headwater.data.layouts.layout import Cells, Fields
from headwater.data.layouts.meanings import meaning_of
from headwater.data.layouts.paths import (
    Steps,
    Tree,
    check_columns,
    joined,
    left_out,
    spelled,
    tree_of,
    value_at,
)
from headwater.data.preference import PAIR_COLUMNS

Kind = Literal["pairs", "judged", "candidates", "unpaired", "prompts"]

_SIDES = ("chosen", "rejected")
ALWAYS = ("id", "source", "prompt", "system")
"""Names that every kind of data may have."""
WITH_TOOLS = (*ALWAYS, "tools")
"""Those that rows may have; of judgements and answers, which are texts, tools are refused."""
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
NAMES = tuple(dict.fromkeys((*WITH_TOOLS, *(name for names in KINDS.values() for name in names))))
"""Every name that a description can give."""
_ABOUT = {
    **{side: (f"score_{side}", f"{side}_complete") for side in _SIDES},
    "completion": ("score", "complete"),
    "responses": ("scores", "ranks"),
    "a": ("score_a", "model_a"),
    "b": ("score_b", "model_b"),
}
"""What belongs to a response, and goes where it is replaced by another column."""
JOINED = ("prompt", "system", *_SIDES, "a", "b", "completion")
LISTED = ("responses", "scores", "ranks")
VOTES = ("winner",)
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
        """The kind of data by the names that are given; `prompts` where none of a response is."""
        found = next((_DECIDE[name] for name in self.sources if name in _DECIDE), None)
        return found or ("pairs" if any(name in PAIR_COLUMNS for name in self.sources) else "prompts")

    def row(self, fields: Fields) -> dict[str, Any]:
        """Return a row under the described names.

        A column that already has such a name keeps it, unless it is described or belongs to a response that is
        replaced (its score). All others are left out, so that no other layout fits. Errors: `Broken`.
        """
        check_columns(fields, self._columns)
        found = {name: fields[name] for name in self._keeps if name in fields}
        for name, column in self._same:
            found[name] = fields[column]
        for name, source in self._others:
            found[name] = _found(fields, name, source)
        return Cells(found) if isinstance(fields, Cells) else found

    def left_out(self, fields: Fields, also_read: str | None = None) -> list[tuple[str, Any]]:
        """Return what a row holds and the description does not read, by place; `also_read` is a column that is read."""
        rest = {name: value for name, value in fields.items() if name not in self._whole and name != also_read}
        return left_out(rest, self._tree) if rest else []

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
        names = NAMES if self.kind == "prompts" else (*WITH_TOOLS, *KINDS[self.kind])
        gone = {*self._columns, *self.sources, *(about for name in self.sources for about in _ABOUT.get(name, ()))}
        return tuple(name for name in names if name not in gone)

    @functools.cached_property
    def _same(self) -> tuple[tuple[str, str], ...]:
        """Names whose value is that of a column, and the column: most of them, and quick to read."""
        return tuple(
            (name, str(source.paths[0][0]))
            for name, source in self.sources.items()
            if len(source.paths) == 1 and len(source.paths[0]) == 1 and source.meanings is None
        )

    @functools.cached_property
    def _others(self) -> tuple[tuple[str, Source], ...]:
        """The other names, with their sources."""
        same = dict(self._same)
        return tuple((name, source) for name, source in self.sources.items() if name not in same)

    @functools.cached_property
    def _whole(self) -> frozenset[str]:
        """Columns of which everything is read."""
        return frozenset((*self._keeps, *(str(steps[0]) for steps in self._paths if len(steps) == 1)))

    @functools.cached_property
    def _tree(self) -> Tree:
        return tree_of(self._paths)


def _found(fields: Fields, name: str, source: Source) -> Any:
    """Return the value of a name in a row. Errors: `Broken`."""
    if len(source.paths) > 1 and name not in LISTED:
        return joined(fields, source.paths)
    values = [value_at(fields, steps) for steps in source.paths]
    if source.meanings is not None:
        votes = isinstance(values[0], list) and name in VOTES
        column = spelled(source.paths[0])
        found = [meaning_of(value, name, source.meanings, column) for value in (values[0] if votes else values)]
        return found if votes else found[0]
    return values if len(values) > 1 else values[0]
