"""The command-line reference of the site, from the options of every command."""

from __future__ import annotations

import functools
import importlib
import inspect
from collections.abc import Iterator
from dataclasses import MISSING
from typing import Any

from headwater.cli import COMMANDS, STAGES
from headwater.config.help import called as called_in_help
from headwater.config.help import docs_of, usage_of
from headwater.config.options import Option, Options, as_flag
from headwater.interface import FUNCTIONS


@functools.cache
def pages() -> dict[str, str]:
    """Return the page of every command as Markdown, by its path in the site."""
    return {f"cli/{name}.md": "\n".join(_page(name)) for name in COMMANDS}


def table() -> str:
    """Return a table of all commands, by stage."""
    lines = ["| stage | command | does |", "|---|---|---|"]
    for stage, commands in STAGES.items():
        lines += [f"| {stage} | [`{name}`]({name}.md) | {command.does} |" for name, command in commands.items()]
    return "\n".join(lines)


def functions() -> str:
    """Return a table of the functions of the Python interface and the commands whose options they take."""
    lines = ["| function | returns | options |", "|---|---|---|"]
    other = {"download_models": "the folder of the models", "inspect": "`Inspection`", "report": "the path of the page"}
    for name, command in FUNCTIONS.items():
        returned = other.get(name, "`Result`; None with `serve`" if name == "lens" else "`Result`")
        lines.append(f"| `headwater.{name}` | {returned} | [`{command}`](cli/{command}.md) |")
    return "\n".join(lines)


def _page(name: str) -> Iterator[str]:
    module = importlib.import_module(COMMANDS[name].module)
    options, docs = Options(module.Config), docs_of(module.Config)
    yield f"# headwater {name}\n"
    yield f"{str(module.__doc__).strip()}\n"
    yield "```console"
    yield from (f"$ {line.strip()}" for line in module.EXAMPLE.splitlines())
    yield "```\n"
    yield f"```text\nheadwater {name} {usage_of(options)}\n```\n"
    if function := next((function for function, command in FUNCTIONS.items() if command == name), ""):
        yield f"In Python: `headwater.{function}`, with the same options ([Python](../python.md)).\n"
    for title, names in _groups(module, options).items():
        yield f"## {title}\n"
        for field in names:
            yield from _option(options[field], options, docs[field])
    yield "Every option can stand in a YAML file that `--config` names ([commands](../commands.md)).\n"


def _groups(module: Any, options: Options) -> dict[str, list[str]]:
    """Return the options by group: those of `--help` first, then the others by the option group that holds them."""
    groups = {title: list(names) for title, names in module.HELP.items()}
    shown = {name for names in groups.values() for name in names}
    titles = {name: str(inspect.getdoc(group)).splitlines()[0].rstrip(".") for name, group in options.groups.items()}
    for option in options.values():
        if option.name not in shown:
            groups.setdefault(titles.get(option.group, "More options"), []).append(option.name)
    return groups


def _option(option: Option, options: Options, doc: str) -> Iterator[str]:
    """Yield an option as an entry of a definition list: how it is called, what it does, default and other names."""
    flag = options.flag(option.name)
    others = [as_flag(name) for name, field in options.names.items() if field == option.name and as_flag(name) != flag]
    ending = ["Required."] if option.default is MISSING else []
    if not (option.default in (MISSING, None, False) or option.default == ()):
        values = option.default if option.several else (option.default,)
        ending.append(f"Default: `{' '.join(map(str, values))}`.")
    if others:
        ending.append("Also " + ", ".join(f"`{one}`" for one in others) + ".")
    paragraphs = [_escaped(" ".join(text.split())) for text in doc.split("\n\n")]
    paragraphs[-1] = " ".join([paragraphs[-1], *ending])
    yield f"`{called_in_help(option, options)}`\n"
    yield ":   " + "\n\n    ".join(paragraphs) + "\n"


def _escaped(text: str) -> str:
    """Return a plain text such that Markdown shows it as it is, outside of code between backticks."""
    parts = text.split("`")
    for place in range(0, len(parts), 2):
        for sign in ("*", "_", "<", "["):
            parts[place] = parts[place].replace(sign, "\\" + sign)
    return "`".join(parts)
