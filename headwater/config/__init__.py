"""Text to objects: flags and YAML to a command's frozen `Config`, and `dpo(beta=0.1)` to a value.

A YAML file is flags written down: its entries become flags placed before those of the command line, so that one
parser (tyro) gives both their types, and the precedence flag > YAML > default needs no code of its own.
"""

from __future__ import annotations

import dataclasses
import math
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro

from headwater.config import calls
from headwater.config.calls import build, fraction, read_call
from headwater.config.types import is_number, mismatch
from headwater.config.types import takes_several as _takes_several
from headwater.config.yaml_files import Entry, entries, read_yaml, to_yaml
from headwater.errors import UsageError, did_you_mean
from headwater.marks import visible

T = TypeVar("T")

__all__ = ["build", "flatten", "fraction", "parse", "read_call", "read_yaml", "to_yaml"]

SEEDS = {"seed", "split_seed", "seeds"}


def flatten(config: Any) -> dict[str, Any]:
    """Return the fields of a config as one flat mapping; fields of nested groups stand beside the others.

    The result holds plain values only (str, int, float, bool, None, list): it is what `config.yaml` stores.
    """
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            flat.update(flatten(value))
        elif isinstance(value, tuple | list):
            flat[field.name] = [_plain(item) for item in value]
        else:
            flat[field.name] = _plain(value)
    return flat


def _plain(value: Any) -> Any:
    return str(value) if isinstance(value, Path) else value


def parse(config_class: type[T], arguments: Sequence[str], prog: str, description: str) -> T:
    """Parse `arguments` (with an optional `--config FILE.yaml`) into `config_class`.

    Errors: `UsageError` for an unknown flag or key (with a suggestion), a missing required flag, or an unreadable
    YAML file. Values of a wrong type end in tyro's own message and exit code 2.
    """
    _refuse_bytes(arguments)
    arguments, config_file = _take_config_flag(list(arguments))
    flags = _flags(config_class)
    if not {"-h", "--help"} & set(arguments):
        from_file = _yaml_as_flags(config_file, config_class) if config_file else []
        _refuse_unknown_flags(arguments, flags)
        _refuse_missing_flags(from_file + arguments, config_class)
        arguments = from_file + arguments
    found = tyro.cli(config_class, prog=prog, args=arguments, description=description)
    _check_numbers(found)
    return found


def _refuse_bytes(arguments: Sequence[str]) -> None:
    """Refuse arguments, such as names of files, that could not be written down."""
    for argument in arguments:
        try:
            argument.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UsageError(visible(argument), "holds bytes that are not UTF-8", "rename the file") from error


def _take_config_flag(arguments: list[str]) -> tuple[list[str], Path | None]:
    """Split `--config FILE` or `--config=FILE` off the arguments. Errors: `UsageError`, also for two."""
    if sum(argument == "--config" or argument.startswith("--config=") for argument in arguments) > 1:
        raise UsageError("--config", "is given twice", "write the entries of both into one file")
    for index, argument in enumerate(arguments):
        if argument == "--config":
            if index + 1 == len(arguments):
                raise UsageError("--config", "no file given", "write --config FILE.yaml")
            return arguments[:index] + arguments[index + 2 :], Path(arguments[index + 1])
        if argument.startswith("--config="):
            return arguments[:index] + arguments[index + 1 :], Path(argument.removeprefix("--config="))
    return arguments, None


def _fields(config_class: Any) -> Iterator[tuple[dataclasses.Field[Any], Any]]:
    """Yield every leaf field of a config class and its annotation, nested groups included."""
    hints = typing.get_type_hints(config_class, include_extras=True)
    for field in dataclasses.fields(config_class):
        inner = typing.get_args(hints[field.name])[:1]
        group = inner[0] if inner and dataclasses.is_dataclass(inner[0]) else hints[field.name]
        if dataclasses.is_dataclass(group):
            yield from _fields(group)
        else:
            yield field, hints[field.name]


def _aliases(annotation: Any) -> tuple[str, ...]:
    found = [getattr(extra, "aliases", None) for extra in getattr(annotation, "__metadata__", ())]
    return tuple(alias for aliases in found for alias in aliases or ())


