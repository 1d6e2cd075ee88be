"""The Python interface: every command as a function that takes the command's options as keyword arguments."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import itertools
import textwrap
from collections.abc import Callable, Sequence
from dataclasses import MISSING
from os import PathLike
from pathlib import Path
from typing import Any

from headwater.cli import COMMANDS
from headwater.config import configure
from headwater.config.help import docs_of
from headwater.config.options import MODELS, SHOWN_AS, Option, Options
from headwater.data.reading import memory
from headwater.data.reading.memory import Rows
from headwater.files import caches, locks
from headwater.interface import given
from headwater.interface.pairs import Pairs
from headwater.interface.result import Result
from headwater.results import inputs, runs

FUNCTIONS = {
    "download_models": "download-models",
    "inspect": "inspect",
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
    "signal": "signal",
    "sweep": "sweep",
    "divergence": "divergence",
    "decode": "decode",
    "frontier": "frontier",
    "lens": "lens",
    "report": "report",
}
"""Commands by the name of their function."""
DATA = {"data", "input", "dataset", "prompts", "eval_data", "judgements", "answers", "baseline"}
"""Options that name data, by a path or, in Python, by the data itself."""
IN_ORDER = ("data", "model")
"""Options that are positional in Python even where a command has a default for them, behind the required ones."""


def load_run(path: str | Path | Result) -> Result:
    """Return a finished run: its settings, metrics, history, records and figures. Errors: `UsageError`."""
    return Result(runs.load(Path(path)))


def function(name: str) -> Callable[..., Any]:
    """Return the function of a command, whose signature and documentation are made from the command's options."""
    command = FUNCTIONS[name]
    module = importlib.import_module(COMMANDS[command].module)
    signature = _signature(module.Config)

    def call(*arguments: Any, **options: Any) -> Any:
        arguments = _together(arguments, module.Config)
        named = {key: value for key, value in options.items() if key in signature.parameters}
        given = signature.bind_partial(*arguments, **named).arguments
        with locks.released(), contextlib.ExitStack() as stack:
            values = _with_names(options | given, Options(module.Config), stack)
            config = configure(module.Config, _with_output(command, values, Options(module.Config)))
            inputs.check(config)
            return _finished(module.run(config))

    call.__name__ = call.__qualname__ = name
    call.__module__ = "headwater"
    call.__doc__ = _documentation(module, command, signature)
    call.__signature__ = signature  # type: ignore[attr-defined]
    return call


def _together(arguments: tuple[Any, ...], config_class: type[Any]) -> tuple[Any, ...]:
    """Return positional arguments, those of `report(first, second)` as one list: its one required option takes many."""
    required = [option for option in Options(config_class).values() if _is_required(option)]
    if len(arguments) > 1 and len(required) == 1 and required[0].several:
        return ([*arguments],)
    return arguments


def _with_names(values: dict[str, Any], options: Options, stack: contextlib.ExitStack) -> dict[str, Any]:
    """Return the values of options with names in place of objects, which are held until `stack` ends.

    Results are named by their directories, models in memory by the folders that they are saved in, data and losses in
    memory by names of their own. Errors: `UsageError` for objects that stand for nothing of the kind.
    """
    limit = next((values[word] for word in values if options.names.get(word) == "limit"), None)
    found = dict(values)
    for word, value in values.items():
        option = options.get(options.names.get(word, ""))
        if option is None or value is None:
            continue
        if option.name in MODELS:
            found[word] = _model(value, option)
        elif option.name == "loss" and not isinstance(value, str):
            found[word] = stack.enter_context(given.held_loss(value))
        elif takes_rows(option):
            found[word] = _data(value, option, limit, stack)
            if "turns" in options and memory.has_turns(value):  # they were read so
                found.setdefault("turns", "whole")
        elif option.kind is Path:
            found[word] = [*map(given.name_of, value)] if isinstance(value, list | tuple) else given.name_of(value)
    return found


def _model(value: Any, option: Option) -> Any:
    if option.several and isinstance(value, list | tuple) and not given.is_model(value):
        return [_model(one, option) for one in value]
    value = given.name_of(value)
    return value if isinstance(value, str | Path) else given.place_of(value)


