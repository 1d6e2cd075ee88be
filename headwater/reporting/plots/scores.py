"""Distributions of scores and lengths of chosen and rejected responses, binned here so that the page stays small."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import altair as alt
import numpy as np

from headwater.reporting.findings import distinct, kind_of, labels, number
from headwater.reporting.plots.drawing import CHOSEN, REJECTED, Block, Chart, Floats, Mark, Panel, Rows, chart, finish
from headwater.results.evaluation import ScoredColumn, ScoredRows
from headwater.results.runs import Run

BINS = 30
STRETCH = 3.0
"""A run whose scores spread more than this many times as far as usual has an axis of its own."""
OUTLIERS = 60
"""Most points beyond the whiskers of a box."""
SCORING = ("evaluate", "lens")
"""Commands that record the rewards of pairs."""


class Scored(NamedTuple):
    """Values of chosen and rejected responses in one run.

    Of pairs, both arrays are [pairs]; of labelled responses, [desirable] and [undesirable].
    """

    label: str
    kind: str
    chosen: Floats
    rejected: Floats
    counted: str
    """Number of pairs or responses, as text."""


def score_histograms(runs: Sequence[Run]) -> list[Block]:
    """Draw the scores of chosen and rejected responses, a panel a run; runs of a kind share their axis.

    Where a run also scored the model before its training, that has a panel and an axis of its own.
    """
    return [
        Block(kind, _sides(), _histograms(group, "Score (model's own units)"))
        for kind, group in _by_kind(_with_untrained(runs)).items()
    ]


def score_boxes(runs: Sequence[Run]) -> list[Block]:
    """Draw the quartiles of the scores of chosen and rejected responses, a panel a kind."""
    return [Block(kind, _sides(), [_boxes(group)]) for kind, group in _by_kind(_with_untrained(runs)).items()]


def length_histograms(runs: Sequence[Run]) -> list[Block]:
    """Draw the lengths of chosen and rejected responses, one panel for all runs that saw the same ones."""
    seen: dict[bytes, list[Scored]] = {}
    for scored in _scored(runs, "tokens"):
        seen.setdefault(scored.chosen.tobytes() + b"|" + scored.rejected.tobytes(), []).append(scored)
    groups = [group[0]._replace(label=_and_more(group)) for group in seen.values()]
    return [Block("", _sides(), _histograms(groups, "Length (tokens)"))] if groups else []


def _with_untrained(runs: Sequence[Run]) -> list[Scored]:
    before = [one._replace(kind=f"{one.kind}, before training") for one in _scored(runs, "reward_untrained")]
    return [*_scored(runs, "reward"), *before]


def _and_more(group: Sequence[Scored]) -> str:
    return group[0].label if len(group) == 1 else f"{group[0].label} and {len(group) - 1} more"


def _sides() -> list[Mark]:
    return [Mark("chosen", CHOSEN), Mark("rejected", REJECTED)]


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
        chosen, rejected = values[pairs].T if pairs.any() else (side[np.isfinite(side)] for side in values.T)
        if len(chosen) and len(rejected):
            counted = f"{pairs.sum()} pairs" if pairs.any() else f"{len(chosen)} and {len(rejected)} responses"
            found.append(Scored(names[run.path], kind_of(run), chosen, rejected, counted))
    return found


def _by_kind(scored: Sequence[Scored]) -> dict[str, list[Scored]]:
    kinds: dict[str, list[Scored]] = {}
    for item in scored:
        kinds.setdefault(item.kind, []).append(item)
    return kinds


def _histograms(group: Sequence[Scored], axis: str) -> list[Panel]:
    """Return a panel a run on shared axes; a run that spreads far more than the others has its own."""
    spreads = [_spread(item) for item in group]
    apart = [spread > STRETCH * float(np.median(spreads)) for spread in spreads]
    together = [item for item, alone in zip(group, apart, strict=True) if not alone]
    panels = {item.label: panel for item, panel in zip(together, _on_one_axis(together, axis), strict=True)}
    for item, alone in zip(group, apart, strict=True):
        if alone:
            (panel,) = _on_one_axis([item], axis)
            panels[item.label] = panel._replace(title=f"{item.label}, on its own axis")
    return [panels[item.label] for item in group]


def _spread(item: Scored) -> float:
    low, high = np.percentile(np.concatenate([item.chosen, item.rejected]), [1, 99])
    return float(high - low)


def _on_one_axis(group: Sequence[Scored], axis: str) -> list[Panel]:
    if not group:
        return []
    pooled = np.concatenate([side for item in group for side in (item.chosen, item.rejected)])
    edges = np.histogram_bin_edges(pooled, BINS)
    tallest = max(_shares(side, edges).max() for item in group for side in (item.chosen, item.rejected))
    return [Panel(item.label, _means(item), _histogram(item, edges, float(tallest), axis)) for item in group]


def _shares(values: Floats, edges: Floats) -> Floats:
    return np.asarray(np.histogram(values, edges)[0] / len(values), dtype=np.float64)


def _means(item: Scored) -> str:
    chosen, rejected = number(float(item.chosen.mean()), 2), number(float(item.rejected.mean()), 2)
    return f"{item.label}: mean of chosen {chosen}, of rejected {rejected}, {item.counted}"


def _histogram(item: Scored, edges: Floats, tallest: float, axis: str) -> Chart:
    layers = []
    for values, colour in ((item.chosen, CHOSEN), (item.rejected, REJECTED)):
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
    rows = [row for item in group for row in (_five(item, "chosen"), _five(item, "rejected"))]
    order = [item.label for item in group]
    says = "; ".join(f"{row['run']} {row['side']}: median {number(row['middle'], 2)}" for row in rows)
    base = chart(rows).encode(
        y=alt.Y("run:N").title(None).scale(domain=order).axis(labelLimit=110, ticks=False, domain=False),
        yOffset=alt.YOffset("side:N").scale(paddingInner=0.35, paddingOuter=0.35),
        color=alt.Color("side:N").scale(domain=["chosen", "rejected"], range=[CHOSEN, REJECTED]).legend(None),
    )
    whiskers = base.mark_rule().encode(x=alt.X("low:Q").title("Score (model's own units)"), x2="high:Q")
    boxes = base.mark_bar(opacity=0.45).encode(x="first:Q", x2="third:Q")
    medians = base.mark_tick(thickness=2.5, opacity=1, bandSize=11).encode(x="middle:Q")
    beyond = [point for item in group for side in ("chosen", "rejected") for point in _outliers(item, side)]
    points = [_outlier_marks(beyond, order)] if beyond else []
    return Panel("", says, finish([whiskers, *points, boxes, medians], height=60 + 30 * len(group)))


def _outlier_marks(rows: Rows, order: Sequence[str]) -> Any:
    drawn = chart(rows).encode(
        x="value:Q",
        y=alt.Y("run:N").title(None).scale(domain=list(order)),
        yOffset=alt.YOffset("side:N").scale(paddingInner=0.35, paddingOuter=0.35),
        color=alt.Color("side:N").scale(domain=["chosen", "rejected"], range=[CHOSEN, REJECTED]).legend(None),
    )
    return drawn.mark_point(size=9, opacity=0.55, strokeWidth=1)


def _outliers(item: Scored, side: str) -> Rows:
    """Return the scores beyond the whiskers: of many, the farthest and every n-th of the others."""
    five = _five(item, side)
    values = np.sort(item.chosen if side == "chosen" else item.rejected)
    beyond = values[(values < five["low"]) | (values > five["high"])]
    kept = beyond if len(beyond) <= OUTLIERS else beyond[np.linspace(0, len(beyond) - 1, OUTLIERS).astype(int)]
    return [{"run": item.label, "side": side, "value": value} for value in kept.tolist()]


def _five(item: Scored, side: str) -> dict[str, Any]:
    """Return quartiles and whiskers; a whisker ends at the last value within 1.5 box lengths of its box."""
    values = item.chosen if side == "chosen" else item.rejected
    first, middle, third = (float(q) for q in np.percentile(values, [25, 50, 75]))
    reach = 1.5 * (third - first)
    inside = values[(values >= first - reach) & (values <= third + reach)]
    low, high = float(inside.min()), float(inside.max())
    five = {"low": low, "first": first, "middle": middle, "third": third, "high": high}
    return {"run": item.label, "side": side, **five}
