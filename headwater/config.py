"""Text to objects: flags and YAML to a command's frozen `Config`, and `dpo(beta=0.1)` to a value.

A YAML file is flags written down: its entries become flags placed before those of the command line, so that one
parser (tyro) gives both their types, and the precedence flag > YAML > default needs no code of its own.
"""

from __future__ import annotations

import ast
import dataclasses
import inspect
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import tyro
import yaml

from headwater.errors import UsageError, did_you_mean
from headwater.marks import visible

T = TypeVar("T")


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
    return tyro.cli(config_class, prog=prog, args=arguments, description=description)


def _refuse_bytes(arguments: Sequence[str]) -> None:
    """Refuse arguments, such as names of files, that could not be written down."""
    for argument in arguments:
        try:
            argument.encode("utf-8")
        except UnicodeEncodeError as error:
            raise UsageError(visible(argument), "holds bytes that are not UTF-8", "rename the file") from error


def _take_config_flag(arguments: list[str]) -> tuple[list[str], Path | None]:
    """Split `--config FILE` or `--config=FILE` off the arguments."""
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
        if field.type in ("bool", bool):
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
    """Turn a flat YAML mapping into flags; unknown keys are refused by line."""
    flags = _flags(config_class)
    positional = {field.name for field, hint in _fields(config_class) if "Positional" in str(field.type)}
    arguments: list[str] = []
    for line, key, value in _yaml_items(path):
        flag = "--" + key.replace("_", "-")
        if flag not in flags:
            raise UsageError(f"{path}:{line}", f"unknown key {key}", did_you_mean(key, sorted(set(flags.values()))))
        if value is None:
            continue
        if isinstance(value, dict):
            raise UsageError(f"{path}:{line}", f"{key} holds a mapping", "keys are flat, one a flag")
        values = [str(item) for item in value] if isinstance(value, list) else [str(value)]
        if flags[flag] in positional:
            arguments.extend(values)
        elif isinstance(value, bool) and "--no-" + key.replace("_", "-") in flags:
            arguments.append(flag if value else "--no-" + key.replace("_", "-"))
        elif values:
            arguments.extend([flag, *values])
    return arguments


def _yaml_items(path: Path) -> list[tuple[int, str, Any]]:
    """Read a YAML mapping as (line, key, value); only plain YAML, no tags, no aliases, at most 1 MB."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UsageError(f"--config {path}", error.strerror or "cannot be read") from error
    if len(text) > 1_000_000:
        raise UsageError(f"--config {path}", "is larger than 1 MB", "a config is a short YAML mapping")
    try:
        if any(isinstance(token, yaml.AliasToken) for token in yaml.scan(text)):
            raise UsageError(f"--config {path}", "holds an alias (*name)", "write the value out")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        values = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"--config {path}", str(error).replace("\n", " ")) from error
    if node is None:
        return []
    if not isinstance(node, yaml.MappingNode) or not isinstance(values, dict):
        raise UsageError(f"--config {path}", "is not a mapping", "write one `key: value` a line")
    return [(key.start_mark.line + 1, str(key.value), values[key.value]) for key, _ in node.value]


def to_yaml(values: Mapping[str, Any]) -> str:
    """Write a flat mapping as YAML that `--config` reads back."""
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a flat YAML mapping. Errors: `UsageError`."""
    return {key: value for _, key, value in _yaml_items(path)}


def build(text: str, table: Mapping[str, Callable[..., T]], what: str) -> T:
    """Build the component that a constructor call names: `build("dpo(beta=0.1)", LOSSES, "loss")`.

    Only literals are accepted as keyword arguments; nothing is evaluated. Errors: `UsageError`.
    """
    name, arguments = read_call(text, what)
    if name not in table:
        raise UsageError(f"unknown {what} {name}", did_you_mean(name, table))
    maker = table[name]
    parameters = inspect.signature(maker).parameters
    hints = typing.get_type_hints(maker)
    for key, value in arguments.items():
        if key not in parameters:
            raise UsageError(f"{what} {name}", f"has no setting {key}", did_you_mean(key, parameters))
        if not _fits(value, hints.get(key, object)):
            raise UsageError(
                f"{what} {name}",
                f"{key}={value!r}",
                f"expected {getattr(hints[key], '__name__', hints[key])}",
            )
    return maker(**arguments)


def _fits(value: object, expected: Any) -> bool:
    if expected is float:
        return isinstance(value, int | float) and not isinstance(value, bool)
    if expected is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return isinstance(value, expected) if isinstance(expected, type) else True


def read_call(text: str, what: str) -> tuple[str, dict[str, Any]]:
    """Read `name` or `name(key=literal, …)` into the name and its arguments. Errors: `UsageError`."""
    example = f'write it as name or name(key=value), such as "{what}(size=1)"'
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError) as error:
        raise UsageError(f"{what} {text!r}", "is not a constructor call", example) from error
    if isinstance(node, ast.Name):
        return node.id, {}
    if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Name)):
        raise UsageError(f"{what} {text!r}", "is not a constructor call", example)
    if node.args or any(keyword.arg is None for keyword in node.keywords):
        raise UsageError(f"{what} {text!r}", "has a setting without a name", example)
    try:
        arguments = {str(keyword.arg): ast.literal_eval(keyword.value) for keyword in node.keywords}
    except ValueError as error:
        raise UsageError(f"{what} {text!r}", "has a value that is not a literal", example) from error
    return node.func.id, arguments