def _flags(config_class: Any) -> dict[str, str]:
    """Map every accepted flag (in its `-` spelling, aliases and negations included) to its field's name."""
    flags = {"--help": "help", "--config": "config"}
    for field, annotation in _fields(config_class):
        names = ["--" + field.name.replace("_", "-"), *_aliases(annotation)]
        if bool in (annotation, *typing.get_args(annotation)[:1]):
            names.append("--no-" + field.name.replace("_", "-"))
        flags.update(dict.fromkeys(names, field.name))
    return flags


def _written_flags(arguments: Sequence[str]) -> list[str]:
    """Return the flags among `arguments`, in their `-` spelling and without `=value`."""
    return [a.split("=", 1)[0].replace("_", "-") for a in arguments if a.startswith("--")]


def _refuse_unknown_flags(arguments: Sequence[str], flags: Mapping[str, str]) -> None:
    for flag in _written_flags(arguments):
        if flag not in flags:
            raise UsageError(f"unknown flag {flag}", did_you_mean(flag, flags))


def _refuse_missing_flags(arguments: Sequence[str], config_class: Any) -> None:
    written = _written_flags(arguments)
    flags = _flags(config_class)
    given = {flags[flag] for flag in written if flag in flags}
    for field, _ in _fields(config_class):
        required = field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING
        positional = "Positional" in str(field.type)
        if required and not positional and field.name not in given:
            raise UsageError(f"--{field.name.replace('_', '-')} is missing", "see --help")


def _yaml_as_flags(path: Path, config_class: Any) -> list[str]:
    """Turn a flat YAML mapping into flags; what is no flag of this command, or no value of one, is refused by line."""
    flags = _flags(config_class)
    fields = {field.name: (field, hint) for field, hint in _fields(config_class)}
    arguments: list[str] = []
    given: dict[str, str] = {}
    for entry in entries(path):
        flag = "--" + entry.key.replace("_", "-")
        name = flags.get(flag)
        if name not in fields:
            raise UsageError(
                entry.place, f"unknown key {calls.shown(entry.key)}", did_you_mean(entry.key, sorted(fields))
            )
        if name in given:
            raise UsageError(entry.place, f"{entry.key} and {given[name]} are one flag", "leave one out")
        given[name] = entry.key
        field, hint = fields[name]
        arguments += _as_arguments(entry, flag, "Positional" in str(field.type), hint, flags)
    return arguments


def _as_arguments(entry: Entry, flag: str, positional: bool, hint: Any, flags: Mapping[str, str]) -> list[str]:
    """Return the arguments that stand for an entry of a YAML file. Errors: `UsageError` for another type."""
    kept = [scalar for scalar in entry.values if scalar.value is not None]
    several = _takes_several(hint)
    if entry.listed and not several:
        raise UsageError(entry.place, f"{entry.key} holds a list", "expected one value")
    if len(kept) < len(entry.values) and entry.listed:
        raise UsageError(entry.place, f"{entry.key} holds an empty item", "leave it out")
    for scalar in kept:
        expected = mismatch(scalar.text, hint)
        if expected:
            raise UsageError(entry.place, f"{entry.key}: {calls.shown(scalar.text)}", f"expected {expected}")
    texts = [scalar.text for scalar in kept]
    if positional or several:
        dashed = next((text for text in texts if text.startswith("-") and not is_number(text)), None)
        if dashed:  # it would be taken for a flag
            raise UsageError(
                entry.place, f"{entry.key} holds {calls.shown(dashed)}", "write ./ before a name with a dash"
            )
    if not texts:
        return []
    if positional:
        return texts
    negation = "--no-" + flag.removeprefix("--")
    if negation in flags:
        return [flag if kept[0].value else negation]
    # In one piece, so that a value with a dash is no flag.
    return [flag, *texts] if several else [f"{flag}={texts[0]}"]


def _check_numbers(config: Any) -> None:
    """Refuse numbers that no setting means: what is not finite, beyond 64 bits, or a seed below 0."""
    for name, value in flatten(config).items():
        flag = f"--{name.replace('_', '-')} {value}"
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, float) and not math.isfinite(one):
                raise UsageError(flag, "is not finite", "expected a number")
            if isinstance(one, int) and abs(one) >= 2**63:
                raise UsageError(calls.shown(flag), "has more than 64 bits", "expected a smaller number")
            if name in SEEDS and isinstance(one, int) and not 0 <= one < 2**32:
                raise UsageError(flag, "is no seed", "expected 0 to 4294967295")
