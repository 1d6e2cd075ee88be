"""Figures of training by optimiser step: one line a run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import altair as alt
import numpy as np

from headwater.reporting.findings import distinct, labels
from headwater.reporting.plots.drawing import COLOURS, Block, Mark, Panel, Rows, chart, finish
from headwater.results.runs import Run
from headwater.results.training import Column

MAX_POINTS = 200
MARKED = 12
"""Most evaluations of a run that are drawn as points besides the line."""
STRETCH = 5.0
"""A run whose values span this many times the span of the others has an axis of its own."""


class Quantity(NamedTuple):
    """A column of the training history, with the title of its panel and its axis."""

    column: Column
    title: str
    axis: str
    by_objective: bool = False
    """Whether only runs of the same loss function share a panel."""


def loss_curves(runs: Sequence[Run]) -> list[Block]:
    """Draw the loss of training runs, dashed where it was measured on held-out pairs."""
    return _training(runs, [Quantity(Column.LOSS, "", "Loss (mean of the batch)", by_objective=True)])


def learning_rate(runs: Sequence[Run]) -> list[Block]:
    """Draw the learning rate of training runs."""
    return _training(runs, [Quantity(Column.LEARNING_RATE, "", "Learning rate (per step)")])


def gradient_norms(runs: Sequence[Run]) -> list[Block]:
    """Draw the gradient norm of training runs."""
    return _training(runs, [Quantity(Column.GRADIENT_NORM, "", "Gradient norm")])


def reward_curves(runs: Sequence[Run]) -> list[Block]:
    """Draw what training did to the rewards of the chosen and the rejected response."""
    axis = "Reward (model's own units)"
    return _training(
        runs,
        [
            Quantity(Column.CHOSEN_CHANGE, "Chosen log-probability", "Change from reference (nats)"),
            Quantity(Column.MARGIN, "Margin: chosen − rejected", axis),
            Quantity(Column.ACCURACY, "Chosen rewarded more", "Accuracy (share of pairs)"),
            Quantity(Column.AUC, "Desirable rewarded more", "Area under the ROC curve"),
            Quantity(Column.CHOSEN_REWARD, "Chosen reward", axis),
            Quantity(Column.REJECTED_REWARD, "Rejected reward", axis),
            Quantity(Column.REWARD_SUM, "Sum of both", axis),
        ],
    )


def _training(runs: Sequence[Run], quantities: Sequence[Quantity]) -> list[Block]:
    blocks = []
    for title, colours in _groups(runs):
        by_name = {label: run for label, (run, _) in colours.items()}
        palette = {label: colour for label, (_, colour) in colours.items()}
        panels = [panel for quantity in quantities for panel in _panels(by_name, palette, quantity)]
        drawn = {row["run"] for quantity in quantities for row in _history(by_name, quantity.column)}
        if panels:
            key = [Mark(label, colour) for label, colour in palette.items() if label in drawn]
            blocks.append(Block(title, key, panels))
    return blocks


def _groups(runs: Sequence[Run]) -> Iterator[tuple[str, dict[str, tuple[Run, str]]]]:
    """Yield training runs by command, with a colour each, never more in a group than there are colours.

    A run keeps its colour in every figure, because the groups do not depend on what a figure shows.
    """
    runs = distinct(runs)
    names = labels(runs)
    trained = [run for run in runs if run.history]
    for command in dict.fromkeys(run.command for run in trained):
        members = [run for run in trained if run.command == command]
        for start in range(0, len(members), len(COLOURS)):
            chunk = members[start : start + len(COLOURS)]
            part = f" ({start + 1}–{start + len(chunk)})" if len(members) > len(COLOURS) else ""
            coloured = {names[run.path]: (run, colour) for run, colour in zip(chunk, COLOURS, strict=False)}
            yield command + part, coloured


def _panels(runs: Mapping[str, Run], palette: Mapping[str, str], quantity: Quantity) -> Iterator[Panel]:
    """Yield the panels of a quantity: one, or one an objective; a run that would stretch the axis has its own."""
    kinds = {name: str(run.facts.get("kind", "")) if quantity.by_objective else "" for name, run in runs.items()}
    for kind in dict.fromkeys(kinds.values()):
        rows = _history({name: run for name, run in runs.items() if kinds[name] == kind}, quantity.column)
        apart = _apart(rows)
        objective = kind if len(set(kinds.values())) > 1 else ""
        for names in filter(None, ({row["run"] for row in rows} - apart, *({name} for name in sorted(apart)))):
            own = f"{next(iter(names))}, on its own axis" if names & apart else ""
            title = " · ".join(filter(None, (quantity.title, objective, own)))
            yield _panel([row for row in rows if row["run"] in names], palette, quantity, title)


def _apart(rows: Rows) -> set[str]:
    """Return the runs whose values span more than `STRETCH` times the span of all others together."""
    spans = {name: [row["value"] for row in rows if row["run"] == name] for name in {row["run"] for row in rows}}
    found = set()
    for name, own in spans.items():
        others = [value for other, values in spans.items() if other != name for value in values]
        if others and max(own) - min(own) > STRETCH * max(max(others) - min(others), 1e-12):
            found.add(name)
    return found


def _panel(rows: Rows, palette: Mapping[str, str], quantity: Quantity, title: str) -> Panel:
    last = {row["run"]: row["value"] for row in rows if row["part"] == "training"}
    says = f"{title or quantity.axis} by step; last logged: "
    says += ", ".join(f"{name} {value:.3g}" for name, value in last.items())
    colour = alt.Color("run:N").scale(domain=list(palette), range=list(palette.values())).legend(None)
    dash = alt.StrokeDash("part:N").scale(domain=["training", "held-out"], range=[[1, 0], [4, 3]]).legend(None)
    y = alt.Y("value:Q").title(quantity.axis).scale(zero=False).axis(format=".6~g")
    x = alt.X("step:Q").title("Optimiser step")
    layers = [chart(rows).encode(x=x, y=y, color=colour, strokeDash=dash).mark_line(strokeWidth=1.3)]
    # A line of one evaluation would not be seen.
    held_out = [row for row in rows if row["part"] == "held-out"]
    marked = [row for row in held_out if sum(row["run"] == other["run"] for other in held_out) <= MARKED]
    if marked:
        layers.append(chart(marked).encode(x=x, y=y, color=colour).mark_point(filled=True, size=36, opacity=1))
    return Panel(title, says, finish(layers))


def _history(runs: Mapping[str, Run], column: Column) -> Rows:
    rows = []
    for part, name in (("training", column), ("held-out", column.held_out)):
        for label, run in runs.items():
            points = run.training_history.points(name)
            rows += [{"run": label, "part": part, "step": s, "value": v} for s, v in _thin(points)]
    return rows


def _thin(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Average a long curve in `MAX_POINTS` stretches, so that a page stays small however long the training."""
    if len(points) <= MAX_POINTS:
        return list(points)
    stretches = np.array_split(np.asarray(points, dtype=np.float64), MAX_POINTS)
    return [(float(step), float(value)) for step, value in (stretch.mean(axis=0) for stretch in stretches)]
