"""Many models and many judges, from `compare` runs: how strong each model is, who beat whom, and who agrees."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from itertools import combinations
from typing import Any

import altair as alt

from headwater.report.findings import distinct, estimate, labels, number, with_interval
from headwater.report.plots.drawing import BETTER, GREY, Block, Panel, Rows, chart, finish
from headwater.report.plots.policies import short
from headwater.results.runs import Run
from headwater.statistics import Estimate

Beaten = Mapping[tuple[str, str], float]
"""Share of the votes by model and opponent."""


def strengths(runs: Sequence[Run]) -> list[Block]:
    """Draw the Bradley–Terry strength of three models or more, a panel a judge."""

    def draw(run: Run, judge: str, beaten: Beaten) -> Panel | None:
        models = dict.fromkeys(model for model, _ in beaten)
        found = {model: estimate(run, f"strength/{judge}/{model}") for model in models}
        known = {model: strength for model, strength in found.items() if strength}
        ordered = dict(sorted(known.items(), key=lambda item: -item[1].value))
        return _dots(f"by {short(judge)}", "Strength (logits)", ordered, None) if ordered else None

    return _blocks(runs, draw)


def win_matrices(runs: Sequence[Run]) -> list[Block]:
    """Draw the share of votes of every model against every other, of three models or more, a panel a judge."""

    def draw(run: Run, judge: str, beaten: Beaten) -> Panel | None:
        models = list(dict.fromkeys(model for model, _ in beaten))
        return _matrix(judge, models, beaten) if len(models) > 2 else None

    return _blocks(runs, draw)


def judge_agreement(runs: Sequence[Run]) -> list[Block]:
    """Draw Cohen's κ and the rank correlation of every two judges, a block a run."""
    names = labels(distinct(runs))
    blocks = []
    for run in distinct(runs):
        pairs = list(combinations(_matrices(run), 2))
        panels = []
        for figure, axis in (("kappa", "Cohen's κ"), ("rank", "Rank correlation of preferences")):
            found = {_pair(pair): estimate(run, f"{figure}/{' ~ '.join(pair)}") for pair in pairs}
            known = {pair: value for pair, value in found.items() if value}
            panels += [_dots(axis, axis, known, [-1.0, 1.0])] if known else []
        if panels:
            blocks.append(Block(names[run.path], [], panels))
    return blocks


def _pair(judges: tuple[str, str]) -> str:
    return " ~ ".join(map(short, judges))


def _matrices(run: Run) -> dict[str, dict[tuple[str, str], float]]:
    """Return who beat whom by judge; nothing for a run of another command."""
    path = run.path / "comparison.json"
    rows = json.loads(path.read_text(encoding="utf-8")).get("win_matrix", []) if path.is_file() else []
    found: dict[str, dict[tuple[str, str], float]] = {}
    for row in rows:
        found.setdefault(row["judge"], {})[row["model"], row["opponent"]] = row["share"]
    return found


def _blocks(runs: Sequence[Run], draw: Callable[[Run, str, Beaten], Panel | None]) -> list[Block]:
    names = labels(distinct(runs))
    blocks = []
    for run in distinct(runs):
        panels = [panel for judge, beaten in _matrices(run).items() if (panel := draw(run, judge, beaten))]
        if panels:
            blocks.append(Block(names[run.path], [], panels))
    return blocks


def _dots(title: str, axis: str, found: Mapping[str, Estimate], domain: list[float] | None) -> Panel:
    """Draw a figure a row, with its interval where there is one."""
    rows: Rows = [{"name": name, **value._asdict()} for name, value in found.items()]
    scale = alt.Scale(domain=domain) if domain else alt.Scale(zero=True)
    y = alt.Y("name:N").title(None).sort(list(found)).axis(labelLimit=150, labelPadding=8, ticks=False)
    bounded = chart([row for row in rows if row["low"] is not None]).encode(y=y)
    layers: list[Any] = [
        chart([{"x": 0}]).mark_rule(color=GREY, strokeDash=[2, 3]).encode(x="x:Q"),
        bounded.mark_rule(color=BETTER, strokeWidth=1.5).encode(x=alt.X("low:Q", scale=scale), x2="high:Q"),
        chart(rows)
        .mark_point(color=BETTER, filled=True, size=48, opacity=1)
        .encode(y=y, x=alt.X("value:Q", scale=scale).title(axis)),
    ]
    says = "; ".join(f"{name} {with_interval(value)}, n {value.n}" for name, value in found.items())
    return Panel(title, says, finish(layers, height=50 + 22 * len(rows)))


def _matrix(judge: str, models: Sequence[str], beaten: Beaten) -> Panel:
    rows: Rows = [
        {"model": model, "opponent": opponent, "share": share, "text": f"{share:.2f}"}
        for (model, opponent), share in beaten.items()
    ]
    base = chart(rows).encode(
        x=alt.X("opponent:N").title("Opponent").sort(models).axis(labelAngle=-30, labelLimit=90, ticks=False),
        y=alt.Y("model:N").title(None).sort(models).axis(labelLimit=110, ticks=False),
    )
    shade = alt.Opacity("share:Q").scale(domain=[0, 1], range=[0.02, 0.3]).legend(None)
    layers = [base.mark_rect(color=BETTER).encode(opacity=shade), base.mark_text(color=GREY).encode(text="text:N")]
    says = "; ".join(f"{row['model']} against {row['opponent']} {number(row['share'])}" for row in rows)
    return Panel(f"by {short(judge)}", says, finish(layers, height=90 + 26 * len(models)))
