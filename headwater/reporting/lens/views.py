"""What a lens shows, and the plain values of it that a page holds."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

import numpy as np

from headwater.data.preference import Message
from headwater.data.truncation import Keep, Truncation
from headwater.reporting.lens.pieces import Piece, Pieces
from headwater.statistics import Floats

PAIR = ("chosen", "rejected")
"""The responses of a preference."""
ALONE = ("response",)
"""Decoded responses have no counterpart."""
FULL_COLOUR = 0.98
"""Share of the increments with distinct colours; the largest ones share the strongest."""


class Reading(NamedTuple):
    """What a column of scores is."""

    score: str
    """In a word or two: reward, KL, …"""
    sums: bool = False
    """Whether a score is a sum over tokens, so that the first token has a part in it too."""
    model: str = ""
    """Who gives it, where several do."""


@dataclass(frozen=True)
class Side:
    """A response, and what is said of its every prefix."""

    pieces: Pieces
    scores: tuple[Floats, ...] = ()
    """[pieces] of each reading: the score of the prefix that ends there."""
    share: Floats | None = None
    """[pieces] How much of it the policy said, where two models spoke: 1 all, 0 the reference alone."""


@dataclass(frozen=True)
class Entry:
    """A line of the lens's list: a preference, or what was decoded."""

    id: str
    prompt: Sequence[Message]
    sides: Mapping[str, Side]
    margins: tuple[float, ...] = ()
    """Of each reading: score of the whole chosen response less that of the rejected one."""
    depths: tuple[int | None, ...] = ()
    """Of each reading: percentage of both responses from which on the margin keeps its sign; None where it is 0."""


@dataclass(frozen=True)
class Lens:
    """Entries, and what is to be known of them."""

    title: str
    notes: Sequence[str]
    """Paragraphs: what was read, by what, and what it says."""
    entries: Sequence[Entry]
    cut: Truncation
    """Initial place of the cut: a share, or a number of tokens."""
    readings: Sequence[Reading] = ()
    sides: tuple[str, ...] = PAIR


BY_HALF = Truncation(Keep(Fraction(1, 2)))
"""Default place of the cut."""

Contents = dict[str, Any]
"""A lens as plain values: what a page holds, and a run keeps."""


def contents(lens: Lens) -> Contents:
    """Return a lens as plain values, with scores of five digits."""
    keep = lens.cut.keep
    absolute = keep.unit == "tok"
    return {
        "title": lens.title,
        "notes": list(lens.notes),
        "sides": list(lens.sides),
        "mode": "tokens" if absolute else lens.cut.cut,
        "at": int(keep.amount) if absolute else round(1000 * keep.amount),
        "readings": [
            {**reading._asdict(), "scale": _scale(lens.entries, place, reading)}
            for place, reading in enumerate(lens.readings)
        ],
        "entries": [entry_of(entry, link) for entry, link in zip(lens.entries, _links(lens.entries), strict=True)],
    }


def _links(entries: Sequence[Entry]) -> list[str]:
    """Return what names each entry in the page's address: its id, numbered where several have the same."""
    taken: set[str] = set()
    seen: Counter[str] = Counter()
    links = []
    for entry in entries:
        seen[entry.id] += 1
        link = entry.id if seen[entry.id] == 1 else f"{entry.id}~{seen[entry.id]}"
        while link in taken:  # another row may be called so by the data
            seen[entry.id] += 1
            link = f"{entry.id}~{seen[entry.id]}"
        taken.add(link)
        links.append(link)
    return links


def entry_of(entry: Entry, link: str) -> Contents:
    """Return an entry as plain values; `link` names it in the page's address."""
    return {
        "id": entry.id,
        "link": link,
        "prompt": [[message.role, message.shown] for message in entry.prompt],
        "margins": [_short(margin) for margin in entry.margins],
        "depths": list(entry.depths),
        **{name: _side(side) for name, side in entry.sides.items()},
    }


def _side(side: Side) -> Contents:
    pieces: list[Piece] = side.pieces.every
    return {
        "before": side.pieces.before,
        "after": side.pieces.after,
        "pieces": [piece.text for piece in pieces],
        "closing": len(side.pieces.closing),
        "several": {str(i): piece.tokens for i, piece in enumerate(pieces) if piece.tokens != 1},
        "scores": [[_short(score) for score in scores] for scores in side.scores],
        "share": None if side.share is None else [_short(share) for share in side.share],
    }


def _scale(entries: Sequence[Entry], place: int, reading: Reading) -> float | None:
    """Return the increment that has the strongest colour, over all entries, so that they compare; None without any."""
    empty = [0.0] if reading.sums else []  # the score of no token, where there is one
    columns = [side.scores[place] for entry in entries for side in entry.sides.values()]
    increments = [np.abs(np.diff(np.concatenate([empty, scores]))) for scores in columns]
    found = np.concatenate(increments) if increments else np.zeros(0)
    found = found[found > 0]  # which NaN is not
    return _short(float(np.quantile(found, FULL_COLOUR))) if len(found) else None


def scales(entry: Entry, readings: Sequence[Reading]) -> list[float | None]:
    """Return what would have the strongest colour if this entry were the only one."""
    return [_scale([entry], place, reading) for place, reading in enumerate(readings)]


def _short(value: float) -> float | None:
    """Round to five significant digits: what can be read, in a page of half the size."""
    return float(f"{value:.5g}") if math.isfinite(value) else None
