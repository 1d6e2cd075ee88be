"""Inspected data sets as tables and rows of the page; `plots/data.py` draws their figures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from headwater.marks import visible
from headwater.reporting.findings import count, labels, number, percent, with_interval
from headwater.results.evaluation import better_rule
from headwater.results.inspection import Inspection, Quantiles, SampleResponse, SampleRow
from headwater.results.runs import Run

TURNS = 6
"""Numbers of turns that are listed; longer conversations are counted together."""
HOLDS = {"preferences": "pairs", "candidates": "prompts with several responses", "unpaired": "labelled responses"}
SIGNS = {"chosen": "+", "desirable": "+", "rejected": "−", "undesirable": "−"}
LENGTHS = ("mean", "least", "5 %", "25 %", "median", "75 %", "95 %", "most")
"""Heads of the columns of `Quantiles`, but for n."""


class Sample(NamedTuple):
    """A row of the data; markup and hidden characters in it are made visible."""

    id: str
    prompt: str
    responses: list[tuple[str, str, str]]
    """Sign, side and text of each response."""


class Inspected(NamedTuple):
    """One data set as the page shows it."""

    run: Run
    name: str
    says: str
    facts: dict[str, str]
    fates: list[dict[str, str]]
    """One row for each outcome (kept, dropped for a reason, quarantined under a code), by column."""
    lengths: list[dict[str, str]]
    samples: list[Sample]


def inspected(runs: Sequence[Run]) -> list[Inspected]:
    """Return what the page shows of every `inspect` run."""
    names = labels(runs)
    return [_inspected(run, names[run.path], found) for run in runs if (found := Inspection.find(run.path))]


def _inspected(run: Run, name: str, found: Inspection) -> Inspected:
    kept = found.row_counts.kept
    return Inspected(
        run=run,
        name=name,
        says=f"{Path(found.data).name} · {count(kept)} {HOLDS[found.holds]} · {found.layout}",
        facts=dict(_facts(found)),
        fates=list(_fates(found)),
        lengths=list(_lengths(found)),
        samples=[_sample(sample) for sample in found.samples],
    )


def _facts(found: Inspection) -> Iterator[tuple[str, str]]:
    if found.longer_wins and found.shared_beginning:
        side, wins = better_rule(found.longer_wins)
        shared = found.shared_beginning
        sized = f"n = {count(wins.n)}, {count(wins.clusters)} conversations; equal lengths count a half"
        yield f"The {side} one wins", f"{with_interval(wins)} ({sized})"
        median = f"median {shared.characters.p50:.0f} characters in common"
        yield "Same first character", f"{percent(round(shared.share_of_pairs, 3))} of pairs; {median}"
    turns = [f"{count(rows)} with {turns}" for turns, rows in found.turns.items()]
    yield "User turns", ", ".join(turns[:TURNS]) + (f", {len(turns) - TURNS} longer" if len(turns) > TURNS else "")
    if found.with_system_turn:
        yield "System turn", f"{count(found.with_system_turn)} rows"
    scripts = [f"{script} {_share(share)}" for script, share in list(found.scripts.items())[:5]]
    yield "Scripts", ", ".join(scripts) or "no letters"
    near = found.near_duplicate_prompts
    alike = [f"such as {one} and {other}" for one, other in near.pairs[:1]]
    yield (
        "Near-duplicate prompts",
        "; ".join([f"{count(near.having_one)} of {count(near.prompts)} different ones", *alike]),
    )
    if found.sampled_rows < found.row_counts.kept:
        yield (
            "Sample",
            f"scripts, tokens and near-duplicates are of {count(found.sampled_rows)} rows drawn at random",
        )
    if found.bad_rows.first:
        yield "First bad row", visible(found.bad_rows.first)


def _share(share: float) -> str:
    """Return a share as a percentage; a small one is not rounded to 0."""
    return percent(round(share, 3)) if share >= 0.001 else "< 0.1 %"


def _fates(found: Inspection) -> Iterator[dict[str, str]]:
    row_counts = found.row_counts
    counts = [("kept", row_counts.kept)]
    counts += [(f"dropped: {reason.replace('_', ' ')}", rows) for reason, rows in sorted(row_counts.dropped.items())]
    counts += [(f"quarantined: {code}", rows) for code, rows in sorted(found.bad_rows.codes.items())]
    for fate, rows in [*counts, ("rows in", row_counts.rows_in)]:
        yield {"": fate, "rows": count(rows), "share": _share(rows / row_counts.rows_in)}


def _lengths(found: Inspection) -> Iterator[dict[str, str]]:
    for unit, by_side in (("characters", found.characters), ("tokens", found.tokens or {})):
        for side, lengths in by_side.items():
            yield {"": f"{side}, {unit}"} | {name: count(round(value)) for name, value in _columns(lengths)}
    if found.score_margin:
        yield {"": "score margin"} | {name: number(value, 2) for name, value in _columns(found.score_margin)}


def _columns(found: Quantiles) -> Iterable[tuple[str, float]]:
    """Return the mean and the percentiles by the heads of their columns."""
    return zip(LENGTHS, found[1:], strict=True)


def _sample(sample: SampleRow) -> Sample:
    responses = [(SIGNS.get(each.kind, "·"), each.kind, _scored(each)) for each in sample.responses[:4]]
    return Sample(visible(sample.id), visible(sample.prompt), responses)


def _scored(response: SampleResponse) -> str:
    score = "" if response.score is None else f"[{response.score:.3g}] "
    return score + visible(response.text)
