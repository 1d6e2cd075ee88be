"""Distributions of scores and lengths of better and worse responses, binned here so that the page stays small."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import altair as alt
import numpy as np

from headwater.report.findings import distinct, kind_of, labels, number
from headwater.report.plots.drawing import BETTER, WORSE, Block, Chart, Floats, Mark, Panel, chart, finish
from headwater.results.evaluation import ScoredColumn, ScoredRows
from headwater.results.runs import Run

BINS = 30
SCORING = ("evaluate", "lens")
"""Commands that record the rewards of pairs."""


class Scored(NamedTuple):
    """Values of better and worse responses in one run.

    Of pairs, both arrays are [pairs]; of labelled responses, [desirable] and [undesirable].
    """

    label: str
    kind: str
    better: Floats
    worse: Floats
    counted: str
    """Number of pairs or responses, as text."""


def score_histograms(runs: Sequence[Run]) -> list[Block]:
    """Draw the scores of better and worse responses, a panel a run; runs of a kind share their axis.

    Where a run also scored the model before its training, that has a panel and an axis of its own.
    """
    return [
        Block(kind, _sides(), _histograms(group, "Score (model's own units)"))
        for kind, group in _by_kind(_with_untrained(runs)).items()
    ]


def score_boxes(runs: Sequence[Run]) -> list[Block]:
    """Draw the quartiles of the scores of better and worse responses, a panel a kind."""
    return [Block(kind, _sides(), [_boxes(group)]) for kind, group in _by_kind(_with_untrained(runs)).items()]


def length_histograms(runs: Sequence[Run]) -> list[Block]:
    """Draw the lengths of better and worse responses, one panel for all runs that saw the same ones."""
    seen: dict[bytes, list[Scored]] = {}
    for scored in _scored(runs, "tokens"):
        seen.setdefault(scored.better.tobytes() + b"|" + scored.worse.tobytes(), []).append(scored)
    groups = [group[0]._replace(label=_and_more(group)) for group in seen.values()]
    return [Block("", _sides(), _histograms(groups, "Length (tokens)"))] if groups else []


def _with_untrained(runs: Sequence[Run]) -> list[Scored]:
    before = [one._replace(kind=f"{one.kind}, before training") for one in _scored(runs, "reward_untrained")]
    return [*_scored(runs, "reward"), *before]


def _and_more(group: Sequence[Scored]) -> str:
    return group[0].label if len(group) == 1 else f"{group[0].label} and {len(group) - 1} more"


def _sides() -> list[Mark]:
    return [Mark("better", BETTER), Mark("worse", WORSE)]


def _scored(runs: Sequence[Run], what: ScoredColumn) -> list[Scored]:
    """Return rewards or lengths of every run that scored both sides, of pairs or of labelled responses.

    A labelled response has one of the two sides.
    """
    runs = distinct(runs)
    names = labels(runs)
    found = []
    for run in runs:
        scored = ScoredRows.find(run.path) if run.command in SCORING else None
        if scored is None:
            continue
        values = scored.sides(what)
        pairs = np.isfinite(values).all(axis=1)
        better, worse = values[pairs].T if pairs.any() else (side[np.isfinite(side)] for side in values.T)
        if len(better) and len(worse):
            counted = f"{pairs.sum()} pairs" if pairs.any() else f"{len(better)} and {len(worse)} responses"
            found.append(Scored(names[run.path], kind_of(run), better, worse, counted))
    return found


def _by_kind(scored: Sequence[Scored]) -> dict[str, list[Scored]]:
    kinds: dict[str, list[Scored]] = {}
    for item in scored:
        kinds.setdefault(item.kind, []).append(item)
    return kinds


def _histograms(group: Sequence[Scored], axis: str) -> list[Panel]:
    pooled = np.concatenate([side for item in group for side in (item.better, item.worse)])
    edges = np.histogram_bin_edges(pooled, BINS)
    tallest = max(_shares(side, edges).max() for item in group for side in (item.better, item.worse))
    return [Panel(item.label, _means(item), _histogram(item, edges, float(tallest), axis)) for item in group]


def _shares(values: Floats, edges: Floats) -> Floats:
    return np.asarray(np.histogram(values, edges)[0] / len(values), dtype=np.float64)


def _means(item: Scored) -> str:
    better, worse = number(float(item.better.mean()), 2), number(float(item.worse.mean()), 2)
    return f"{item.label}: mean of better {better}, of worse {worse}, {item.counted}"


def _histogram(item: Scored, edges: Floats, tallest: float, axis: str) -> Chart:
    layers = []
    for values, colour in ((item.better, BETTER), (item.worse, WORSE)):
        shares = [0.0, *_shares(values, edges), 0.0]
        corners = [edges[0], *edges]
        rows = [{"x": float(x), "share": float(y)} for x, y in zip(corners, shares, strict=True)]
        area = chart(rows).mark_area(
            interpolate="step-after", color=colour, fillOpacity=0.18, line={"color": colour, "strokeWidth": 1.2}
        )
        x = alt.X("x:Q").title(axis).scale(domain=[float(edges[0]), float(edges[-1])], nice=False)
        y = alt.Y("share:Q").title("Share of responses").scale(domain=[0, tallest]).axis(format="~%")
        layers.append(area.encode(x=x, y=y))
    return finish(layers, height=150)


def _boxes(group: Sequence[Scored]) -> Panel:
    rows = [row for item in group for row in (_five(item, "better"), _five(item, "worse"))]
    order = [item.label for item in group]
    says = "; ".join(f"{row['run']} {row['side']}: median {number(row['middle'], 2)}" for row in rows)
    base = chart(rows).encode(
        y=alt.Y("run:N").title(None).sort(order).axis(labelLimit=110, ticks=False, domain=False),
        yOffset=alt.YOffset("side:N").scale(paddingInner=0.35, paddingOuter=0.35),
        color=alt.Color("side:N").scale(domain=["better", "worse"], range=[BETTER, WORSE]).legend(None),
    )
    whiskers = base.mark_rule().encode(x=alt.X("low:Q").title("Score (model's own units)"), x2="high:Q")
    boxes = base.mark_bar(opacity=0.45).encode(x="first:Q", x2="third:Q")
    medians = base.mark_tick(thickness=2.5, opacity=1, bandSize=11).encode(x="middle:Q")
    return Panel("", says, finish([whiskers, boxes, medians], height=60 + 36 * len(group)))


def _five(item: Scored, side: str) -> dict[str, Any]:
    """Return quartiles and whiskers; a whisker ends at the last value within 1.5 box lengths of its box."""
    values = item.better if side == "better" else item.worse
    first, middle, third = (float(q) for q in np.percentile(values, [25, 50, 75]))
    reach = 1.5 * (third - first)
    inside = values[(values >= first - reach) & (values <= third + reach)]
    low, high = float(inside.min()), float(inside.max())
    five = {"low": low, "first": first, "middle": middle, "third": third, "high": high}
    return {"run": item.label, "side": side, **five}
