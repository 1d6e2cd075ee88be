"""Models under judges, from `compare` runs: win rates, score differences, scores of both sides, gain by length."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import altair as alt
import numpy as np

from headwater.reporting.findings import CHANCE, distinct, labels, number, with_interval
from headwater.reporting.plots.drawing import CHOSEN, COLOURS, GREY, REJECTED, Block, Floats, Mark, Panel, chart, finish
from headwater.results.comparison import ComparedAnswers, ComparedPrompts, JudgedFigures, ModelFigure
from headwater.results.runs import Run

BINS = 24
POINTS = 300
"""Maximum number of points of a scatter plot."""
OUTLIERS = 60
"""Most points beyond the whiskers of a box."""
KINDS: dict[ModelFigure, str] = {"win_rate": "win rate", "lc_win_rate": "at equal length"}


class JudgedModel(NamedTuple):
    """The comparisons of one model with the baseline by one judge."""

    judge: str
    model: str
    baseline: str
    rows: list[ComparedAnswers]

    def scores(self) -> Floats:
        """Return the scores of model and baseline, [n, 2]; comparisons without scores are left out."""
        found = [(row.model_score, row.baseline_score) for row in self.rows]
        return np.array([pair for pair in found if None not in pair], dtype=np.float64).reshape(-1, 2)

    def score_differences(self) -> Floats:
        """Return the model's score less the baseline's, [n]."""
        return -np.diff(self.scores()).reshape(-1)

    def length_differences(self) -> Floats:
        """Return the model's length less the baseline's, [n]; comparisons without answers are left out."""
        found = [(row.model_length, row.baseline_length) for row in self.rows]
        return np.array([m - b for m, b in found if m is not None and b is not None], dtype=np.float64)


def win_rates(runs: Sequence[Run]) -> list[Block]:
    """Draw the win rate of every model with its interval, a panel a judge: the policy × judge matrix."""
    names = labels(distinct(runs))
    blocks = []
    for run, judged in _compared(runs):
        figures = JudgedFigures.read(run.path)
        panels = [_rates(figures, judge, [one for one in judged if one.judge == judge]) for judge in _judges(judged)]
        key = [Mark(KINDS["win_rate"], COLOURS[0])]
        if any(figures.of_model("lc_win_rate", one.judge, one.model) for one in judged):
            key.append(Mark(KINDS["lc_win_rate"], COLOURS[1]))
        blocks.append(Block(f"{names[run.path]}: against {judged[0].baseline}", key, panels))
    return blocks


def score_differences(runs: Sequence[Run]) -> list[Block]:
    """Draw the distribution of score differences, model less baseline, a panel a judge and model."""
    return _blocks(runs, lambda one: _histogram(one) if len(one.score_differences()) else None)


def policy_scores(runs: Sequence[Run]) -> list[Block]:
    """Draw the quartiles of both sides' scores, a panel a judge and model; scales of judges differ."""
    return _blocks(
        runs,
        lambda one: _boxes(one) if len(one.score_differences()) else None,
        [Mark("model", CHOSEN), Mark("baseline", REJECTED)],
    )


def length_and_gain(runs: Sequence[Run]) -> list[Block]:
    """Draw the gain against the difference in length, a panel a judge and model."""
    return _blocks(runs, lambda one: _scatter(one) if len(one.length_differences()) else None)


def _compared(runs: Sequence[Run]) -> Iterator[tuple[Run, list[JudgedModel]]]:
    for run in distinct(runs):
        found = ComparedPrompts.find(run.path) if run.command == "compare" else None
        groups: dict[tuple[str, str], list[ComparedAnswers]] = {}
        for row in found.records if found else ():
            groups.setdefault((row.judge, row.model), []).append(row)
        if groups:
            yield run, [JudgedModel(judge, model, rows[0].baseline, rows) for (judge, model), rows in groups.items()]


def _judges(judged: Sequence[JudgedModel]) -> list[str]:
    return list(dict.fromkeys(one.judge for one in judged))


def _blocks(runs: Sequence[Run], draw: Callable[[JudgedModel], Panel | None], key: Sequence[Mark] = ()) -> list[Block]:
    names = labels(distinct(runs))
    blocks = []
    for run, judged in _compared(runs):
        panels = [panel for one in judged if (panel := draw(one))]
        if panels:
            blocks.append(Block(names[run.path], list(key), panels))
    return blocks


def _title(one: JudgedModel) -> str:
    return f"{one.model}, by {short(one.judge)}"


def short(judge: str) -> str:
    """Return a judge's name without the directory that a model lies in."""
    kind, colon, model = judge.partition(":")
    return kind + colon + model.rstrip("/").rpartition("/")[2] if colon else judge.rstrip("/").rpartition("/")[2]


