"""What `inspect` runs found, as tables and rows of the page; the figures of it are drawn in `plots/data.py`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from headwater.marks import visible
from headwater.report.findings import count, labels, number, percent, with_interval
from headwater.results.runs import Run
from headwater.statistics import Estimate

FILE = "inspection.json"
TURNS = 6
"""How many numbers of turns are told apart."""
HOLDS = {"preferences": "pairs", "candidates": "prompts with several responses", "unpaired": "labelled responses"}
SIGNS = {"chosen": "+", "desirable": "+", "rejected": "−", "undesirable": "−"}
LENGTHS = {"mean": "mean", "p0": "least", "p5": "5 %", "p25": "25 %", "p50": "median", "p75": "75 %", "p95": "95 %"}


class Sample(NamedTuple):
    """A row of the data, with everything in it that a browser would act on or hide made visible."""

    id: str
    prompt: str
    responses: list[tuple[str, str, str]]
    """Sign, what the response is, and its text."""


class Inspected(NamedTuple):
    """One data set as the page shows it."""

    run: Run
    name: str
    says: str
    facts: dict[str, str]
    fates: list[dict[str, str]]
    """One row a fate (kept, dropped for a reason, quarantined under a code), by column."""
    lengths: list[dict[str, str]]
    samples: list[Sample]


def inspection(run: Run) -> dict[str, Any]:
    """Return what an `inspect` run found; {} for any other run."""
    path = run.path / FILE
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return found


def inspected(runs: Sequence[Run]) -> list[Inspected]:
    """Return what the page shows of every `inspect` run."""
    names = labels(runs)
    return [_inspected(run, names[run.path], inspection(run)) for run in runs if inspection(run)]


def _inspected(run: Run, name: str, found: Mapping[str, Any]) -> Inspected:
    kept = found["account"]["kept"]
    return Inspected(
        run=run,
        name=name,
        says=f"{Path(found['data']).name} · {count(kept)} {HOLDS[found['holds']]} · {found['layout']}",
        facts=dict(_facts(found)),
        fates=list(_fates(found)),
        lengths=list(_lengths(found)),
        samples=[_sample(sample) for sample in found["samples"]],
    )


def _facts(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    if "longer_wins" in found:
        wins = Estimate(**found["longer_wins"])
        sized = f"n = {count(wins.n)}, {count(wins.clusters)} openings; equal lengths count a half"
        yield "The longer one wins", f"{with_interval(wins)} ({sized})"
        shared = found["shared_opening"]
        median = f"median {shared['characters']['p50']:.0f} characters in common"
        yield "Same first character", f"{percent(round(shared['share_of_pairs'], 3))} of pairs; {median}"
    turns = [f"{count(rows)} with {turns}" for turns, rows in found["turns"].items()]
    yield "User turns", ", ".join(turns[:TURNS]) + (f", {len(turns) - TURNS} longer" if len(turns) > TURNS else "")
    if found["with_system_turn"]:
        yield "System turn", f"{count(found['with_system_turn'])} rows"
    scripts = [f"{script} {_share(share)}" for script, share in list(found["scripts"].items())[:5]]
    yield "Scripts", ", ".join(scripts) or "no letters"
    near = found["near_duplicate_prompts"]
    alike = [f"such as {one} and {other}" for one, other in near["pairs"][:1]]
    yield (
        "Near-duplicate prompts",
        "; ".join([f"{count(near['having_one'])} of {count(near['prompts'])} different ones", *alike]),
    )
    if found["sampled_rows"] < found["account"]["kept"]:
        yield (
            "Sample",
            f"scripts, tokens and near-duplicates are of {count(found['sampled_rows'])} rows drawn at random",
        )
    if found["bad_rows"]["first"]:
        yield "First bad row", visible(found["bad_rows"]["first"])


def _share(share: float) -> str:
    """Write a share, a small one not as if it were none."""
    return percent(round(share, 3)) if share >= 0.001 else "< 0.1 %"


def _fates(found: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    account = found["account"]
    counts = [("kept", account["kept"])]
    counts += [(f"dropped: {reason.replace('_', ' ')}", rows) for reason, rows in sorted(account["dropped"].items())]
    counts += [(f"quarantined: {code}", rows) for code, rows in sorted(found["bad_rows"]["codes"].items())]
    for fate, rows in [*counts, ("rows in", account["rows_in"])]:
        yield {"": fate, "rows": count(rows), "share": _share(rows / account["rows_in"])}


def _lengths(found: Mapping[str, Any]) -> Iterator[dict[str, str]]:
    columns = LENGTHS | {"p100": "most"}
    for unit in ("characters", "tokens"):
        for side, spread in found.get(unit, {}).items():
            yield {"": f"{side}, {unit}"} | {name: count(round(spread[key])) for key, name in columns.items()}
    if "score_margin" in found:
        spread = found["score_margin"]
        yield {"": "score margin"} | {name: number(spread[key], 2) for key, name in columns.items()}


def _sample(sample: Mapping[str, Any]) -> Sample:
    responses = [
        (SIGNS.get(response["is"], "·"), response["is"], _scored(response)) for response in sample["responses"][:4]
    ]
    return Sample(visible(sample["id"]), visible(sample["prompt"]), responses)


def _scored(response: Mapping[str, Any]) -> str:
    score = "" if response["score"] is None else f"[{response['score']:.3g}] "
    return score + visible(response["text"])
