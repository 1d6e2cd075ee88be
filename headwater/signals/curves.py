"""Accuracy at every prefix, with controls for what else could explain it.

A point is the share of pairs whose chosen response scores higher when only that much of both responses is read; ties
count ½. The controls are the same figure for length alone (`length`), for other parts of the same size (`suffix`,
`middle`, `random-span`), with labels reversed where the cut changes which response is longer (`length-flip`), and for
shuffled labels, which should give ½.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

import numpy as np

from headwater.console import track
from headwater.data.preference import Preference
from headwater.data.truncation import CutBy, Keep, Part, Truncation
from headwater.results.signal import CurvePoint, SignalCurve
from headwater.signals.bootstrap import Bootstrap
from headwater.signals.prefix_scorers import Ints, PrefixScorer, kept_of
from headwater.statistics import Estimate, Floats

SHUFFLES = 19
"""An accuracy above those of 19 shuffles of the labels has p ≤ 1/20 (Phipson and Smyth, 2010)."""

ALL = "all"
"""The group of all pairs."""

LEAST = 100
"""Fewest pairs of a group that gets a curve; its standard error is about 0.05."""
MOST_SOURCES = 12
"""Most sources that get a curve, the largest first."""


@dataclass(frozen=True)
class Grid:
    """Where curves are measured."""

    ratios: tuple[Fraction, ...]
    """Shares of a response, ascending; the last one is 1."""
    amounts: tuple[int, ...] = ()
    """Numbers of tokens or words, ascending."""
    cuts: tuple[CutBy, ...] = ("own", "equal", "shared")
    """By whose length ratios are taken; the first one is `own`."""
    parts: tuple[Part, ...] = ("suffix", "middle", "random-span")
    """Other parts that are scored as controls, where the scorer can score them."""
    shuffles: int = SHUFFLES
    seed: int = 0
    """Seeds the shuffles, the random spans and the bootstrap."""

    def spans(self) -> list[Truncation]:
        """Return the other parts of the same size, by own cuts, at every ratio below 1."""
        keeps = [Keep(ratio) for ratio in self.ratios[:-1]]
        return [Truncation(keep, part=part, seed=self.seed) for part in self.parts for keep in keeps]

    def keeps(self) -> list[Keep]:
        """Return every kept amount, ratios first."""
        return [Keep(ratio) for ratio in self.ratios] + [Keep(Fraction(amount), "tok") for amount in self.amounts]


class CurveKey(NamedTuple):
    """Identifies one measured point."""

    curve: str
    """`accuracy`, `margin` (mean reward difference, in units of the scorer), or the name of a control."""
    cut: CutBy
    keep: Keep
    group: str = ALL


@dataclass(frozen=True)
class Curves:
    """All measured points with their bootstrap resamples; resamples are paired across points."""

    points: dict[CurveKey, Estimate]
    draws: dict[CurveKey, Floats]  # [resamples]
    margins: Floats  # [pairs, ratios] of own cuts
    shuffled: Floats  # [shuffles] accuracies on full responses with shuffled labels

    def along(self, curve: str, ratios: Sequence[Fraction]) -> tuple[Floats, Floats]:
        """Return a curve of own cuts at `ratios`: its values [k] and resamples [resamples, k]."""
        keys = [CurveKey(curve, "own", Keep(ratio)) for ratio in ratios]
        return np.array([self.points[key].value for key in keys]), np.stack([self.draws[key] for key in keys], axis=1)

    def curve(self, unit: str) -> SignalCurve:
        """Return every point as a stored result; amounts that are not ratios count `unit`."""
        return SignalCurve(
            tuple(
                CurvePoint(
                    curve=key.curve,
                    cut=key.cut,
                    unit="ratio" if key.keep.unit == "ratio" else unit,
                    amount=float(key.keep.amount),
                    group=key.group,
                    **point._asdict(),
                )
                for key, point in self.points.items()
            )
        )


def measure(
    prefix_scorer: PrefixScorer, conversation_ids: Sequence[str], groups: Mapping[str, Floats], grid: Grid
) -> Curves:
    """Return all points of `grid` for a scorer of pairs with these `conversation_ids` [pairs].

    `groups` map a name to an indicator of its members [pairs] (1 or 0). Intervals are clustered by conversation.
    """
    labels = np.ones(len(prefix_scorer.lengths))
    keeps = track(grid.keeps(), "reading prefixes", len(grid.keeps()))
    margins = {keep: prefix_scorer.margins(Truncation(keep), labels) for keep in keeps}
    outcomes = dict(_prefixes(prefix_scorer, margins, grid))
    outcomes |= dict(_controls(prefix_scorer, grid))
    for keep, margin in margins.items():
        for group, members in groups.items():
            outcomes[CurveKey("accuracy", "own", keep, group)] = np.where(members > 0, wins(margin), np.nan)
    means = Bootstrap(conversation_ids, grid.seed).means(np.stack(list(outcomes.values())))
    return Curves(
        points=dict(zip(outcomes, means.estimates(), strict=True)),
        draws={key: means.draws[:, row] for row, key in enumerate(outcomes)},
        margins=np.stack([margins[Keep(ratio)] for ratio in grid.ratios], axis=1),
        shuffled=_shuffled(prefix_scorer, grid),
    )


def _prefixes(prefix_scorer: PrefixScorer, own: Mapping[Keep, Floats], grid: Grid) -> Iterator[tuple[CurveKey, Floats]]:
    """Yield outcomes [pairs] (1, ½ or 0) and margins at every prefix, with the outcomes of the two length controls.

    `own` are the margins of own cuts, which are computed before.
    """
    labels = np.ones(len(prefix_scorer.lengths))
    for keep in grid.keeps():
        for cut in grid.cuts if keep.unit == "ratio" else grid.cuts[:1]:
            truncation = Truncation(keep, cut)
            margins = own[keep] if cut == "own" else prefix_scorer.margins(truncation, labels)
            outcome = wins(margins)
            kept = kept_of(truncation, prefix_scorer.lengths)
            yield CurveKey("accuracy", cut, keep), outcome
            yield CurveKey("margin", cut, keep), margins
            yield CurveKey("length", cut, keep), wins(kept[:, 0] - kept[:, 1])
            yield CurveKey("length-flip", cut, keep), with_length_flips(outcome, prefix_scorer.lengths, kept)


def _controls(prefix_scorer: PrefixScorer, grid: Grid) -> Iterator[tuple[CurveKey, Floats]]:
    """Yield the outcome of every pair for other parts of the same size, by own cuts."""
    labels = np.ones(len(prefix_scorer.lengths))
    for span in filter(prefix_scorer.reads, grid.spans()):
        yield CurveKey(span.part, "own", span.keep), wins(prefix_scorer.margins(span, labels))


def _shuffled(prefix_scorer: PrefixScorer, grid: Grid) -> Floats:
    """Return accuracies on full responses with random labels, [shuffles]."""
    generator = np.random.default_rng(grid.seed)
    shuffles = track(range(grid.shuffles), "shuffling labels", grid.shuffles)
    coins = (generator.choice([-1.0, 1.0], len(prefix_scorer.lengths)) for _ in shuffles)
    return np.array([wins(prefix_scorer.margins(Truncation(), labels)).mean() for labels in coins])


def wins(margins: Floats | Ints) -> Floats:
    """Return 1 where the margin is above 0, ½ where it is 0, and 0 elsewhere, [pairs]."""
    return (np.sign(margins) + 1.0) / 2


def with_length_flips(outcomes: Floats, lengths: Ints, kept: Ints) -> Floats:
    """Return outcomes [pairs] with labels reversed where a cut from `lengths` to `kept` [pairs, 2] changes the order.

    A pair counts the other way round if the cut makes its other response the longer one, and ½ if it makes both
    equally long: the accuracy that would remain if labels depended on length alone.
    """
    before, after = (np.sign(size[:, 0] - size[:, 1]) for size in (lengths, kept))
    turn = np.where(before == 0, 1, before * after)
    return 0.5 + turn * (outcomes - 0.5)


class Groups(NamedTuple):
    """Groups of pairs that get a curve of their own."""

    members: dict[str, Floats]  # name to [pairs] of 1 and 0
    too_small: dict[str, int]
    """Groups without a curve, and their pairs."""


def groups_of(preferences: Sequence[Preference], lengths: Ints) -> Groups:
    """Group pairs by source, mean length, number of user turns, and score difference where the data holds scores."""
    labels: dict[str, list[str]] = {
        "source": [p.source for p in preferences],
        "turns": [_turns(p) for p in preferences],
        "length": _thirds(lengths.mean(axis=1), ("short", "middle", "long")),
    }
    margins = np.array([_score_margin(p) for p in preferences])
    if len(margins) and np.isfinite(margins).all():
        labels["score margin"] = _thirds(margins, ("narrow", "middle", "wide"))
    found: dict[str, Floats] = {}
    for kind, names in labels.items():
        values, counts = np.unique(names, return_counts=True)
        largest = values[np.argsort(-counts, kind="stable")][:MOST_SOURCES] if kind == "source" else values
        if len(values) > 1:  # a group of everything is no group
            found |= {f"{kind}: {value}": (np.asarray(names) == value).astype(np.float64) for value in largest}
    sizes = {name: int(members.sum()) for name, members in found.items()}
    large = {name: members for name, members in found.items() if sizes[name] >= LEAST}
    return Groups(large, {name: size for name, size in sizes.items() if size < LEAST})


def _turns(preference: Preference) -> str:
    turns = sum(message.role == "user" for message in preference.prompt)
    return "1" if turns <= 1 else "2" if turns == 2 else "3 or more"


def _score_margin(preference: Preference) -> float:
    chosen, rejected = preference.chosen.score, preference.rejected.score
    return float("nan") if chosen is None or rejected is None else chosen - rejected


def _thirds(values: Floats, names: tuple[str, str, str]) -> list[str]:
    """Name the third in which each value lies, with the third's bounds."""
    low, high = np.quantile(values, [1 / 3, 2 / 3])
    bounds = f"up to {low:.3g}", f"up to {high:.3g}", f"above {high:.3g}"
    full = [f"{name} ({bound})" for name, bound in zip(names, bounds, strict=True)]
    return [full[int(value > low) + int(value > high)] for value in values]
