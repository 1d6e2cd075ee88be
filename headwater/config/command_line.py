"""Command-line arguments to typed values, by the fields of a command's `Config`."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from headwater.config.calls import shown
from headwater.config.options import MODELS, Option, Options, as_flag
from headwater.errors import UsageError, did_you_mean
from headwater.marks import visible

CONFIG = Option("config", Path, default=None)
"""The flag of every command that names a YAML file."""


def read_arguments(arguments: Sequence[str], options: Options, prog: str) -> dict[str, Any]:
    """Return the values that are given, by field, and under `config` the file of `--config`.

    A flag is written `--flag value` or `--flag=value`, with dashes or underscores; given twice, the last one counts,
    so that a script can append to its arguments. `prog` is the command that messages point to. Errors: `UsageError`.
    """
    unwritable = next((one for one in arguments if one.encode("utf-8", "replace").decode() != one), None)
    if unwritable is not None:
        raise UsageError(visible(unwritable), "holds bytes that are not UTF-8", "rename the file")
    flags = _flags(options)
    values: dict[str, Any] = {}
    positional: list[str] = []
    rest = deque(arguments)
    while rest:
        argument = rest.popleft()
        if is_value(argument):
            positional.append(argument)
            continue
        word, equals, text = argument.partition("=")
        key = word.replace("_", "-")
        if key not in flags:
            raise UsageError(f"unknown flag {visible(key)}", did_you_mean(key, flags, f"see {prog} --help-all"))
        option = flags[key]
        if option is CONFIG and option.name in values:
            raise UsageError("--config", "is given twice", "write the entries of both into one file")
        if option.kind is bool:
            if equals:
                raise UsageError(visible(argument), "is a switch", f"write {word} alone")
            values[option.name] = not key.startswith("--no-")
            continue
        texts = [text] if equals else _values_at(rest, option)
        if not texts and not option.several:
            raise UsageError(word, "no file given" if option is CONFIG else "has no value", f"see {prog} --help")
        values[option.name] = option.convert(texts, f"{word} ")
    if positional:
        values |= _by_position(positional, values, options, prog)
    return values


def is_value(argument: str) -> bool:
    """Say whether an argument is a value rather than a flag; a negative number is one."""
    if not argument.startswith("-"):
        return True
    try:
        float(argument)
    except ValueError:
        return argument == "-"
    return True


def _values_at(rest: deque[str], option: Option) -> list[str]:
    """Take the values of a flag from the arguments behind it; a single value may begin with one dash."""
    texts: list[str] = []
    while rest and (is_value(rest[0]) if option.several else not texts and not rest[0].startswith("--")):
        texts.append(rest.popleft())
    return texts


def _flags(options: Options) -> dict[str, Option]:
    """Return the option of every flag, aliases and the `--no-…` of switches included."""
    flags = {as_flag(CONFIG.name): CONFIG}
    for name, field in options.names.items():
        flags[as_flag(name)] = options[field]
        if options[field].kind is bool:
            flags[as_flag(f"no_{name}")] = options[field]
    return flags


def _by_position(positional: Sequence[str], values: dict[str, Any], options: Options, prog: str) -> dict[str, Any]:
    """Return the values that stand without a flag, by the positional fields that have no flag.

    Fewer values than fields go to the last fields, so that a first one may be left out: `headwater lens [MODEL] DATA`.
    Errors: `UsageError` for more values than fields.
    """
    free = [one for one in options.values() if one.positional and one.name not in values]
    if free and free[-1].several:
        return {free[-1].name: free[-1].convert(positional, "")}
    if len(positional) > len(free):
        raise UsageError(shown(positional[len(free)]), "is one value too many", _other_places(options, prog))
    pairs = zip(free[len(free) - len(positional) :], positional, strict=True)
    return {option.name: option.convert([text], "") for option, text in pairs}


def _other_places(options: Options, prog: str) -> str:
    """Return where a value without a flag may belong: the flags that take a path or a model."""
    taking = [one for one in options.values() if not one.positional and (one.kind is Path or one.name in MODELS)]
    flags = ", ".join(options.flag(one.name) for one in taking)
    return f"did you forget its flag? {flags} take a path; see {prog} --help" if flags else f"see {prog} --help"
