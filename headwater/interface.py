"""The Python interface: every command as a function that takes the command's options as keyword arguments."""

from __future__ import annotations

import importlib
import inspect
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import MISSING
from pathlib import Path
from typing import Any

from headwater.cli import COMMANDS
from headwater.config import configure
from headwater.config.help import docs_of
from headwater.config.options import SHOWN_AS, Option, Options
from headwater.data import reading
from headwater.data.preference import Preference
from headwater.files import locks
from headwater.results import runs

FUNCTIONS = {
    "inspect_data": "inspect",
    "preprocess": "preprocess",
    "sample": "sample",
    "select": "select",
    "train_sft": "train-sft",
    "train_reward": "train-reward",
    "train_dpo": "train-dpo",
    "evaluate": "evaluate",
    "score": "score",
    "generate": "generate",
    "judge": "judge",
    "compare": "compare",
    "reward_bench": "reward-bench",
    "measure_signal": "signal",
    "sweep": "sweep",
    "measure_divergence": "divergence",
    "decode": "decode",
    "frontier": "frontier",
    "write_lens": "lens",
    "write_report": "report",
}
"""Commands by the name of their function; a function cannot have the name of a package, as `headwater.signal` has."""
MODELS = {"model", "reference", "against", "reward_model", "policy"}
"""Options that name a model, by a path or a text."""


def load_pairs(data: str | Path, **options: Any) -> list[Preference]:
    """Return the preference pairs of `data`: a file, directory, pattern, run, or name on the hub.

    `options` are those of reading, such as `limit=100`, `split="test"` or `columns="prompt=question,…"`.
    Errors: `DataError` for rows that are no pairs, unless `max_bad_rows` lets them be skipped.
    """
    return list(reading.load(Path(data), configure(reading.ReadOptions, options)).preferences)


def load_run(path: str | Path) -> runs.Run:
    """Return a finished run: its settings, metrics, history and records. Errors: `UsageError`."""
    return runs.load(Path(path))


def function(name: str) -> Callable[..., Any]:
    """Return the function of a command, whose signature and documentation are made from the command's options."""
    command = FUNCTIONS[name]
    module = importlib.import_module(COMMANDS[command].module)
    signature = _signature(module.Config)

    def call(*arguments: Any, **options: Any) -> Any:
        named = {key: value for key, value in options.items() if key in signature.parameters}
        given = signature.bind_partial(*arguments, **named).arguments
        with locks.released():
            return _finished(module.run(configure(module.Config, options | given)))

    call.__name__ = call.__qualname__ = name
    call.__module__ = "headwater"
    call.__doc__ = _documentation(module, command, signature)
    call.__signature__ = signature  # type: ignore[attr-defined]
    return call


def _finished(result: Any) -> Any:
    """Return the run that a command wrote, in or beside the path that it returns; other results as they are."""
    if not isinstance(result, Path):
        return result
    home = result if result.is_dir() else runs.beside(result)
    return runs.load(home) if (home / "done").is_file() else result


def _signature(config_class: type[Any]) -> inspect.Signature:
    """Return the parameters of a command: required positional options, then all others by keyword."""
    found = []
    for option in Options(config_class).values():
        required = option.default is MISSING
        found.append(
            inspect.Parameter(
                SHOWN_AS.get(option.name, option.name),
                inspect.Parameter.POSITIONAL_OR_KEYWORD
                if option.positional and required
                else inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if required else option.default,
                annotation=_annotation(option),
            )
        )
    return inspect.Signature(sorted(found, key=lambda one: (one.kind, one.default is not one.empty)))


def _annotation(option: Option) -> Any:
    """Return the type that a function takes for an option: paths as text too, several values as a sequence."""
    kind: Any = str | Path if option.kind is Path or option.name in MODELS else option.kind
    kind = Sequence[kind] if option.several else kind
    return kind | None if option.optional else kind


def _documentation(module: Any, command: str, signature: inspect.Signature) -> str:
    """Return a docstring: what the command does, and every parameter with its description."""
    docs = {SHOWN_AS.get(name, name): text for name, text in docs_of(module.Config).items()}
    lines = [str(module.__doc__).strip(), "", f"The same as `headwater {command}`. Errors: `HeadwaterError`.", ""]
    lines += ["Parameters", "----------"]
    for name in signature.parameters:
        lines += [name, textwrap.indent(docs.get(name, ""), "    ")]
    return "\n".join(lines)
