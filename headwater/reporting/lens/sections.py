"""The lenses of runs, as sections of their report."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from markupsafe import Markup

from headwater.files import to_json
from headwater.reporting.lens import decodes
from headwater.reporting.lens.page import DATA, section
from headwater.reporting.lens.views import BY_HALF, PAIR, Contents, contents
from headwater.results.runs import Run

ROOM = 1_500_000
"""Bytes that all lenses of a report may take together."""


class Embedded(NamedTuple):
    """A run's lens on a report."""

    name: str
    says: str
    """How many of its entries are shown, and which."""
    lens: Markup


def embedded(runs: Sequence[Run], names: Mapping[Any, str]) -> list[Embedded]:
    """Return the lenses of runs of `lens` and `decode`; `names` are the runs', by path."""
    found = [(names[run.path], plain) for run in runs if (plain := _of(run))]
    return [_embedded(name, plain, place, ROOM // len(found)) for place, (name, plain) in enumerate(found, start=1)]


def _of(run: Run) -> Contents | None:
    if run.command == "lens" and (run.path / DATA).is_file():
        plain: Contents = json.loads((run.path / DATA).read_text(encoding="utf-8"))
        return plain
    rows = decodes.decoded(run) if run.command == "decode" else ()
    return contents(decodes.lens_of(run, rows, BY_HALF)) if rows else None


def _embedded(name: str, plain: Contents, place: int, room: int) -> Embedded:
    some, whole = extremes(plain, room), len(plain["entries"])
    shown = len(some["entries"])
    pairs = len(plain["sides"]) == len(PAIR)
    kind = "pairs" if pairs else "responses"
    by = f"{'margins' if pairs else 'totals'} of {plain['readings'][0]['score']}" if plain["readings"] else "lengths"
    which = f"{shown} of {whole} {kind}: those with the lowest and the highest {by}."
    return Embedded(name, f"{whole} {kind}." if shown == whole else which, section(some, f"lens-{place}:"))


def extremes(plain: Contents, room: int) -> Contents:
    """Return the entries with the lowest and highest margin or total, alternately, within `room` bytes."""
    entries = plain["entries"]
    order = sorted(range(len(entries)), key=lambda place: _standing(entries[place], plain["sides"]))
    turns = [order[place // 2] if place % 2 == 0 else order[-1 - place // 2] for place in range(len(order))]
    kept, used = [], 0
    for place in turns:
        used += len(to_json(entries[place]).encode())
        if used > room:
            break
        kept.append(place)
    return {**plain, "entries": [entries[place] for place in sorted(kept)]}


def _standing(entry: Contents, sides: Sequence[str]) -> float:
    """Return the margin of a pair, the total of what was decoded, or the length where nothing was scored."""
    if entry["margins"]:
        return float(entry["margins"][0])
    return float(
        sum(entry[side]["scores"][0][-1] if entry[side]["scores"] else len(entry[side]["pieces"]) for side in sides)
    )
