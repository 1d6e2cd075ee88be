"""Options of a command: the fields of its `Config` and of the option groups inside it, by name and by alias."""

from __future__ import annotations

import dataclasses
import functools
import types
import typing
from collections.abc import Sequence
from dataclasses import MISSING, dataclass
from typing import Any, Literal

from headwater.config.calls import shown
from headwater.errors import UsageError

POSITIONAL = "positional"
"""Marks a field whose value can also be given without its flag: `data: Annotated[Path, POSITIONAL]`."""

ALIASES = {
    "data": ("dataset", "input", "dataset_name"),
    "dataset": ("data", "input", "dataset_name"),
    "input": ("data", "dataset", "dataset_name"),
    "prompts": ("data", "dataset", "input"),
    "output": ("output_dir", "out"),
    "model": ("model_name_or_path", "model_name"),
    "tokenizer": ("model",),
    "reference": ("reference_model", "ref_model"),
    "learning_rate": ("lr",),
    "num_train_epochs": ("epochs", "num_epochs"),
    "per_device_train_batch_size": ("batch_size", "train_batch_size", "bs"),
    "batch_size": ("bs",),
    "gradient_accumulation_steps": ("accumulation_steps", "grad_accum"),
    "lr_scheduler_type": ("lr_scheduler", "scheduler"),
    "lora_r": ("lora_rank",),
    "eval_data": ("eval_dataset", "eval_file"),
    "max_length": ("max_len", "max_seq_length", "max_seq_len"),
    "max_new_tokens": ("max_tokens",),
    "limit": ("max_rows", "max_samples", "num_samples"),
    "layout": ("format",),
    "allow_changes": ("allow_drift",),
}
"""Other names of fields, as flag, YAML key and keyword argument; a name that is a field of the command stands for that
field alone."""
MODELS = ("model", "reference", "reward_model", "policy")
"""Fields that name a model: a run, a path, or a name on the hub."""
SHOWN_AS = {"dataset": "data", "input": "data"}
"""Fields that help and messages call by another name, the same in all commands."""


@dataclass(frozen=True)
class Option:
    """One option of a command: a field of its config."""

    name: str
    kind: Any
    """Type of one value: str, int, float, bool, Path or a Literal."""
    default: Any
    """MISSING where a value is required."""
    several: bool = False
    """Whether it takes any number of values."""
    optional: bool = False
    """Whether None is a value."""
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
                expected = _EXPECTED.get(self.kind) or ", ".join(self._choices)
                raise UsageError(f"{place}{shown(text)}", f"expected {expected}") from None
        return tuple(values) if self.several else values[0]

    @functools.cached_property
    def _choices(self) -> dict[str, Any]:
        """The values of a Literal or a switch, as they are written; none for other kinds."""
        choices = typing.get_args(self.kind) if typing.get_origin(self.kind) is Literal else ()
        return {str(choice): choice for choice in ((True, False) if self.kind is bool else choices)}


_EXPECTED = {int: "a whole number", float: "a number", bool: "true or false"}


class Options(dict[str, Option]):
    """The options of a config class by field name; fields of option groups stand beside the others."""

    def __init__(self, config_class: type[Any]) -> None:
        """Read the fields of `config_class`, a dataclass; a field whose type is a dataclass is an option group."""
        super().__init__()
        self.groups: dict[str, type[Any]] = {}
        """Classes of the option groups, by field."""
        hints = typing.get_type_hints(config_class, include_extras=True)
        for field in dataclasses.fields(config_class):
            hint, default = hints[field.name], default_of(field)
            if dataclasses.is_dataclass(hint):
                self.groups[field.name] = typing.cast("type[Any]", hint)
                for name, option in Options(self.groups[field.name]).items():
                    self[name] = dataclasses.replace(option, default=getattr(default, name), group=field.name)
            else:
                self[field.name] = _option(field.name, hint, default)
        self.names = {name: name for name in self}
        """Every name that is accepted, aliases included, to that of its field."""
        for name in self:
            self.names |= {alias: name for alias in ALIASES.get(name, ()) if alias not in self.names}

    def flag(self, name: str) -> str:
        """Return the flag by which help and messages call a field."""
        return as_flag(SHOWN_AS.get(name, name))


def as_flag(name: str) -> str:
    """Return `--learning-rate` for learning_rate."""
    return "--" + name.replace("_", "-")


def default_of(field: dataclasses.Field[Any]) -> Any:
    """Return the default of a field; MISSING where it has none."""
    return field.default if field.default_factory is MISSING else field.default_factory()


def _option(name: str, hint: Any, default: Any) -> Option:
    """Return the option of a field, by its type hint."""
    markers = getattr(hint, "__metadata__", ())
    hint = typing.get_args(hint)[0] if markers else hint
    union = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    kind = next(one for one in union if one is not type(None))
    several = typing.get_origin(kind) is tuple
    kind = typing.get_args(kind)[0] if several else kind
    return Option(name, kind, default, several, type(None) in union, POSITIONAL in markers)
