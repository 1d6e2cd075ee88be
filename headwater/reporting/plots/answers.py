"""Answers of models to the same prompts: lengths, repetition and unfinished ones; and rewards of the same responses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import altair as alt
import numpy as np

from headwater import statistics
from headwater.reporting.findings import distinct, labels, number, with_interval
from headwater.reporting.plots.drawing import COLOURS, Block, Chart, Floats, Mark, Panel, Rows, chart, finish
from headwater.results.answers import StoredAnswer, answers_of
from headwater.results.rewards import RewardRecords
from headwater.results.runs import Run

BINS = 30


def answer_lengths(runs: Sequence[Run]) -> list[Block]:
    """Draw the lengths of the answers of several models in one histogram, a block a run."""
    return [_overlaid(run, names, *_lengths(answers)) for run, names, answers in _answered(runs)]


def answer_faults(runs: Sequence[Run]) -> list[Block]:
    """Draw the share of unfinished answers and of repeated word sequences, a row a model."""
    blocks = []
    for run, names, answers in _answered(runs):
        panels = [panel for panel in (_unfinished(answers), _repetition(answers)) if panel]
        blocks.append(Block(names[run.path], [], panels))
    return blocks


def reward_models(runs: Sequence[Run]) -> list[Block]:
    """Draw the rewards that several models gave the same responses in one histogram."""
    runs = distinct(runs)
    names = labels(runs)
    groups: dict[tuple[str, ...], dict[str, Floats]] = {}
    for run in runs:
        for model, (keys, rewards) in _rewards(run).items():
            group = groups.setdefault(keys, {})
            label = Path(model).name or model
            group[label if label not in group else f"{label} ({names[run.path]})"] = rewards
    shared = [group for group in groups.values() if len(group) > 1]
    return [
        Block("", _key(group), [_histogram(group, "Reward (units of each model)", "Share of responses", "reward")])
        for group in (dict(list(group.items())[: len(COLOURS)]) for group in shared)
    ]


def _rewards(run: Run) -> dict[str, tuple[tuple[str, ...], Floats]]:
    """Return the rewards of every model of a `score` run, with the names of their rows."""
    found = RewardRecords.find(run.path) if run.command == "score" else None
    by_model: dict[str, tuple[list[str], list[float]]] = {}
    for row in found.records if found else ():
        keys, values = by_model.setdefault(row.model, ([], []))
        known = [value for value in row.rewards if value is not None]
        keys.append(row.key or row.id)
        values += known
    return {model: (tuple(keys), np.array(values)) for model, (keys, values) in by_model.items() if values}


def _answered(runs: Sequence[Run]) -> list[tuple[Run, dict[Path, str], dict[str, list[StoredAnswer]]]]:
    runs = distinct(runs)
    names = labels(runs)
    found = ((run, answers_of(run.path)) for run in runs if run.command == "generate")
    return [(run, names, dict(list(answers.items())[: len(COLOURS)])) for run, answers in found if answers]


def _lengths(answers: Mapping[str, Sequence[StoredAnswer]]) -> tuple[dict[str, Floats], str]:
    """Return the length of every answer by model: in tokens where all are known, else in characters."""
    counted = all(answer.tokens is not None for of in answers.values() for answer in of)
    lengths = {
        model: np.array([answer.tokens if counted else len(answer.text) for answer in of], dtype=np.float64)
        for model, of in answers.items()
    }
    return lengths, "tokens" if counted else "characters"


def _overlaid(run: Run, names: Mapping[Path, str], lengths: Mapping[str, Floats], unit: str) -> Block:
    panel = _histogram(lengths, f"Length of an answer ({unit})", "Share of answers", "length")
    return Block(names[run.path], _key(lengths), [panel])


def _key(values: Mapping[str, Floats]) -> list[Mark]:
    return [Mark(name, colour) for name, colour in zip(values, COLOURS, strict=False)]


def _histogram(values: Mapping[str, Floats], across: str, up: str, what: str) -> Panel:
    edges = np.histogram_bin_edges(np.concatenate(list(values.values())), BINS)
    layers = []
    for (name, own), colour in zip(values.items(), COLOURS, strict=False):
        shares = [0.0, *(np.histogram(own, edges)[0] / len(own)).tolist(), 0.0]
        corners = [edges[0], *edges]
        rows = [{"model": name, "x": float(x), "share": y} for x, y in zip(corners, shares, strict=True)]
        area = chart(rows).mark_area(
            interpolate="step-after", color=colour, fillOpacity=0.12, line={"color": colour, "strokeWidth": 1.4}
        )
        x = alt.X("x:Q").title(across).scale(domain=[float(edges[0]), float(edges[-1])], nice=False)
        layers.append(area.encode(x=x, y=alt.Y("share:Q").title(up).axis(format="~%")))
    means = "; ".join(
        f"{name}: mean {what} {number(float(own.mean()), 1)}, n {len(own)}" for name, own in values.items()
    )
    return Panel("", means, finish(layers))


def _unfinished(answers: Mapping[str, Sequence[StoredAnswer]]) -> Panel | None:
    known = {model: [one for one in of if one.complete is not None] for model, of in answers.items()}
    shares = {
        model: statistics.mean([float(not one.complete) for one in of], [one.prompt for one in of])
        for model, of in known.items()
        if of
    }
    return _shares("Unfinished answers", "Share cut off at the limit", shares) if shares else None


def _repetition(answers: Mapping[str, Sequence[StoredAnswer]]) -> Panel:
    shares = {
        model: statistics.mean([one.repetition for one in of], [one.prompt for one in of])
        for model, of in answers.items()
    }
    return _shares("Repetition", "Repeated 4-word sequences", shares)


def _shares(title: str, axis: str, shares: Mapping[str, statistics.Estimate]) -> Panel:
    rows: Rows = []
    for model, found in shares.items():
        low, high = (found.value if end is None else end for end in (found.low, found.high))
        rows.append({"model": model, "value": found.value, "low": low, "high": high, "n": found.n})
    base = chart(rows).encode(
        y=alt.Y("model:N").title(None).scale(domain=list(shares)).axis(labelLimit=120, ticks=False, offset=8),
        color=alt.Color("model:N").scale(domain=list(shares), range=list(COLOURS[: len(shares)])).legend(None),
    )
    x = alt.X("value:Q").title(axis).axis(format="~%")
    layers = [
        base.mark_rule(strokeWidth=1.5).encode(x=alt.X("low:Q"), x2="high:Q"),
        base.mark_point(filled=True, size=48, opacity=1).encode(x=x),
    ]
    says = "; ".join(f"{model} {with_interval(found)}, n {found.n}" for model, found in shares.items())
    drawn: Chart = finish(layers, height=60 + 24 * len(shares))
    return Panel(title, f"{title}: {says}", drawn)
