"""Options of a command: the fields of its `Config` and of the option groups inside it, by name and by alias."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, dataclass
from typing import Any, Literal

from headwater.config.calls import shown
from headwater.errors import UsageError

POSITIONAL = "positional"
"""Marks a field whose value can also be given without its flag: `data: Annotated[Path, POSITIONAL]`."""

ALIASES = (
    ("data", "dataset", "input", "dataset_name"),
    ("prompts", "data", "dataset", "input"),
    ("output", "output_dir", "out"),
    ("model", "model_name_or_path", "model_name"),
    ("tokenizer", "policy", "model", "model_name_or_path", "model_name"),
    ("reference", "reference_model", "ref_model"),
    ("learning_rate", "lr"),
    ("num_train_epochs", "epochs", "num_epochs"),
    ("per_device_train_batch_size", "batch_size", "train_batch_size", "bs"),
    ("batch_size", "bs"),
    ("gradient_accumulation_steps", "accumulation_steps", "grad_accum"),
    ("lr_scheduler_type", "lr_scheduler", "scheduler"),
    ("lora_r", "lora_rank"),
    ("eval_data", "eval_dataset", "eval_file"),
    ("max_length", "max_len", "max_seq_length", "max_seq_len"),
    ("max_new_tokens", "max_tokens"),
    ("limit", "max_rows", "max_samples", "num_samples"),
    ("layout", "format"),
    ("allow_changes", "allow_drift"),
)
"""Names of the same option. A command with exactly one of them as a field accepts the others too, as flag, YAML key and
keyword argument; help shows the first one."""


@dataclass(frozen=True)
class Option:
    """One option of a command: a field of its config."""

    name: str
    kind: Any
    """Type of one value: str, int, float, bool, Path or a Literal."""
    several: bool = False
    """Whether it takes any number of values."""
    optional: bool = False
    """Whether None is a value."""
    default: Any = MISSING
    """MISSING where a value is required."""
    positional: bool = False
    group: str = ""
    """The field of the config that holds its option group; empty for the command's own options."""

    def convert(self, texts: Sequence[str], place: str) -> Any:
        """Return the value that `texts` stand for. Errors: `UsageError` that begins with `place` and the text."""
        values = []
        for text in texts:
            if self.optional and text == "None":
                return None
            try:
                values.append(self._choices[text] if self._choices else self.kind(text))
            except (KeyError, ValueError):
                expected = ", ".join(self._choices) or _EXPECTED[self.kind]
                raise UsageError(f"{place}{shown(text)}", f"expected {expected}") from None
        return tuple(values) if self.several else values[0]

    @functools.cached_property
    def _choices(self) -> dict[str, Any]:
        """The values of a Literal or a switch, as they are written; none for other kinds."""
        choices = typing.get_args(self.kind) if typing.get_origin(self.kind) is Literal else ()
        return {str(choice): choice for choice in ((True, False) if self.kind is bool else choices)}


_EXPECTED = {int: "a whole number", float: "a number"}


@functools.cache
def options_of(config_class: Any) -> Mapping[str, Option]:
    """Return the options of a config class by field name; fields of option groups stand beside the others."""
    found: dict[str, Option] = {}
    hints = typing.get_type_hints(config_class, include_extras=True)
    for field in dataclasses.fields(config_class):
        hint, default = hints[field.name], default_of(field)
        markers = getattr(hint, "__metadata__", ())
        hint = typing.get_args(hint)[0] if markers else hint
        if dataclasses.is_dataclass(hint):
            for name, option in options_of(hint).items():
                found[name] = dataclasses.replace(option, default=getattr(default, name), group=field.name)
            continue
        union = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
        kind = next(one for one in union if one is not type(None))
        several = typing.get_origin(kind) is tuple
        kind = typing.get_args(kind)[0] if several else kind
        optional = type(None) in union
        found[field.name] = Option(field.name, kind, several, optional, default, POSITIONAL in markers)
    return found


@functools.cache
def names_of(config_class: Any) -> Mapping[str, str]:
    """Map every name that a command accepts, aliases included, to the name of its field."""
    options = options_of(config_class)
    names = {name: name for name in options}
    for words in ALIASES:
        fields = [word for word in words if word in options]
        if len(fields) == 1:
            names |= {word: fields[0] for word in words if word not in names}
    return names


def flag_of(name: str, config_class: Any) -> str:
    """Return the flag by which help and messages call a field: that of its first alias."""
    names = names_of(config_class)
    firsts = (words[0] for words in ALIASES if name in words)
    return as_flag(next((first for first in firsts if names.get(first) == name), name))


def as_flag(name: str) -> str:
    """Return `--learning-rate` for learning_rate."""
    return "--" + name.replace("_", "-")


def default_of(field: dataclasses.Field[Any]) -> Any:
    """Return the default of a field; MISSING where it has none."""
    return field.default if field.default_factory is MISSING else field.default_factory()
