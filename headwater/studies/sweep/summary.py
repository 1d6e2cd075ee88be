"""Summary of a sweep: accuracy by kept ratio and budget, and its correlation with the curve of one forward pass."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import numpy as np
from rich.table import Table

from headwater import statistics
from headwater.commands import report, signal
from headwater.console import show
from headwater.reporting.accuracy_comparison import shortest_not_worse
from headwater.reporting.findings import ratio_sentence
from headwater.results import runs
from headwater.results.signal import SignalCurve
from headwater.results.sweep import OnePassPoint, SweepResult, SweepRow
from headwater.signals.bootstrap import Bootstrap
from headwater.signals.curves import wins
from headwater.signals.options import ScorerOptions, SignalOptions
from headwater.statistics import LEVEL, RESAMPLES, Estimate, Floats
from headwater.studies.sweep.points import Budget, Point, Sweep


def cost(sweep: Sweep, point: Point) -> float:
    """Return the tokens of an epoch as a share of those of full responses."""
    runs_of_equal_examples = (replace(point, equal="examples", keep=keep) for keep in (point.keep, Fraction(1)))
    own, full = (runs.load(sweep.trained(each)).facts["training_tokens"] for each in runs_of_equal_examples)
    return float(own / full)


class Row(NamedTuple):
    """Results of all seeds at one ratio and budget."""

    keep: Fraction
    equal: Budget
    seen: str
    """Responses it was evaluated on: `full`, or truncated to the `same` ratio."""
    tokens: float
    """Training tokens, with a prompt counted once a pair; mean over seeds, as the next two."""
    flops: float
    """Floating-point operations of training, attention included (`training.flops`)."""
    seconds: float
    """Wall time of training."""
    by_seed: tuple[float, ...]
    """Accuracy of every seed."""

    @property
    def accuracy(self) -> Estimate:
        """Return the mean over seeds; n and clusters count seeds."""
        return over_seeds(self.by_seed)


def summarise(sweep: Sweep) -> Path:
    """Write the run of the summary and the report, print the table, and return the run directory."""
    config = sweep.config
    first = Point(Fraction(1), "examples", config.seeds[0])
    curve = _one_pass(sweep, first)
    rows = list(_rows(sweep))
    correlations = dict(_correlations(rows, curve, _resamples(sweep), config.seeds[0]))
    says = list(_sentences(sweep))
    writer = runs.start(config.output / "summary", "sweep", config, facts={"kind": config.train, "says": says})
    points = (SweepRow(**row._asdict() | {"keep": float(row.keep)}, accuracy=row.accuracy) for row in rows)
    one_pass = (OnePassPoint(keep=keep, **estimate._asdict()) for keep, estimate in curve.items())
    SweepResult(tuple(points), tuple(one_pass)).write(writer.path)
    writer.write_metrics(correlations)
    summary = writer.finish()
    _show(rows, curve, correlations)
    for sentence in says:
        show(sentence)
    page = config.output / "report.html"
    shown = (summary, config.output / "one-pass")
    report.run(report.Config(runs=shown, output=page, margin=config.margin, overwrite=True))
    return summary


def _one_pass(sweep: Sweep, point: Point) -> dict[float, Estimate]:
    """Return the accuracy by ratio of the model trained on full responses, on its held-out pairs."""
    config, output = sweep.config, sweep.config.output / "one-pass"
    wanted = signal.Config(
        data=config.data,
        read_options=config.read_options,
        output=output,
        model=str(sweep.trained(point)),
        options=SignalOptions(ratios=tuple(str(float(keep)) for keep in config.ratios[:-1]), margin=config.margin),
        scorer=ScorerOptions(max_length=config.max_length),
        seed=point.seed,
        overwrite=True,
    )
    signal.run(wanted)
    return {point.amount: point.estimate for point in SignalCurve.read(output).along()}


def _resamples(sweep: Sweep) -> dict[float, Floats]:
    """Return the accuracies [resamples] of one pass at every ratio, from resamples of its pairs."""
    run = runs.load(sweep.config.output / "one-pass")
    records = run.records()
    keeps = [float(keep) for keep in sweep.config.ratios]
    margins = np.array([[record[f"margin_at_{keep:g}"] for record in records] for keep in keeps])
    conversation_ids = [record["opening"] for record in records]
    draws = Bootstrap(conversation_ids, int(run.config["seed"])).means(wins(margins)).draws
    return dict(zip(keeps, draws.T, strict=True))


def _rows(sweep: Sweep) -> Iterator[Row]:
    """Yield two rows for every ratio and budget that has a finished seed: on full and on truncated responses."""
    done = [point for point in sweep.points() if sweep.is_done(point)]
    for equal, keep in dict.fromkeys((point.equal, point.keep) for point in done):
        members = [point for point in done if (point.equal, point.keep) == (equal, keep)]
        trained = [runs.load(sweep.trained(point)) for point in members]
        spent = [(run.facts["training_tokens"], run.facts["training_flops"], run.seconds) for run in trained]
        tokens, flops, seconds = np.mean(spent, axis=0).tolist()
        for seen in ("full", "same"):
            share = Fraction(1) if seen == "full" else keep
            judged = [runs.load(sweep.judged(point, share)).metrics["accuracy"]["value"] for point in members]
            yield Row(keep, equal, seen, tokens, flops, seconds, tuple(judged))


def _sentences(sweep: Sweep) -> Iterator[str]:
    """Yield what training on less loses, for every budget and kind of evaluation: all seeds together, pair by pair.

    The interval is that of the pairs, for these trained models; how seeds differ is in the table.
    """
    done = [point for point in sweep.points() if sweep.is_done(point)]
    for equal, seen in itertools.product(dict.fromkeys(point.equal for point in done), ("full", "same")):
        by_ratio: dict[float, list[runs.Run]] = {}
        for point in done:
            if point.equal == equal or point.keep == 1:
                judged = sweep.judged(point, Fraction(1) if seen == "full" else point.keep)
                by_ratio.setdefault(float(point.keep), []).append(runs.load(judged))
        found = shortest_not_worse(by_ratio, sweep.config.margin) if len(by_ratio) > 1 else None
        if found:
            responses = "full responses" if seen == "full" else "equally short responses"
            yield f"{ratio_sentence(f'Equal {equal}, judged on {responses}', found)}."


def over_seeds(values: Sequence[float]) -> Estimate:
    """Return the mean of accuracies with Student's interval, within [0, 1]; None for bounds with a single seed."""
    found = statistics.over_repeats(values)
    if found.low is None or found.high is None:
        return found
    return found._replace(low=max(0.0, found.low), high=min(1.0, found.high))


