"""Cells of a study: every command with its options, checked before the first of them runs."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headwater.config import configure
from headwater.config.options import Options, as_flag
from headwater.config.yaml_trees import Node
from headwater.errors import HeadwaterError, UsageError, did_you_mean
from headwater.studies.recipes import patterns
from headwater.studies.recipes.recipe import Recipe, Step

COMMANDS = (
    "inspect",
    "preprocess",
    "sample",
    "select",
    "train-sft",
    "train-reward",
    "train-dpo",
    "evaluate",
    "score",
    "generate",
    "judge",
    "compare",
    "reward-bench",
    "signal",
    "divergence",
    "decode",
    "frontier",
)
"""Commands that can be steps: those that write a run."""
STEPS = {name: f"headwater.commands.{name.replace('-', '_')}" for name in COMMANDS}
STEPS["fold"] = "headwater.studies.recipes.folds"
STEPS["align-anything"] = "headwater.studies.recipes.align_anything"
"""Modules of steps by name; those that are no commands are made by recipes alone."""
SUMMARY = "summary"
"""Run of a command whose output is a directory of runs."""


@dataclass(frozen=True)
class Cell:
    """One run of one command."""

    name: str
    step: Step
    values: Mapping[str, str]
    config: Any
    """The `Config` of its command."""
    command: str
    """The command as one would type it."""
    reads: tuple[str, ...]
    """Names of the cells whose runs it reads."""

    @property
    def output(self) -> Path:
        """What the command is told to write."""
        found: Path = self.config.output
        return found

    @property
    def home(self) -> Path:
        """Directory of its run."""
        return self.output / SUMMARY if self.step.command == "frontier" else self.output

    @property
    def failure(self) -> Path:
        """File of the error with which it ended."""
        return self.output.with_name(f"{self.output.name}.failed.txt")

    def module(self) -> Any:
        """Return the module of its command."""
        return _module(self.step)


def cells_of(recipe: Recipe, needs: Mapping[str, str], output: Path) -> dict[str, Cell]:
    """Return the cells of a study by name, in the order in which they run.

    `needs` are the paths of data and models, as `data:NAME` and `model:NAME`. All options are converted and checked
    by the `Config` of their command. Errors: `UsageError`, with the line of the recipe.
    """
    named = {}
    for step in recipe.steps:
        _check_step(step, recipe)
        for values in _combinations(step, recipe):
            name = patterns.directory(patterns.with_values(step.cell, values, step.place))
            if name in named:
                raise UsageError(step.place, f"{name} is the name of two cells", "name the values that differ")
            named[name] = (step, values)
    cells = {
        name: _Filler(recipe, needs, output, set(named)).cell(name, step, values)
        for name, (step, values) in named.items()
    }
    return {name: cells[name] for name in _ordered(cells, list(recipe.values))}


def _check_step(step: Step, recipe: Recipe) -> None:
    """Refuse a command that is no step, and values that the study or the step does not have. Errors: `UsageError`."""
    if step.command not in STEPS:
        raise UsageError(step.place, f"unknown command {step.command}", did_you_mean(step.command, STEPS))
    names = patterns.names_in(step.cell)
    for name in (*step.values, *names):
        if name not in {**recipe.values, **step.values}:
            raise UsageError(step.place, f"{{{name}}} has no values", did_you_mean(name, recipe.values))
    unused = next((name for name in step.values if name not in names), None)
    if unused:
        raise UsageError(step.place, f"{unused} has values, but no place in {step.cell}", f"write {{{unused}}} there")


def _combinations(step: Step, recipe: Recipe) -> Iterator[dict[str, str]]:
    names = patterns.names_in(step.cell)
    lists = [step.values.get(name, recipe.values.get(name, ())) for name in names]
    for values in itertools.product(*lists):
        yield dict(zip(names, values, strict=True))


def _ordered(cells: Mapping[str, Cell], names: Sequence[str]) -> list[str]:
    """Return the names of cells by the values of the study, the first value slowest, each behind what it reads.

    A cell without a value comes first, so that a study that is stopped has all steps of its first values.
    """
    steps = list(dict.fromkeys(cell.step.cell for cell in cells.values()))
    places: dict[str, dict[str, int]] = {name: {} for name in names}
    for cell in cells.values():
        for name, value in cell.values.items():
            places.setdefault(name, {}).setdefault(value, len(places[name]))

    def key(name: str) -> tuple[int, ...]:
        own = cells[name]
        return (*(places[each].get(own.values.get(each, ""), -1) for each in places), steps.index(own.step.cell))

    ordered: dict[str, None] = {}

    def add(name: str, behind: tuple[str, ...]) -> None:
        if name in behind:
            raise UsageError(cells[name].step.place, f"{name} reads itself, by way of {', '.join(behind)}")
        for read in cells[name].reads:
            if read not in ordered:
                add(read, (*behind, name))
        ordered.setdefault(name)

    for name in sorted(cells, key=key):
        add(name, ())
    return list(ordered)


def _module(step: Step) -> Any:
    return importlib.import_module(STEPS[step.command])


@dataclass(frozen=True)
class _Filler:
    """Fills in the options of cells."""

    recipe: Recipe
    needs: Mapping[str, str]
    output: Path
    names: set[str]
    """Names of all cells."""

    def cell(self, name: str, step: Step, values: Mapping[str, str]) -> Cell:
        """Return a cell with its options converted and checked. Errors: `UsageError`."""
        reads: dict[str, None] = {}
        options = {key: self._texts(node, values, reads) for key, node in step.options.items()}
        config = self._config(name, step, options)
        shown = []
        for key, texts in options.items():
            shown += _as_arguments(as_flag(key), texts, Options(type(config))[Options(type(config)).names[key]].kind)
        shown += ["--output", str(self.output / name)]
        program = "headwater" if step.command in COMMANDS else "# a step of recipes:"
        command = f"{program} {step.command} {shlex.join(_from_here(one) for one in shown)}"
        return Cell(name, step, dict(values), config, command, tuple(reads))

    def _texts(self, node: Node, values: Mapping[str, str], reads: dict[str, None]) -> tuple[str, ...]:
        """Return the values of an option; the cells that they name are added to `reads`."""

        def place_of(kind: str, name: str) -> str:
            if kind not in ("run", "cell"):
                if f"{kind}:{name}" not in self.needs:
                    fix = did_you_mean(name, self.recipe.data if kind == "data" else self.recipe.models)
                    raise UsageError(node.place, f"{{{kind}:{name}}} is not declared", fix)
                return self.needs[f"{kind}:{name}"]
            cell = patterns.directory(name)
            if cell not in self.names:
                raise UsageError(node.place, f"{{{kind}:{name}}} is no cell", did_you_mean(cell, sorted(self.names)))
            reads.setdefault(cell)
            return str(self.output / cell) if kind == "run" else cell

        filled = (patterns.with_values(item.text(), values, item.place) for item in node.items())
        return tuple(patterns.with_places(text, place_of) for text in filled)

    def _config(self, name: str, step: Step, options: Mapping[str, tuple[str, ...]]) -> Any:
        config_class = _module(step).Config
        known = Options(config_class)
        values: dict[str, Any] = {"output": self.output / name}
        for key, texts in options.items():
            place = step.options[key].place
            if key not in known.names:
                raise UsageError(place, f"{step.command} has no option {key}", did_you_mean(key, known))
            option = known[known.names[key]]
            if option.name in values:
                own = "is set by the study" if option.name == "output" else "is given twice"
                raise UsageError(place, f"{key} {own}", "leave it out")
            if len(texts) != 1 and not option.several:
                raise UsageError(place, f"{key} holds a list", "expected one value")
            written = tuple(text.capitalize() for text in texts) if option.kind is bool else texts
            values[option.name] = option.convert(written, f"{place} · {key}: ")
        try:
            return configure(config_class, values)
        except HeadwaterError as error:
            raise UsageError(step.place, f"cell {name}", str(error)) from error


def _as_arguments(flag: str, texts: Sequence[str], kind: Any) -> list[str]:
    """Return the arguments that give an option its values."""
    if kind is bool:
        return [flag if texts == ("true",) else flag.replace("--", "--no-", 1)]
    if len(texts) == 1 and texts[0].startswith("-"):
        return [f"{flag}={texts[0]}"]
    return [flag, *texts]


def _from_here(argument: str) -> str:
    """Return a path beneath the working folder without it, as one would type it."""
    here = f"{Path.cwd()}{os.sep}"
    return argument.replace(here, "")


def replaced(config: Any) -> Any:
    """Return a config that replaces an earlier run, where its command can."""
    return dataclasses.replace(config, overwrite=True) if hasattr(config, "overwrite") else config
