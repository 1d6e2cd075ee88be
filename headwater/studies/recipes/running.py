"""Running a study: which cells are done, and running those that are not, one after the other."""

from __future__ import annotations

import json
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any, Literal

from headwater.config import flatten
from headwater.console import duration, say, steps
from headwater.errors import HeadwaterError, UsageError
from headwater.files import locks, write_text
from headwater.masking import mask, mask_all
from headwater.results import inputs, runs
from headwater.studies.recipes.cells import Cell, replaced
from headwater.studies.recipes.recipe import Recipe

UNSET = (None, "auto")
"""Values that a command replaces by the one that it chooses."""
State = Literal["done", "missing", "failed", "other settings", "outdated"]


@dataclass(frozen=True)
class Limits:
    """How much of a study to run now."""

    only: str | None = None
    """Pattern of the names of cells, such as `train-*`; what they read is run too."""
    cells: int | None = None
    """Maximum number of cells to run."""
    seconds: float | None = None
    """Time after which no cell is begun."""


def state_of(cell: Cell, cells: Mapping[str, Cell]) -> State:
    """Return the state of a cell.

    A run of other settings is not one of this study. One that is older than a run that it reads is outdated.
    """
    if (cell.home / "done").is_file():
        if not _same_settings(cell):
            return "other settings"
        began = _started(cell)
        newer = any(_started(cells[name]) > began for name in cell.reads if (cells[name].home / "done").is_file())
        return "outdated" if newer else "done"
    return "failed" if cell.failure.is_file() else "missing"


def _same_settings(cell: Cell) -> bool:
    """Say whether a run has the settings of its cell."""
    return not _other_settings(cell)


def _other_settings(cell: Cell) -> list[tuple[str, Any, Any]]:
    """Return the settings in which a run differs from its cell: name, value of the run, value of the cell.

    What is left to the command is filled in by it, and options that its version did not know had their defaults.
    """
    before, now = runs.config_of(cell.home), mask_all(flatten(cell.config), mask)
    told = {name: value for name, value in now.items() if name in before and name != "overwrite"}
    return [(name, before[name], value) for name, value in told.items() if value not in (before[name], *UNSET)]


def _started(cell: Cell) -> str:
    path = cell.home / "environment.json"
    return str(json.loads(path.read_text(encoding="utf-8")).get("started", "")) if path.is_file() else ""


def seconds_of(cell: Cell) -> float | None:
    """Return the wall time of the run of a cell; None where it is not done."""
    done = cell.home / "done"
    return float(json.loads(done.read_text(encoding="utf-8"))["seconds"]) if done.is_file() else None


def chosen(cells: Mapping[str, Cell], only: str | None) -> list[Cell]:
    """Return the cells whose names fit a pattern, and those that they read, in order. Errors: `UsageError` for none."""
    if only is None:
        return list(cells.values())
    wanted = {name for name in cells if fnmatchcase(name, only)}
    if not wanted:
        raise UsageError(f"--only {only}", "fits no cell", f"such as {next(iter(cells))}")
    for name in reversed(list(cells)):  # what a cell reads stands before it
        if name in wanted:
            wanted |= set(cells[name].reads)
    return [cell for name, cell in cells.items() if name in wanted]


def check_settings(cells: Sequence[Cell], every: Mapping[str, Cell], overwrite: bool) -> None:
    """Refuse cells that were run with other settings, unless `overwrite`. Errors: `UsageError`."""
    other = [cell for cell in cells if state_of(cell, every) == "other settings"]
    if not other or overwrite:
        return
    name, before, now = _other_settings(other[0])[0]
    found = f"was run with {name} {before}, and the recipe says {now}"
    more = f" ({len(other)} cells were run with other settings)" if len(other) > 1 else ""
    raise UsageError(str(other[0].output), found + more, "name another --output, or run them again with --overwrite")


def run_cells(cells: Sequence[Cell], every: Mapping[str, Cell], limits: Limits) -> list[Exception]:
    """Run cells in order and return the errors of those that failed; a cell that failed does not stop the others.

    The time of a cell is estimated from those of its step that are done. Errors: `Stopped`.
    """
    began, begun, failed = time.monotonic(), 0, []
    waiting = [cell for cell in cells if state_of(cell, every) != "done"]
    with steps(len(waiting)) as bar:
        for cell in waiting:
            if limits.cells is not None and begun >= limits.cells:
                say(f"--limit-cells {limits.cells} is reached")
                break
            if limits.seconds is not None and time.monotonic() - began >= limits.seconds:
                say(f"--time is over after {duration(time.monotonic() - began)}")
                break
            begun += 1
            with bar.step(f"{cell.name}{_expected(cell, every)}"):
                failed += _attempt(cell, every)
    return failed


def _expected(cell: Cell, every: Mapping[str, Cell]) -> str:
    known = [found for one in every.values() if one.step is cell.step and (found := seconds_of(one))]
    return f" (about {duration(sum(known) / len(known))})" if known else ""


def _attempt(cell: Cell, every: Mapping[str, Cell]) -> list[Exception]:
    """Run a cell; an error is written beside it and returned, so that the other cells run."""
    state = state_of(cell, every)
    try:
        with locks.released():
            _check_read(cell, every)
            config = replaced(cell.config) if state in ("other settings", "outdated") or _changed(cell) else cell.config
            inputs.check(config)
            cell.module().run(config)
    except Exception as error:
        text = str(error) if isinstance(error, HeadwaterError) else traceback.format_exc()
        write_text(cell.failure, text + "\n")
        return [error]
    cell.failure.unlink(missing_ok=True)
    return []


def _changed(cell: Cell) -> bool:
    """Say whether an unfinished run was begun with other settings."""
    return runs.is_unfinished(cell.home) and not runs.begun(cell.home, cell.config)


def _check_read(cell: Cell, every: Mapping[str, Cell]) -> None:
    """Refuse a cell that reads one that is not done. Errors: `UsageError`."""
    for name in cell.reads:
        if state_of(every[name], every) != "done":
            raise UsageError(f"cell {cell.name}", f"reads {name}, which is not done", "see why in its .failed.txt")


def failure_of(cell: Cell) -> str:
    """Return the last line of the error of a cell; empty where there is none."""
    if not cell.failure.is_file():
        return ""
    return cell.failure.read_text(encoding="utf-8").strip().splitlines()[-1]


def check_needs(recipe: Recipe, places: Mapping[str, str]) -> None:
    """Refuse a study whose data or models are not there, all in one message; `places` as in `cells_of`.

    Errors: `UsageError`.
    """
    missing = []
    for kind, needs in (("data", recipe.data), ("model", recipe.models)):
        for name, need in needs.items():
            where = places[f"{kind}:{name}"]
            if need.hub is None and not need.optional and not Path(where).exists():
                missing.append(f"{kind} {name} is not at {where}" + (f" ({need.get})" if need.get else ""))
    if missing:
        fix = "get it, or name another place by --data NAME=PATH or --models NAME=PATH"
        raise UsageError(str(recipe.file), "; ".join(missing), fix)
