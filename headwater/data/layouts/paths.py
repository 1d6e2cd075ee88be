"""Paths into a row, as `--columns` writes them: from `answers[0].text` to a value, and what no path reads."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from headwater.data.layouts.json_text import parsed
from headwater.data.layouts.layout import Broken, Fields
from headwater.errors import did_you_mean

Step = str | int | None
"""A key of an object, the place of an item in a list, or None for every item of a list."""
Steps = tuple[Step, ...]

SPECIAL = ",.[]{}+=:<>\"'"
"""Characters for which a name is written in quotes."""
_READ = "*"
"""Key of a tree of paths: everything below is read. Keys of rows stand in the tree as ("key", name)."""


def value_at(value: Any, steps: Steps, depth: int = 0) -> Any:
    """Return the value at `steps[depth:]` below a value; null where an object on the way is null. Errors: `Broken`."""
    if depth == len(steps) or (value is None and depth):
        return value
    step, here = steps[depth], spelled(steps[:depth])
    value = _unpacked(value)
    if isinstance(step, str):
        if not isinstance(value, Mapping):
            raise Broken(f"{here} is {_kind(value)}", f"expected an object with {step}")
        if step not in value:
            has = f"{here} has {', '.join(map(str, value)) or 'nothing'}"
            raise Broken(f"no {step} in {here}", has, near(step, value), code="MISSING")
        return value_at(value[step], steps, depth + 1)
    if not isinstance(value, list):
        raise Broken(f"{here} is {_kind(value)}", f"expected a list, for {spelled(steps[: depth + 1])}")
    if step is None:
        return [value_at(item, steps, depth + 1) for item in value]
    if not -len(value) <= step < len(value):
        raise Broken(f"no {spelled(steps[: depth + 1])}", f"{here} has {len(value)} items", code="MISSING")
    return value_at(value[step], steps, depth + 1)


def _kind(value: Any) -> str:
    return "null" if value is None else f"a {type(value).__name__}"


def _unpacked(value: Any) -> Any:
    """Return a value; a list or object that is written as text (JSON) is parsed."""
    found = parsed(value) if isinstance(value, str) else None
    return value if found is None else found


def joined(fields: Fields, paths: Iterable[Steps]) -> str:
    """Return the texts at several paths, joined by line breaks; empty ones and null are left out. Errors: `Broken`."""
    texts = []
    for steps in paths:
        value = value_at(fields, steps)
        if value is not None and not isinstance(value, str):
            raise Broken(f"{spelled(steps)} is {_kind(value)}", "expected a text, as + joins texts")
        texts.append(value)
    return "\n".join(filter(None, texts))


def check_columns(fields: Fields, columns: Iterable[str]) -> None:
    """Errors: `Broken` for a row that lacks columns."""
    missing = [name for name in columns if name not in fields]
    if missing:
        has = f"the row has {', '.join(map(str, fields)) or 'none'}"
        raise Broken(f"no column {', '.join(missing)}", has, near(missing[0], fields), code="MISSING")


def near(name: str, known: Fields) -> str:
    """Return a hint at a column or key with nearly this name; "" where there is none."""
    dotted = next((str(one) for one in known if str(one).startswith(f"{name}.")), None)
    if dotted:
        return f"write a name with a dot in quotes: {written(dotted)}"
    return did_you_mean(name, map(str, known), " ").strip()


Tree = Mapping[Any, Any]
"""Paths that are read, by their steps."""


def tree_of(paths: Iterable[Steps]) -> Tree:
    """Return paths as a tree, for `left_out`."""
    tree: dict[Any, Any] = {}
    for steps in paths:
        place = tree
        for step in steps:
            place = place.setdefault(("key", step) if isinstance(step, str) else step, {})
        place[_READ] = {}
    return tree


def left_out(fields: Fields, tree: Tree) -> list[tuple[str, Any]]:
    """Return what a row holds and no path reads, by its place: `data.votes`, `answers[].model`."""
    return list(_left_out(fields, tree, ""))


def _left_out(value: Any, tree: Tree, name: str) -> Iterator[tuple[str, Any]]:
    value = value if _READ in tree else _unpacked(value)
    if _READ in tree or not isinstance(value, dict | list):
        return
    if isinstance(value, dict):
        for key, inner in value.items():
            if _READ in tree.get(("key", key), ()):
                continue
            inside = f"{name}.{key}" if name else str(key)
            if ("key", key) in tree:
                yield from _left_out(inner, tree["key", key], inside)
            else:
                yield inside, inner
        return
    for place, item in enumerate(value):
        steps = [step for step in tree if step is None or (isinstance(step, int) and step % len(value) == place)]
        if steps:
            numbers = [step for step in steps if step is not None]
            shown = f"{name}[{numbers[0] if numbers else ''}]"
            yield from _left_out(item, _merged([tree[step] for step in steps]), shown)
        else:
            yield f"{name}[]", item


def _merged(trees: Sequence[Tree]) -> Tree:
    """Return the paths of several trees as one: a list of one item is read by [0] and by [-1]."""
    if len(trees) == 1:
        return trees[0]
    keys = dict.fromkeys(key for tree in trees for key in tree)
    return {key: _merged([tree[key] for tree in trees if key in tree]) for key in keys}


def spelled(steps: Steps) -> str:
    """Return a path as a description spells it."""
    parts = [written(step) if isinstance(step, str) else f"[{'' if step is None else step}]" for step in steps]
    return "".join(f".{part}" if place and not part.startswith("[") else part for place, part in enumerate(parts))


def written(name: str) -> str:
    """Return the name of a column or key as a description spells it: in quotes where it needs them."""
    plain = bool(name) and name == name.strip() and not any(character in SPECIAL for character in name)
    return name if plain else json.dumps(name, ensure_ascii=False)