def _correlations(
    rows: Sequence[Row], curve: Mapping[float, Estimate], resamples: Mapping[float, Floats], seed: int
) -> Iterator[tuple[str, Estimate]]:
    """Yield the rank correlation with one pass for every budget and kind of evaluation."""
    for equal, seen in dict.fromkeys((row.equal, row.seen) for row in rows):
        found = [row for row in rows if row.seen == seen and (row.equal == equal or row.keep == 1)]
        foreseen = [curve[float(row.keep)].value for row in found]
        draws = np.stack([resamples[float(row.keep)] for row in found], axis=1)
        name = f"rank_correlation_equal_{equal}_on_{seen}"
        yield name, rank_correlation([row.by_seed for row in found], foreseen, draws, seed)


def rank_correlation(
    by_seed: Sequence[Sequence[float]], foreseen: Sequence[float], draws: Floats, seed: int
) -> Estimate:
    """Return Spearman's ρ over ratios between the means over seeds and the accuracies of one pass.

    The interval resamples both: the seeds of every ratio (2 or more each), and the pairs of the one pass, whose
    accuracies are `draws` [resamples, ratios]. n counts ratios, clusters the fewest seeds. ρ is NaN where either side
    is flat.
    """
    fewest = min(map(len, by_seed))
    value = float(_spearman(np.array([[np.mean(values) for values in by_seed]]), np.array([foreseen]))[0])
    if fewest < 2 or np.isnan(value):
        return Estimate(value, None, None, len(by_seed), fewest)
    generator = np.random.default_rng(seed)
    means = [generator.choice(values, (RESAMPLES, len(values))).mean(axis=1) for values in by_seed]
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.nanpercentile(_spearman(np.stack(means, axis=1), draws), [tail, 100 - tail])
    return Estimate(value, float(low), float(high), len(by_seed), fewest)


def _spearman(curves: Floats, others: Floats) -> Floats:
    """Return ρ of each of `curves` [m, ratios] with each of `others` [m, ratios], [m]; ties share their mean rank."""
    from scipy.stats import rankdata

    ranks, other = (rankdata(each, axis=1) - (each.shape[1] + 1) / 2 for each in (curves, others))
    with np.errstate(invalid="ignore"):  # a flat curve has no ranks
        return np.asarray((ranks * other).sum(axis=1) / np.sqrt((ranks**2).sum(axis=1) * (other**2).sum(axis=1)))


def _show(rows: Sequence[Row], curve: Mapping[float, Estimate], correlations: Mapping[str, Estimate]) -> None:
    """Print a line for every ratio and budget, and the rank correlations."""
    seeds = max(row.accuracy.n for row in rows)
    title = f"held-out accuracy, mean of {seeds} seeds; {LEVEL:.0%} intervals over seeds"
    table = Table(title=title, title_justify="left")
    for head in ("kept", "equal", "tokens", "FLOPs", "time", "on full", "on the same", "one pass"):
        table.add_column(head, no_wrap=not head.startswith("on"))
    for full, same in zip(rows[::2], rows[1::2], strict=True):
        cost_of = (f"{full.tokens / 1000:,.0f} k", f"{full.flops:.2g}", f"{full.seconds:.0f} s")
        judged = (_with_reach(each.accuracy) for each in (full, same))
        foreseen = f"{curve[float(full.keep)].value:.3f}"
        table.add_row(f"{100 * float(full.keep):g} %", full.equal, *cost_of, *judged, foreseen)
    show(table)
    show("of training: tokens (a prompt once a pair), FLOPs (6 × weights × tokens, and attention), wall time")
    for name, found in correlations.items():
        budget, seen = name.removeprefix("rank_correlation_equal_").split("_on_")
        text = "undefined: a curve is flat" if np.isnan(found.value) else f"{found.value:.2f} {_interval(found)}"
        show(f"one pass ranks {found.n} ratios as training on equal {budget}, judged on {seen}: Spearman's ρ {text}")


def _with_reach(found: Estimate) -> str:
    """Write a mean over seeds with the half width of its interval."""
    if found.low is None or found.high is None:
        return f"{found.value:.3f}"
    return f"{found.value:.3f} ± {max(found.value - found.low, found.high - found.value):.3f}"


def _interval(found: Estimate) -> str:
    return "" if found.low is None else f"[{found.low:.3f}, {found.high:.3f}]"
