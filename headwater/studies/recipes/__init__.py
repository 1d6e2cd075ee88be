"""Run a study that a recipe describes: every cell once, then its tables, figures, answers and checks.

A recipe names commands, their options and the values to repeat them over; recipes/README.md describes it. Every cell
is an ordinary run. The same command, repeated, runs the cells that are missing; a cell that fails does not stop the
others, and neither data nor models are touched before the options of all cells are checked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.table import Table

from headwater.config import POSITIONAL
from headwater.console import duration, say, show, show_line
from headwater.errors import CheckError, UsageError, did_you_mean
from headwater.files import destinations, locks
from headwater.results.study import StudyResult
from headwater.studies.recipes import pages, recipe
from headwater.studies.recipes.cells import Cell, cells_of
from headwater.studies.recipes.measuring import Study, measure
from headwater.studies.recipes.recipe import Need
from headwater.studies.recipes.running import (
    Limits,
    check_needs,
    check_settings,
    chosen,
    failure_of,
    run_cells,
    seconds_of,
    state_of,
)

EXAMPLE = "headwater run shallow-reward --time 30m --write docs/studies"

HELP = {
    "Input": ("recipe", "data", "models"),
    "Output": ("output", "write", "overwrite"),
    "Cells": ("only", "limit_cells", "time", "status", "dry_run"),
}
_TIME = re.compile(r"(\d+(?:\.\d+)?)(s|m|h)")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


@dataclass(frozen=True)
class Config:
    """Flags of `headwater run`."""

    recipe: Annotated[str, POSITIONAL]
    """Recipe to run: a YAML file, or the name of one in recipes/, such as shallow-reward."""
    data: tuple[str, ...] = ()
    """Other places of data, as NAME=PATH, with the names that the recipe gives."""
    models: tuple[str, ...] = ()
    """Other places of models, as NAME=PATH."""
    output: Path | None = None
    """Directory of the study, which holds a run for every cell. Default: runs/RECIPE."""
    write: Path | None = None
    """Folder to write the page, its figures and its numbers to, such as docs/studies."""
    only: str | None = None
    """Pattern of the names of the cells to run, such as "train-*"; what they read is run too."""
    limit_cells: int | None = None
    """Maximum number of cells to run now."""
    time: str | None = None
    """Time after which no cell is begun, such as 30m or 2h."""
    status: bool = False
    """Print which cells are done, and run nothing."""
    dry_run: bool = False
    """Print the command of every cell, and run nothing; neither data nor models need to be there."""
    overwrite: bool = False
    """Run cells again that were run with other settings."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work. Errors: `UsageError`."""
        if self.status and self.dry_run:
            raise UsageError("--status", "has no effect with --dry-run", "leave one out")
        if self.dry_run and self.write:
            raise UsageError("--write", "has no effect with --dry-run", "leave one out")
        if self.limit_cells is not None and self.limit_cells < 0:
            raise UsageError(f"--limit-cells {self.limit_cells}", "expected 0 or more")
        self.limits()

    def limits(self) -> Limits:
        """Return how much to run. Errors: `UsageError`."""
        found = _TIME.fullmatch(self.time.strip()) if self.time is not None else None
        if self.time is not None and found is None:
            raise UsageError(f"--time {self.time}", "is no time", "write 45s, 30m or 2h")
        return Limits(self.only, self.limit_cells, float(found[1]) * _SECONDS[found[2]] if found else None)


def run(config: Config) -> Path:
    """Run the missing cells, write the page and return its path; with --status and --dry-run, the study's directory.

    Errors: `UsageError` for a recipe that cannot work, `CheckError` for figures outside of their intervals, and the
    first error of a cell.
    """
    study = _study(config)
    wanted = chosen(study.cells, config.only)
    if config.dry_run:
        _show_commands(study, wanted)
        return study.output
    failed: list[Exception] = []
    if not config.status:
        check_needs(study.recipe, study.needs)
        destinations.check_directory(study.output)
        locks.hold(study.output)
        check_settings(wanted, study.cells, config.overwrite)
        say(f"{study.recipe.title}: {_counted(wanted, study.cells)}")
        failed = run_cells(wanted, study.cells, config.limits())
    if config.status or failed:
        _show_status(study, wanted)
    if config.status and not config.write:
        return study.output
    result = measure(study)
    page = pages.write(result, config.write or study.output / "page")
    _say_result(result)
    say(f"written: {page}")
    if failed:
        raise failed[0]
    _check(result)
    return page


def _study(config: Config) -> Study:
    """Return the study with all cells, whose options are checked. Errors: `UsageError`."""
    found = recipe.read(recipe.find(config.recipe))
    output = (config.output or Path("runs") / found.name).absolute()
    needs = _places("data", found.data, config.data, found.file)
    needs |= _places("model", found.models, config.models, found.file)
    return Study(found, needs, cells_of(found, needs, output), output)


def _places(kind: str, needs: Mapping[str, Need], given: tuple[str, ...], file: Path) -> dict[str, str]:
    """Return the places of data or models, as `kind:NAME`. Errors: `UsageError`."""
    places = {f"{kind}:{name}": need.where(file) for name, need in needs.items()}
    for text in given:
        name, equals, path = text.partition("=")
        flag = f"--{'data' if kind == 'data' else 'models'} {text}"
        if not equals or not path:
            raise UsageError(flag, "expected NAME=PATH", f"names: {', '.join(needs) or 'none'}")
        if name not in needs:
            raise UsageError(flag, f"the recipe has no {kind} {name}", did_you_mean(name, needs, "it has none"))
        places[f"{kind}:{name}"] = str(Path(path).absolute()) if Path(path).exists() else path
    return places


def _counted(wanted: list[Cell], cells: Mapping[str, Cell]) -> str:
    done = sum(state_of(cell, cells) == "done" for cell in wanted)
    return f"{len(wanted)} cells, {done} done"


def _show_commands(study: Study, wanted: list[Cell]) -> None:
    if study.recipe.note:
        show_line(f"# {study.recipe.note}")
    for cell in wanted:
        show_line(cell.command)


def _show_status(study: Study, wanted: list[Cell]) -> None:
    table = Table("cell", "state", "time", title=f"{study.recipe.title}: {study.output}", title_justify="left")
    for cell in wanted:
        state, seconds = state_of(cell, study.cells), seconds_of(cell)
        told = f"{state}: {failure_of(cell)}" if state == "failed" else state
        table.add_row(cell.name, told, duration(seconds) if seconds is not None else "")
    show(table)
    show(_counted(wanted, study.cells))


def _say_result(result: StudyResult) -> None:
    for claim in result.claims:
        show_line(f"{claim.answer}: {claim.says} {claim.sentence}")
    for check in result.checks:
        value = "–" if check.value is None else f"{check.value.value:.4g}"
        show_line(f"check {check.outcome}: {check.figure} {value}, expected {check.low:g} to {check.high:g}")


def _check(result: StudyResult) -> None:
    """Refuse figures outside of the intervals that the recipe states. Errors: `CheckError`."""
    outside = [check for check in result.checks if check.outcome == "outside"]
    if outside:
        one = outside[0]
        value = "–" if one.value is None else f"{one.value.value:.4g}"
        place = f"{result.name}: {one.figure} of {one.table}"
        more = f" ({len(outside)} of {len(result.checks)} checks fail)" if len(outside) > 1 else ""
        raise CheckError(place, f"is {value}{more}", f"expected {one.low:g} to {one.high:g}", "see the page")