def _rates(figures: JudgedFigures, judge: str, judged: Sequence[JudgedModel]) -> Panel:
    rows, says = [], []
    for one in judged:
        for kind, name in KINDS.items():
            found = figures.of_model(kind, judge, one.model)
            if found:
                low, high = (found.value if end is None else end for end in (found.low, found.high))
                rows.append({"model": one.model, "kind": name, "value": found.value, "low": low, "high": high})
                says.append(f"{one.model} {name} {with_interval(found)}, n {found.n}")
    colours = alt.Scale(domain=list(KINDS.values()), range=list(COLOURS[: len(KINDS)]))
    base = chart(rows).encode(
        y=alt.Y("model:N").title(None).sort([one.model for one in judged]).axis(labelLimit=120, ticks=False),
        yOffset=alt.YOffset("kind:N").sort(list(KINDS.values())).scale(paddingOuter=0.3),
        color=alt.Color("kind:N", scale=colours).legend(None),
    )
    x = alt.X("value:Q").title("Win rate (ties ½)").scale(domain=[0, 1], nice=False)
    layers = [
        chart([{"x": CHANCE}]).mark_rule(color=GREY, strokeDash=[2, 3]).encode(x="x:Q"),
        base.mark_rule(strokeWidth=1.5).encode(x=alt.X("low:Q"), x2="high:Q"),
        base.mark_point(filled=True, size=48, opacity=1).encode(x=x),
    ]
    return Panel(f"by {short(judge)}", "; ".join(says), finish(layers, height=60 + 36 * len(judged)))


def _histogram(one: JudgedModel) -> Panel:
    values = one.score_differences()
    counts, edges = np.histogram(values, BINS)
    bars = zip(edges[:-1].tolist(), edges[1:].tolist(), (counts / len(values)).tolist(), strict=True)
    rows = [{"from": low, "to": high, "share": share} for low, high, share in bars]
    drawn = chart(rows).mark_rect(color=CHOSEN, opacity=0.5)
    x = alt.X("from:Q").title("Score of the model less the baseline's").scale(nice=False, zero=False)
    y = alt.Y("share:Q").title("Share of prompts").axis(format="~%")
    layers = [
        drawn.encode(x=x, x2="to:Q", y=y, y2=alt.Y2Datum(0)),
        chart([{"x": 0}]).mark_rule(color=GREY, strokeDash=[2, 3]).encode(x="x:Q"),
    ]
    above = number(float((values > 0).mean()))
    says = f"{_title(one)}: mean {number(float(values.mean()))}, share above 0 {above}, n {len(values)}"
    return Panel(_title(one), says, finish(layers, height=150))


def _boxes(one: JudgedModel) -> Panel:
    rows = []
    for side, scores in zip(("model", "baseline"), one.scores().T, strict=True):
        low, first, middle, third, high = np.percentile(scores, [5, 25, 50, 75, 95]).tolist()
        rows.append({"side": side, "low": low, "first": first, "middle": middle, "third": third, "high": high})
    colours = alt.Scale(domain=["model", "baseline"], range=[CHOSEN, REJECTED])
    sides = alt.Y("side:N").title(None).scale(domain=["model", "baseline"]).axis(labels=False, ticks=False)
    base = chart(rows).encode(
        y=sides,
        color=alt.Color("side:N", scale=colours).legend(None),
    )
    beyond = [
        {"side": row["side"], "value": value}
        for row, scores in zip(rows, one.scores().T, strict=True)
        for value in _farthest(scores[(scores < row["low"]) | (scores > row["high"])])
    ]
    points = chart(beyond).mark_point(size=9, opacity=0.55, strokeWidth=1)
    layers = [
        *([points.encode(x="value:Q", y=sides, color=alt.Color("side:N", scale=colours))] if beyond else []),
        base.mark_rule().encode(x=alt.X("low:Q").title("Score (judge's own units)").scale(zero=False), x2="high:Q"),
        base.mark_bar(opacity=0.45, size=18).encode(x="first:Q", x2="third:Q"),
        base.mark_tick(thickness=2.5, opacity=1, bandSize=18).encode(x="middle:Q"),
    ]
    medians = ", ".join(f"median of {row['side']} {number(row['middle'])}" for row in rows)
    return Panel(_title(one), f"{_title(one)}: {medians}", finish(layers, height=110))


def _farthest(values: Floats) -> list[float]:
    """Return at most `OUTLIERS` values, the smallest and the largest ones."""
    ordered = sorted(values.tolist())
    return ordered if len(ordered) <= OUTLIERS else [*ordered[: OUTLIERS // 2], *ordered[-(OUTLIERS // 2) :]]


def _scatter(one: JudgedModel) -> Panel:
    longer = one.length_differences()
    scores = one.score_differences()
    scored = len(scores) == len(longer)
    gains = scores if scored else np.array([row.preference for row in one.rows], dtype=np.float64)
    every = max(1, -(-len(longer) // POINTS))
    pairs = zip(longer[::every].tolist(), gains[::every].tolist(), strict=True)
    points = chart([{"x": x, "y": y} for x, y in pairs]).mark_point(color=CHOSEN, filled=True, size=14, opacity=0.4)
    title = "Score difference" if scored else "Preference for the model"
    y = alt.Y("y:Q").title(title).scale(zero=False)
    x = alt.X("x:Q").title("Length difference (characters)").scale(zero=False)
    shown = "" if every == 1 else f", every {every}th shown"
    says = f"{_title(one)}: mean length difference {number(float(longer.mean()), 1)}, n {len(longer)}{shown}"
    return Panel(_title(one), says, finish([points.encode(x=x, y=y)]))
