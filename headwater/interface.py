"""The Python interface: every command as a function that takes the command's options as keyword arguments."""

from __future__ import annotations

import contextlib
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
from headwater.config.options import MODELS, SHOWN_AS, Option, Options
from headwater.data import reading
from headwater.data.preference import Preference
from headwater.data.reading import memory
from headwater.data.reading.memory import Rows
from headwater.files import locks
from headwater.results import inputs, runs

FUNCTIONS = {
    "download_models": "download-models",
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
"""Commands by the name of their function; no package has one of these names."""
DATA = {"data", "input", "dataset", "prompts", "eval_data", "judgements", "answers", "baseline"}
"""Options that name data, by a path or, in Python, by the data itself."""


def load_pairs(data: str | Path | Rows, **options: Any) -> list[Preference]:
    """Return the preference pairs of `data`: a file, directory, pattern, run, or name on the hub, or rows in memory.

    `options` are those of reading, such as `limit=100`, `split="test"` or `columns="prompt=question,…"`.
    Errors: `DataError` for rows that are no pairs, unless `max_bad_rows` lets them be skipped.
    """
    with contextlib.ExitStack() as stack:
        place = _place(data, options.get("limit"), stack) if memory.is_rows(data) else Path(str(data))
        return list(reading.load(place, configure(reading.ReadOptions, options)).preferences)


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
        with locks.released(), contextlib.ExitStack() as stack:
            config = configure(module.Config, _with_places(options | given, Options(module.Config), stack))
            inputs.check(config)
            return _finished(module.run(config))

    call.__name__ = call.__qualname__ = name
    call.__module__ = "headwater"
    call.__doc__ = _documentation(module, command, signature)
    call.__signature__ = signature  # type: ignore[attr-defined]
    return call


def _with_places(values: dict[str, Any], options: Options, stack: contextlib.ExitStack) -> dict[str, Any]:
    """Return the values of options with names of places in place of data in memory, which is held until `stack` ends.

    Errors: `UsageError` for objects that hold no rows.
    """
    limit = next((values[word] for word in values if options.names.get(word) == "limit"), None)
    found = dict(values)
    for word, value in values.items():
        option = options.get(options.names.get(word, ""))
        if option is None or not takes_rows(option):
            continue
        if memory.is_rows(value):
            found[word] = _place(value, limit, stack)
        elif option.several and isinstance(value, list | tuple):
            found[word] = [one if isinstance(one, str | Path) else _place(one, limit, stack) for one in value]
        elif value is not None and not isinstance(value, str | Path | list | tuple):
            _place(value, limit, stack)
    return found


def _place(data: Any, limit: int | None, stack: contextlib.ExitStack) -> Path:
    return stack.enter_context(memory.held(data, limit))


def takes_rows(option: Option) -> bool:
    """Return whether a function takes data in memory for an option."""
    return option.kind is Path and option.name in DATA


def _finished(result: Any) -> Any:
    """Return the run that a command wrote, in or beside the path that it returns; other results as they are."""
    if not isinstance(result, Path):
        return result
    home = runs.home_of(result)
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
    kind = kind | Rows if takes_rows(option) else kind
    if option.several:
        kind = Sequence[kind] | Rows if takes_rows(option) else Sequence[kind]
    return kind | None if option.optional else kind


def _documentation(module: Any, command: str, signature: inspect.Signature) -> str:
    """Return a docstring: what the command does, and every parameter with its description."""
    docs = {SHOWN_AS.get(name, name): text for name, text in docs_of(module.Config).items()}
    lines = [str(module.__doc__).strip(), "", f"The same as `headwater {command}`. Errors: `HeadwaterError`.", ""]
    lines += ["Parameters", "----------"]
    for name in signature.parameters:
        lines += [name, textwrap.indent(docs.get(name, ""), "    ")]
    return "\n".join(lines)
