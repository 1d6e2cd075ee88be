"""Choice of rows by their scores: which end of the ranking, how many, and from which sources."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headwater.config.calls import shown
from headwater.data.selection.variance import Floats, Ints
from headwater.errors import UsageError

Take = Literal["top", "bottom", "middle", "random", "stratified"]
Unit = Literal["prompts", "pairs", "tokens"]
STRATA = 10
"""Equal parts of the ranking that a stratified choice draws from in turn."""


def ranking(scores: Floats, take: Take, seed: int) -> Ints:
    """Return the rows that have a score, first-taken first: any beginning of it is a choice.

    Equal scores come in a seeded random order, not in the order of the file. `random` and `stratified` draw among the
    same rows, so that they are controls of the other three.
    """
    defined = np.flatnonzero(~np.isnan(scores))
    draw = np.random.default_rng(seed).random(len(scores))[defined]
    ascending = defined[np.lexsort((draw, scores[defined]))]
    shuffled = defined[np.argsort(draw)]
    if take == "bottom":
        return ascending
    if take == "top":
        return ascending[::-1]
    if take == "middle":
        centre = (len(ascending) - 1) / 2
        return ascending[np.argsort(np.abs(np.arange(len(ascending)) - centre), kind="stable")]
    if take == "random":
        return shuffled
    strata = np.empty(len(scores), dtype=np.int64)
    strata[ascending] = np.arange(len(ascending)) * STRATA // max(1, len(ascending))
    return interleaved(shuffled, strata)


def interleaved(order: Ints, groups: NDArray[Any]) -> Ints:
    """Reorder so that every beginning holds each group in its share; the order within a group stays.

    `groups` [rows] names the group of every row. The k-th of a group's n rows comes at (k + ½) / n of the way.
    """
    _, group, sizes = np.unique(groups[order], return_inverse=True, return_counts=True)
    by_group = np.argsort(group, kind="stable")
    place = np.empty(len(order))
    place[by_group] = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return order[np.argsort((place + 0.5) / sizes[group], kind="stable")]


def without_repeats(order: Ints, groups: Sequence[int]) -> Ints:
    """Keep the first row of every group: of near-duplicates, the one that is taken first."""
    _, first = np.unique(np.asarray(groups)[order], return_index=True)
    return order[np.sort(first)]


class Choice(NamedTuple):
    """What was chosen of a pool, and why the rest was not."""

    rows: Ints
    """[taken], the first-taken first."""
    dropped: Counter[str]
    """Rows that were not taken, by reason."""
    tied: int
    """Of the top or bottom: rows left out with the score of the last row taken; a draw decided among them."""


def choose(
    scores: Floats,
    costs: Ints,
    budget: Budget,
    take: Take,
    seed: int,
    *,
    sources: Sequence[str] | None = None,
    groups: Sequence[int] | None = None,
) -> Choice:
    """Take rows of `scores` [rows] until their `costs` [rows] reach the budget; rows that cost nothing are no use.

    With `sources` [rows] each source gives its share; of each of `groups` [rows] no more than one row is taken.
    """
    dropped: Counter[str] = Counter()
    order = ranking(np.where(costs > 0, scores, np.nan), take, seed)
    dropped["undefined_score"] = int(np.isnan(scores).sum())
    dropped["no_pair"] = len(scores) - dropped["undefined_score"] - len(order)
    if groups is not None:
        unique = without_repeats(order, groups)
        dropped["near_duplicate"] = len(order) - len(unique)
        order = unique
    if sources is not None:
        order = interleaved(order, np.asarray(sources))
    total = len(scores) if budget.unit == "prompts" else int(costs.sum())
    count = budget.afforded(costs[order], total)
    dropped["over_budget"] = len(order) - count
    at_an_end = take in ("top", "bottom") and sources is None and count
    tied = int((scores[order[count:]] == scores[order[count - 1]]).sum()) if at_an_end else 0
    return Choice(order[:count], +dropped, tied)


_BUDGET = re.compile(r"(\d{1,40}(?:\.\d{1,40})?)(%?)\s*(prompts?|pairs?|tok(?:ens?)?)?", re.ASCII)
_UNITS: dict[str, Unit] = {"": "prompts", "pr": "prompts", "pa": "pairs", "to": "tokens"}


@dataclass(frozen=True, slots=True)
class Budget:
    """How much to take: `10%`, `500prompts`, `2000pairs`, `5%tokens`; a share is one of all rows read."""

    amount: Fraction
    """A count, or a share in (0, 1]."""
    unit: Unit
    share: bool

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read a budget. Errors: `UsageError`, also for a bare number, which could be a count or a percentage."""
        found = _BUDGET.fullmatch(text.strip())
        if not found or not (found[2] or found[3]):
            example = "such as 10%, 500prompts, 2000pairs, 1000000tokens"
            raise UsageError(f"--budget {shown(text)}", "expected an amount with its unit", example)
        amount, unit = Fraction(found[1]), _UNITS[(found[3] or "")[:2]]
        if found[2]:
            amount /= 100
        if not (0 < amount <= 1 if found[2] else amount >= 1 and amount.denominator == 1):
            raise UsageError(f"--budget {text}", "expected above 0% to 100%, or a whole number of 1 or more")
        return cls(amount, unit, bool(found[2]))

    def afforded(self, costs: Ints, total: int) -> int:
        """Return how many of the first rows fit, whose `costs` are in the order of taking; a share is of `total`."""
        limit = self.amount * total if self.share else self.amount
        return int(np.searchsorted(np.cumsum(costs), int(limit), side="right"))
