"""Flags, YAML files and keyword arguments to a command's frozen `Config`, and `dpo(beta=0.1)` to a value."""

from __future__ import annotations

import dataclasses
import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any, TypeVar

from headwater.config.calls import build, fraction, read_call, shown
from headwater.config.command_line import read_arguments
from headwater.config.help import usage_of
from headwater.config.options import POSITIONAL, Option, Options, as_flag, default_of
from headwater.config.yaml_files import read_options, read_yaml, to_yaml
from headwater.errors import UsageError, did_you_mean

T = TypeVar("T")

__all__ = ["POSITIONAL", "build", "configure", "flatten", "fraction", "parse", "read_call", "read_yaml", "to_yaml"]

SEEDS = {"seed", "split_seed", "seeds"}


def parse(config_class: type[T], arguments: Sequence[str], prog: str = "headwater") -> T:
    """Return the config that command-line arguments describe.

    A value on the command line replaces that of the YAML file of `--config FILE.yaml`, which replaces the default.
    `prog` is the command that messages point to. Errors: `UsageError` for an unknown flag or key (with a suggestion),
    a missing or malformed value, and an unreadable YAML file.
    """
    options = Options(config_class)
    values = read_arguments(arguments, options, prog)
    if "config" in values:
        values = read_options(values.pop("config"), options) | values
    for name, option in options.items():
        if option.default is MISSING and name not in values:
            raise UsageError(f"{options.flag(name)} is missing", f"write {prog} {usage_of(options)}")
    return configure(config_class, values)


def configure(config_class: type[T], values: Mapping[str, Any]) -> T:
    """Return a config with the options `values`, by name or alias; options that are left out have their defaults.

    Errors: `UsageError` for an unknown or missing option, and for numbers that are not finite or too large.
    """
    options = Options(config_class)
    grouped: dict[str, dict[str, Any]] = defaultdict(dict)
    for word, value in values.items():
        if word not in options.names:
            raise UsageError(f"unknown option {word}", did_you_mean(word, options.names))
        option = options[options.names[word]]
        if option.name in grouped[option.group]:
            raise UsageError(f"{word} is another name of {option.name}", "leave one of them out")
        grouped[option.group][option.name] = _coerced(value, option)
        _check_numbers(option, grouped[option.group][option.name])
    own = grouped.pop("", {})
    for field in dataclasses.fields(config_class):  # type: ignore[arg-type]
        if field.name in grouped:
            own[field.name] = dataclasses.replace(default_of(field), **grouped[field.name])
    missing = [option.name for option in options.values() if option.default is MISSING and option.name not in own]
    if missing:
        raise UsageError(f"{missing[0]} is missing")
    return config_class(**own)


def _coerced(value: Any, option: Option) -> Any:
    """Return a value of Python in the type of its field: paths and texts converted, a tuple for several values."""
    if value is None:
        return None
    items = tuple(value) if isinstance(value, tuple | list) else (value,)
    if not option.several and len(items) != 1:
        raise UsageError(f"{option.name} has {len(items)} values", "expected one")
    if option.kind in (str, Path):
        items = tuple(option.kind(item) if isinstance(item, str | Path) else item for item in items)
    if option.kind is str:  # a number where a text of one is meant, as in max_bad_rows=1
        items = tuple(str(item) if type(item) in (int, float) else item for item in items)
    return items if option.several else items[0]


def _check_numbers(option: Option, value: Any) -> None:
    """Refuse numbers that no option means: not finite, beyond 64 bits, or a seed below 0. Errors: `UsageError`."""
    for one in value if isinstance(value, tuple) else [value]:
        place = f"{as_flag(option.name)} {value if option.several else one}"
        if isinstance(one, float) and not math.isfinite(one):
            raise UsageError(place, "is not finite", "expected a number")
        if isinstance(one, int) and abs(one) >= 2**63:
            raise UsageError(shown(place), "has more than 64 bits", "expected a smaller number")
        if option.name in SEEDS and isinstance(one, int) and not 0 <= one < 2**32:
            raise UsageError(place, "is no seed", "expected 0 to 4294967295")


def flatten(config: Any) -> dict[str, Any]:
    """Return the fields of a config as one flat mapping; fields of option groups stand beside the others.

    The result holds plain values only (str, int, float, bool, None, list): it is what `config.yaml` stores.
    """
    flat: dict[str, Any] = {}
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if dataclasses.is_dataclass(value):
            flat |= flatten(value)
        elif isinstance(value, tuple | list):
            flat[field.name] = [str(item) if isinstance(item, Path) else item for item in value]
        else:
            flat[field.name] = str(value) if isinstance(value, Path) else value
    return flat
