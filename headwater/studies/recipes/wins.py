"""What models won of pairs, as matrices over repeats and pairs, compared pair by pair."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from headwater import noninferiority, statistics
from headwater.data.truncation import parse_keep
from headwater.errors import DataError
from headwater.evaluation.comparison import compare as mcnemar
from headwater.evaluation.comparison import wins
from headwater.noninferiority import Comparison
from headwater.reporting.accuracy_comparison import won_pairs
from headwater.results.runs import Run
from headwater.statistics import Estimate, Floats
from headwater.studies.recipes.finished import Finished, others


class Wins(NamedTuple):
    """What was won of pairs, 1, ½ or 0, by repeat: [repeats, pairs], NaN where a repeat did not score a pair."""

    values: Floats
    repeats: tuple[str, ...]
    """What tells a repeat from the others, such as its seed."""
    pairs: tuple[str, ...]
    """Ids of the pairs."""
    conversation_ids: tuple[str, ...]


def wins_of(cells: Sequence[Finished], rows: Sequence[str]) -> Wins:
    """Return what the models of `evaluate` runs won; `rows` are the names of the values that the cells share.

    Errors: `DataError` where the ids of a run's pairs are not unique.
    """
    scored: dict[str, dict[str, float]] = {}
    conversations: dict[str, str] = {}
    for cell in cells:
        found = won_pairs(cell.run)
        own = scored.setdefault(others(cell, rows), {})
        for pair in found:
            own[pair.name.id] = pair.won
            conversations[pair.name.id] = pair.name.conversation_id or pair.name.id
        if len(own) < len(found):
            raise DataError(str(cell.run.path), "its pairs have no unique ids", "give rows an id")
    values = np.full((len(scored), len(conversations)), np.nan)
    places = {name: place for place, name in enumerate(conversations)}
    for repeat, own in enumerate(scored.values()):
        for name, won in own.items():
            values[repeat, places[name]] = won
    return Wins(values, tuple(scored), tuple(conversations), tuple(conversations.values()))


def compare(first: Wins, second: Wins, margin: float) -> Comparison | None:
    """Compare two models on the pairs that the same repeat of both scored; `margin` is in percentage points.

    None where they share no pair of a repeat.
    """
    repeats = [name for name in first.repeats if name in second.repeats]
    pairs = sorted(set(first.pairs) & set(second.pairs))
    if not repeats or not pairs:
        return None
    ours, theirs = (_of(one, repeats, pairs) for one in (first, second))
    conversation_ids = dict(zip(first.pairs, first.conversation_ids, strict=True))
    difference = statistics.crossed_mean(ours - theirs, [conversation_ids[name] for name in pairs])
    known = np.isfinite(ours - theirs)
    if not known.any():
        return None
    return noninferiority.against(difference, margin, same=bool((ours[known] == theirs[known]).all()))


def _of(found: Wins, repeats: Sequence[str], pairs: Sequence[str]) -> Floats:
    place = {name: number for number, name in enumerate(found.pairs)}
    return found.values[np.ix_([found.repeats.index(name) for name in repeats], [place[name] for name in pairs])]


def words_on(pairs: Sequence[str], run: Run, keep: str) -> Floats:
    """Return what the bag of words of a `signal` run won of pairs [pairs] at a kept ratio; NaN where it read none.

    Errors: `DataError` where the run did not measure the ratio.
    """
    column = f"margin_at_{float(parse_keep(keep).amount):g}"
    records = run.records()
    if not records or column not in records[0]:
        raise DataError(str(run.path), f"has no margins at {keep}", "add it to the ratios of its signal step")
    margins = {record["id"]: record[column] for record in records}
    found = np.array([margins.get(name, np.nan) for name in pairs])
    return np.where(np.isfinite(found), wins(found, np.zeros(len(found))), np.nan)


def against_words(ours: Wins, run: Run, keep: str) -> dict[str, Estimate]:
    """Return the accuracy of the bag of words on the pairs that a model scored, and how far the model is above it.

    McNemar's exact p is added where every pair was scored once, as over folds.
    """
    theirs = words_on(ours.pairs, run, keep)
    difference = ours.values - theirs
    scored = np.where(np.isfinite(ours.values), theirs, np.nan)
    above = statistics.crossed_mean(difference, ours.conversation_ids)
    found = {"bag of words": statistics.crossed_mean(scored, ours.conversation_ids), "above words": above}
    known = np.isfinite(difference)
    if (known.sum(axis=0) <= 1).all() and known.any():
        repeat, place = np.nonzero(known)
        ids = [ours.conversation_ids[one] for one in place]
        tested = mcnemar("bag of words", ours.values[repeat, place], theirs[place], ids, 0)
        found["McNemar p"] = Estimate(tested.p_value, None, None, len(ids), len(set(ids)))
    return found
