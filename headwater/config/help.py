"""Help pages of commands: the options that most people need, or all of them, in groups."""

from __future__ import annotations

import ast
import dataclasses
import inspect
import shutil
import textwrap
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any, Literal

from headwater.config.options import Option, Options, as_flag

WIDEST = 100
"""Columns of a page on a wide terminal."""
INDENT = 30
"""Columns before a description."""


def help_page(
    config_class: type[Any], prog: str, about: str, example: str, basic: Mapping[str, Sequence[str]], everything: bool
) -> str:
    """Return the help of a command: how to call it, what it does, an example and its options.

    `basic` holds the fields that every page shows, by the title of their group. `everything` adds the other fields and
    the further names of options, and shows descriptions whole instead of their first paragraph.
    """
    options, docs = Options(config_class), docs_of(config_class)
    groups = {title: list(names) for title, names in basic.items()}
    if everything:
        shown = {name for names in basic.values() for name in names}
        titles = {name: str(inspect.getdoc(group)) for name, group in options.groups.items()}
        for option in options.values():
            if option.name not in shown:
                title = titles[option.group].splitlines()[0].rstrip(".") if option.group else "More options"
                groups.setdefault(title, []).append(option.name)
    width = min(shutil.get_terminal_size().columns, WIDEST)
    lines = textwrap.wrap(f"usage: {prog} {usage_of(options)}", width)
    for paragraph in about.split("\n\n"):
        lines += ["", *textwrap.wrap(" ".join(paragraph.split()), width)]
    lines += ["", *(f"  {line.strip()}" for line in example.splitlines())]
    for title, names in groups.items():
        lines += ["", *textwrap.wrap(title, width)]
        for name in names:
            paragraphs = docs.get(name, "").split("\n\n")
            text = _described(options[name], paragraphs if everything else paragraphs[:1], width)
            lines += _beside(f"  {called(options[name], options)}", text)
    if options:
        lines += ["", "--config FILE.yaml reads options from a file, one a line, such as `seed: 1`."]
    if everything:
        lines += ["", "Other names", *_other_names(options)]
    elif len(options) > sum(map(len, groups.values())):
        lines.append(f"more: {prog} --help-all ({len(options)} options)")
    return "\n".join(lines)


def docs_of(config_class: type[Any]) -> dict[str, str]:
    """Return the docstring below every field of a config class, its bases and its option groups."""
    found: dict[str, str] = {}
    for group in Options(config_class).groups.values():
        found |= docs_of(group)
    for one in filter(dataclasses.is_dataclass, reversed(config_class.__mro__)):
        definition = typing.cast(ast.ClassDef, ast.parse(textwrap.dedent(inspect.getsource(one))).body[0])
        for field, below in zip(definition.body, definition.body[1:], strict=False):
            if isinstance(field, ast.AnnAssign) and isinstance(below, ast.Expr):
                found[ast.unparse(field.target)] = inspect.cleandoc(ast.literal_eval(below.value)).strip()
    return found


def usage_of(options: Options) -> str:
    """Return the arguments of a command: positional ones, required flags, and that there are others."""
    positional = [(_placed(one, options), one.default is MISSING) for one in options.values() if one.positional]
    flags = [one for one in options.values() if one.default is MISSING and not one.positional]
    parts = [name if required else f"[{name}]" for name, required in positional]
    return " ".join([*parts, *(called(one, options) for one in flags), *["[options]"] * bool(options)])


def called(option: Option, options: Options) -> str:
    """Return how an option is given: `--seed INT`, or `DATA, --data PATH` where the flag can be left out."""
    kind = {Path: "PATH", int: "INT", float: "FLOAT", bool: ""}.get(option.kind, "TEXT")
    if typing.get_origin(option.kind) is Literal:
        kind = "{" + ",".join(map(str, typing.get_args(option.kind))) + "}"
    flag = options.flag(option.name)
    value = f" {kind}{' …' * option.several}" if kind else ""
    return f"{_placed(option, options)}, {flag}{value}" if option.positional else f"{flag}{value}"


def _placed(option: Option, options: Options) -> str:
    """Return the name of a positional option in usage: DATA, or RUNS … for several."""
    name = options.flag(option.name).removeprefix("--").replace("-", "_").upper()
    return f"{name} …" if option.several else name


def _described(option: Option, paragraphs: Sequence[str], width: int) -> list[str]:
    """Return the lines of a description, with the default at its end."""
    default = ""
    if option.default is MISSING:
        default = "Required."
    elif not (option.default is None or option.default is False or option.default == ()):
        values = option.default if option.several else (option.default,)
        default = f"Default: {' '.join(map(str, values))}."
    texts = [" ".join(paragraph.split()) for paragraph in paragraphs]
    texts[-1] = f"{texts[-1]} {default}".strip()
    return [line for text in texts for line in textwrap.wrap(text, width - INDENT, break_on_hyphens=False)]


def _beside(name: str, text: Sequence[str]) -> list[str]:
    """Return a name with a description beside it, or below where the name is long."""
    lines = [" " * INDENT + line for line in text]
    if lines and len(name) < INDENT - 1:
        return [name.ljust(INDENT) + lines[0].lstrip(), *lines[1:]]
    return [name, *lines]


def _other_names(options: Options) -> list[str]:
    """Return the aliases of options, a line for each flag that help shows."""
    others: dict[str, list[str]] = {}
    for name, field in options.names.items():
        if as_flag(name) != options.flag(field):
            others.setdefault(options.flag(field), []).append(as_flag(name))
    return [f"    {flag}: {', '.join(names)}" for flag, names in others.items()]