def _data(value: Any, option: Option, limit: int | None, stack: contextlib.ExitStack) -> Any:
    value = given.name_of(value)
    if isinstance(value, Pairs):
        return stack.enter_context(memory.held(value, limit, value.facts))
    if memory.is_rows(value) or not isinstance(value, str | Path | list | tuple):
        return stack.enter_context(memory.held(value, limit))
    if option.several and isinstance(value, list | tuple):
        return [_data(one, option, limit, stack) for one in value]
    return value


def _with_output(command: str, values: dict[str, Any], options: Options) -> dict[str, Any]:
    """Return the values with a free directory under `runs` as output, where the command needs one and none is given.

    A model in memory has no directory beside which a result could lie.
    """
    output = options.get("output")
    if output is None or any(options.names.get(word) == "output" for word in values):
        return values
    cache = str(caches.home() / "models")
    of_cache = any(str(value).startswith(cache) for word, value in values.items() if options.names.get(word) in MODELS)
    if output.default is not MISSING and not (of_cache and output.default is None):
        return values
    names = (Path("runs") / (command if n == 1 else f"{command}-{n}") for n in itertools.count(1))
    return values | {"output": next(name for name in names if not name.exists())}


def takes_rows(option: Option) -> bool:
    """Return whether a function takes data in memory for an option."""
    return option.kind is Path and option.name in DATA


def _finished(result: Any) -> Any:
    """Return the run that a command wrote, in or beside the path that it returns; other results as they are."""
    if not isinstance(result, Path):
        return result
    home = runs.home_of(result)
    return Result(runs.load(home)) if (home / "done").is_file() else result


def _is_required(option: Option) -> bool:
    """Return whether a function cannot be called without an option; a missing output is named by the function."""
    return option.default is MISSING and option.name != "output"


def _signature(config_class: type[Any]) -> inspect.Signature:
    """Return the parameters of a command: required positional options, data and model, then all others by keyword."""
    found = []
    for option in Options(config_class).values():
        shown, required = SHOWN_AS.get(option.name, option.name), _is_required(option)
        positional = (option.positional and required) or shown in IN_ORDER
        default = None if option.default is MISSING else option.default
        found.append(
            inspect.Parameter(
                shown,
                inspect.Parameter.POSITIONAL_OR_KEYWORD if positional else inspect.Parameter.KEYWORD_ONLY,
                default=inspect.Parameter.empty if required else default,
                annotation=_annotation(option),
            )
        )
    return inspect.Signature(sorted(found, key=_place_of))


def _place_of(parameter: inspect.Parameter) -> tuple[Any, ...]:
    """Return the key of the order of parameters: positional ones first, of these the required ones."""
    in_order = IN_ORDER.index(parameter.name) if parameter.name in IN_ORDER else len(IN_ORDER)
    has_default = parameter.default is not parameter.empty
    positional = parameter.kind is parameter.POSITIONAL_OR_KEYWORD
    return (not positional, has_default, in_order if positional and has_default else 0)


def _annotation(option: Option) -> Any:
    """Return the type that a function takes for an option: paths as text too, several values as a sequence."""
    kind: Any = str | PathLike[str] if option.kind is Path or option.name in MODELS else option.kind
    kind = kind | Rows if takes_rows(option) else kind
    kind = kind | tuple[Any, Any] if option.name in MODELS else kind
    kind = kind | Callable[..., Any] if option.name == "loss" else kind
    if option.several:
        kind = Sequence[kind] | Rows if takes_rows(option) else Sequence[kind]
    return kind | None if option.optional or (option.name == "output" and option.default is MISSING) else kind


def _documentation(module: Any, command: str, signature: inspect.Signature) -> str:
    """Return a docstring: what the command does, and every parameter with its description."""
    docs = {SHOWN_AS.get(name, name): text for name, text in docs_of(module.Config).items()}
    lines = [str(module.__doc__).strip(), "", f"The same as `headwater {command}`. Errors: `HeadwaterError`.", ""]
    lines += [
        "Data may be a path, `Pairs`, rows, a data frame or a data set; a model, a path, a name or (model, tokenizer).",
        "A result stands for its run. Without an output, the run is a new directory under `runs`.",
        "",
    ]
    lines += ["Parameters", "----------"]
    for name in signature.parameters:
        lines += [name, textwrap.indent(docs.get(name, ""), "    ")]
    return "\n".join(lines)
