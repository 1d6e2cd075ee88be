"""Many models and many judges, from `compare` runs: strengths of models, win matrices, agreement of judges."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any

import altair as alt

from headwater.reporting.findings import distinct, labels, number, with_interval
from headwater.reporting.plots.drawing import CHOSEN, GREY, Block, Panel, Rows, chart, finish
from headwater.reporting.plots.policies import short
from headwater.results.comparison import ComparisonTables, JudgedFigures, JudgesFigure
from headwater.results.runs import Run
from headwater.statistics import Estimate

Shares = Mapping[tuple[str, str], float]
"""Share of the votes by model and opponent."""
AGREEMENT: dict[JudgesFigure, str] = {"kappa": "Cohen's κ", "rank": "Rank correlation of preferences"}
"""Axes by figure."""


def strengths(runs: Sequence[Run]) -> list[Block]:
    """Draw the Bradley–Terry strength of three models or more, a panel a judge."""

    def draw(figures: JudgedFigures, judge: str, shares: Shares) -> Panel | None:
        models = dict.fromkeys(model for model, _ in shares)
        found = {model: figures.of_model("strength", judge, model) for model in models}
        known = {model: strength for model, strength in found.items() if strength}
        ordered = dict(sorted(known.items(), key=lambda item: -item[1].value))
        return _dots(f"by {short(judge)}", "Strength (logits)", ordered, None) if ordered else None

    return _blocks(runs, draw)


def win_matrices(runs: Sequence[Run]) -> list[Block]:
    """Draw the share of votes of every model against every other, of three models or more, a panel a judge."""

    def draw(figures: JudgedFigures, judge: str, shares: Shares) -> Panel | None:
        models = list(dict.fromkeys(model for model, _ in shares))
        return _matrix(judge, models, shares) if len(models) > 2 else None

    return _blocks(runs, draw)


def judge_agreement(runs: Sequence[Run]) -> list[Block]:
    """Draw Cohen's κ and the rank correlation of every two judges, a block a run."""
    names = labels(distinct(runs))
    blocks = []
    for run, figures, matrices in _compared(runs):
        panels = []
        for figure, axis in AGREEMENT.items():
            found = {_pair(pair): figures.of_judges(figure, pair) for pair in combinations(matrices, 2)}
            known = {pair: value for pair, value in found.items() if value}
            panels += [_dots(axis, axis, known, [-1.0, 1.0])] if known else []
        if panels:
            blocks.append(Block(names[run.path], [], panels))
    return blocks


def _pair(judges: tuple[str, str]) -> str:
    return " ~ ".join(map(short, judges))


def _compared(runs: Sequence[Run]) -> Iterator[tuple[Run, JudgedFigures, dict[str, Shares]]]:
    """Yield the runs of `compare`, each with its figures and the win matrix of every judge."""
    for run in distinct(runs):
        tables = ComparisonTables.find(run.path)
        found: dict[str, dict[tuple[str, str], float]] = {}
        for one in tables.win_matrix if tables else ():
            found.setdefault(one.judge, {})[one.model, one.opponent] = one.share
        if found:
            yield run, JudgedFigures.find(run.path) or JudgedFigures({}), dict(found)


def _blocks(runs: Sequence[Run], draw: Callable[[JudgedFigures, str, Shares], Panel | None]) -> list[Block]:
    names = labels(distinct(runs))
    blocks = []
    for run, figures, matrices in _compared(runs):
        panels = [panel for judge, shares in matrices.items() if (panel := draw(figures, judge, shares))]
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
        bounded.mark_rule(color=CHOSEN, strokeWidth=1.5).encode(x=alt.X("low:Q", scale=scale), x2="high:Q"),
        chart(rows)
        .mark_point(color=CHOSEN, filled=True, size=48, opacity=1)
        .encode(y=y, x=alt.X("value:Q", scale=scale).title(axis)),
    ]
    says = "; ".join(f"{name} {with_interval(value)}, n {value.n}" for name, value in found.items())
    return Panel(title, says, finish(layers, height=50 + 22 * len(rows)))


def _matrix(judge: str, models: Sequence[str], shares: Shares) -> Panel:
    rows: Rows = [
        {"model": model, "opponent": opponent, "share": share, "text": f"{share:.2f}"}
        for (model, opponent), share in shares.items()
    ]
    base = chart(rows).encode(
        x=alt.X("opponent:N").title("Opponent").sort(models).axis(labelAngle=-30, labelLimit=90, ticks=False),
        y=alt.Y("model:N").title(None).sort(models).axis(labelLimit=110, ticks=False),
    )
    shade = alt.Opacity("share:Q").scale(domain=[0, 1], range=[0.02, 0.3]).legend(None)
    layers = [base.mark_rect(color=CHOSEN).encode(opacity=shade), base.mark_text(color=GREY).encode(text="text:N")]
    says = "; ".join(f"{row['model']} against {row['opponent']} {number(row['share'])}" for row in rows)
    return Panel(f"by {short(judge)}", says, finish(layers, height=90 + 26 * len(models)))
