"""Comparison of the accuracies of evaluate runs on the pairs that both scored, and of kept ratios with each other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from headwater import noninferiority
from headwater.data.recorded import Recorded, RowName
from headwater.errors import DataError
from headwater.noninferiority import Comparison
from headwater.results.evaluation import ScoredRows
from headwater.results.runs import Run

SEED = 0
"""Seed of the intervals, so that a page is the same every time."""


class WonPair(NamedTuple):
    """What a model won of one pair."""

    name: RowName
    won: float
    """1 where the chosen response has the higher reward, ½ for a tie, else 0."""


def won_pairs(run: Run) -> list[WonPair]:
    """Return what the model of an evaluate run won, a value a pair; none where the run recorded no rewards of pairs."""
    found = ScoredRows.find(run.path)
    return [
        WonPair(
            RowName(row.id, row.conversation_id, row.key, row.altered),
            (float(np.sign(row.chosen_reward - row.rejected_reward)) + 1) / 2,
        )
        for row in (found.records if found else ())
        if row.chosen_reward is not None and row.rejected_reward is not None
    ]


def compare_runs(first: Sequence[Run], second: Sequence[Run], margin: float) -> Comparison | None:
    """Compare the accuracy of some evaluate runs with that of others, pair by pair.

    A pair that several runs of a side scored counts with the mean of what they won; the bootstrap draws conversations.
    The result is None where the runs share no pair, or where rows cannot be told apart. `margin` is in percentage
    points.
    """
    others = [won_pairs(run) for run in second]
    won, theirs, clusters = [], [], []
    for own in map(won_pairs, first):
        columns = [_joined(own, other) for other in others]
        for place, pair in enumerate(own):
            known = [value for column in columns if (value := column[place]) is not None]
            if known:
                won.append(pair.won)
                theirs.append(float(np.mean(known)))
                clusters.append(pair.name.conversation_id or pair.name.id)
    if not won:
        return None
    return noninferiority.paired(np.array(won), np.array(theirs), clusters, margin, SEED)


def _joined(own: Sequence[WonPair], other: Sequence[WonPair]) -> list[float | None]:
    """Return what the other model won of the same pairs; None for a pair that it did not score."""
    recorded = Recorded("report", [(pair.name, pair.won) for pair in other])
    try:
        return [recorded.of(pair.name) for pair in own]
    except DataError:  # ids that are not unique, in runs that recorded nothing else
        return [None] * len(own)


class Passed(NamedTuple):
    """Kept ratios compared with the longest one, from long to short."""

    longest: float
    tested: dict[float, Comparison]
    """Comparisons by kept ratio, up to the first that is not shown to be no worse."""
    shortest: float | None
    """The shortest ratio of which, as of all longer ones, it is shown that it is not worse; None for none."""


def shortest_not_worse(by_ratio: Mapping[float, Sequence[Run]], margin: float) -> Passed | None:
    """Find the shortest kept ratio whose models are not worse than those of the longest by more than `margin`.

    Ratios are tested from long to short, and the first that is not shown to be no worse ends it: tested in a fixed
    order, each at the full level, a wrong claim stays as rare as in a single test (Maurer, Hothorn and Lehmacher
    1995). None where runs share no pairs.
    """
    longest, *shorter = sorted(by_ratio, reverse=True)
    tested: dict[float, Comparison] = {}
    for keep in shorter:
        found = compare_runs(by_ratio[keep], by_ratio[longest], margin)
        if found is None:
            return None
        tested[keep] = found
        if not (found.not_worse or found.same):
            break
    passed = [keep for keep, found in tested.items() if found.not_worse or found.same]
    return Passed(longest, tested, passed[-1] if passed else None)
