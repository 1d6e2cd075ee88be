"""The result of a study from its finished cells: tables, answers to claims, checks and figures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from headwater.results import runs
from headwater.results.study import StudyCell, StudyResult, StudyStep
from headwater.studies.recipes import claims, patterns
from headwater.studies.recipes.cells import Cell
from headwater.studies.recipes.finished import Finished, FinishedCells
from headwater.studies.recipes.recipe import Need, Recipe
from headwater.studies.recipes.running import seconds_of, state_of

VERSIONS = ("headwater", "python", "torch", "transformers")
"""Packages whose versions a page shows."""


@dataclass(frozen=True)
class Study:
    """A recipe with its cells, and the places of data and models as `data:NAME` and `model:NAME`."""

    recipe: Recipe
    needs: Mapping[str, str]
    cells: Mapping[str, Cell]
    output: Path

    def finished(self) -> FinishedCells:
        """Return the finished cells."""
        found = {
            name: Finished(name, cell.step.cell, cell.values, runs.load(cell.home))
            for name, cell in self.cells.items()
            if state_of(cell, self.cells) == "done"
        }
        totals: dict[str, int] = {}
        for cell in self.cells.values():
            totals[cell.step.cell] = totals.get(cell.step.cell, 0) + 1
        return FinishedCells(found, totals, self.recipe.values, self.needs)


def measure(study: Study) -> StudyResult:
    """Return the result of the cells that are done. Errors: `UsageError` for claims that no table can answer."""
    recipe, finished = study.recipe, study.finished()
    tables = {table.title: table for table in recipe.tables}
    measured = {title: table.measured(finished) for title, table in tables.items()}
    ran = [cell.run for cell in finished.cells.values()]
    days = sorted(str(run.environment.get("started", ""))[:10] for run in ran)
    answers = [
        answer
        for claim in recipe.claims
        for answer in claims.answered(claim, tables[claim.table], measured[claim.table], finished)
    ]
    return StudyResult(
        name=recipe.name,
        title=recipe.title,
        question=recipe.question,
        source=recipe.source,
        note=recipe.note,
        values=recipe.values,
        needs={f"{kind} {name}": _as_written(need) for kind, needs in _kinds(recipe) for name, need in needs.items()},
        steps=tuple(_steps(study, finished)),
        cells=tuple(_cell(cell, study.cells) for cell in study.cells.values()),
        tables=tuple(measured.values()),
        claims=tuple(answers),
        checks=tuple(claims.checked(check, measured[check.table]) for check in recipe.checks),
        figures=tuple(figure.drawn(measured, finished) for figure in recipe.figures),
        published=recipe.published,
        machines=tuple(sorted({_machine(run) for run in ran})),
        versions={name: ", ".join(found) for name in VERSIONS if (found := _versions(ran, name))},
        first=days[0] if days else "",
        last=days[-1] if days else "",
    )


def _kinds(recipe: Recipe) -> tuple[tuple[str, Mapping[str, Need]], ...]:
    return ("data", recipe.data), ("model", recipe.models)


def _as_written(need: Need) -> str:
    return str(need.path if need.hub is None else f"{need.hub} on the hub")


def _steps(study: Study, finished: FinishedCells) -> list[StudyStep]:
    found = []
    for step in study.recipe.steps:
        names = patterns.names_in(step.cell)
        found.append(
            StudyStep(
                cell=step.cell,
                command=step.command,
                options={key: ", ".join(one.text() for one in node.items()) for key, node in step.options.items()},
                values={name: step.values.get(name, study.recipe.values.get(name, ())) for name in names},
                cells=finished.total([step.cell]),
                done=len(finished.of([step.cell])),
            )
        )
    return found


def _cell(cell: Cell, cells: Mapping[str, Cell]) -> StudyCell:
    state = state_of(cell, cells)
    return StudyCell(
        name=cell.name, command=cell.step.command, state=state, seconds=seconds_of(cell) if state == "done" else None
    )


def _machine(run: runs.Run) -> str:
    machine = run.environment.get("machine", {})
    model = machine.get("model") or machine.get("processor", "unknown processor")
    return f"{model}, {machine.get('cpus')} CPUs, {machine.get('system')}"


def _versions(ran: list[runs.Run], name: str) -> list[str]:
    return sorted({str(found) for run in ran if (found := run.environment.get("versions", {}).get(name))})
