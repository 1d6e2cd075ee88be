"""Tables of figures with their intervals, for a terminal: of an evaluation, its diagnostics, and any other metrics."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
from rich.console import RenderableType
from rich.table import Table

from headwater.console import sparkline
from headwater.evaluation import noise
from headwater.results.evaluation import BeforeAfter, Diagnostics, EvaluationFigures, ScoredRows
from headwater.statistics import LEVEL, Estimate

INTERVAL = f"{LEVEL:.0%} interval"
BARS = 24
"""Bars of the histogram of margins."""


def figure_table(title: str, figures: Mapping[str, object]) -> Table:
    """Return a table with a row for each of the `figures` that is an estimate: its value, interval and n."""
    table = _table(title, "figure", "value")
    for name, found in figures.items():
        if isinstance(found, Estimate):
            table.add_row(name, *_cells(found))
    return table


def evaluation_table(title: str, figures: EvaluationFigures) -> Table:
    """Return the table of the figures of an evaluation; length alone is shown in its better direction."""
    shown: dict[str, Estimate] = {}
    rules = {"length_accuracy": figures.length_rule, "length_auc": figures.length_auc_rule}
    for name, found in figures.known().items():
        rule = rules.get(name)
        shown |= {name: found} if rule is None else {f"{name} ({rule.wins} wins)": rule.accuracy}
    return figure_table(title, shown)


def diagnostics_parts(
    found: Diagnostics, records: ScoredRows, model: str, correction: str | None
) -> Iterator[RenderableType]:
    """Yield the histogram of margins, the accuracies of groups of pairs, and the comparisons of length bias.

    Length bias is compared before and after `correction`, and between every other model and `model`.
    """
    yield _margins(records)
    yield _groups(found)
    if correction is not None and found.corrected is not None:
        yield _biases(correction, "before", "after", found.corrected)
    for other in found.length_bias:
        yield _biases("length bias", other.name, model, other.figures)


def _margins(records: ScoredRows) -> str:
    """Return the histogram of the margins of scored pairs as a line of bars."""
    counts, edges = np.histogram(records.margins(), BARS)
    return f"margins {edges[0]:.4g} {sparkline(counts.tolist(), BARS)} {edges[-1]:.4g}, pairs of each size"


def _groups(found: Diagnostics) -> Table:
    """Return the accuracies of groups of pairs: by the longer response, by length difference, by margin."""
    table = _table("where it is right", "pairs", "accuracy")
    for side, accuracy in found.preferred_is.items():
        table.add_row(f"preferred one {side.replace('_', ' ')}", *_cells(accuracy))
    for groups, title in (
        (found.by_length_difference, "chosen longer by {} tokens"),
        (found.by_margin, "|margin| {}"),
    ):
        for group in groups:
            table.add_row(title.format(f"{group.low:.4g} to {group.high:.4g}"), *_cells(group.accuracy))
    return table


def diagnostics_lines(found: Diagnostics, margin: float) -> Iterator[str]:
    """Yield the calibration error, the noise of rewards, and the comparison with every baseline, as a line each.

    `margin` is in percentage points.
    """
    error = found.calibration_error
    yield f"calibration error: {error.value:.4f} {error.interval()}, n = {error.n} (not corrected for chance)"
    if found.noise is not None:
        yield noise.sentence(found.noise, error.n)
    for baseline in found.baselines:
        yield (
            f"against {baseline.name} ({baseline.accuracy:.4f}): "
            f"the model {baseline.comparison(margin).says('it')}; "
            f"right alone on {baseline.only_first} pairs, wrong alone on {baseline.only_second}, "
            f"McNemar p = {baseline.p_value:.3g}"
        )


def _biases(title: str, before: str, after: str, figures: Mapping[str, BeforeAfter]) -> Table:
    table = Table("figure", before, INTERVAL, after, INTERVAL, title=title, title_justify="left")
    for name, found in figures.items():
        table.add_row(name, *(cell for estimate in found for cell in _cells(estimate)[:2]))
    return table


def _table(title: str, first: str, value: str) -> Table:
    return Table(first, value, INTERVAL, "n", title=title, title_justify="left")


def _cells(estimate: Estimate) -> tuple[str, str, str]:
    return f"{estimate.value:.4f}", estimate.interval(), str(estimate.n)
