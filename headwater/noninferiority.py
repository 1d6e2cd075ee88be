"""Comparison of two models on the same pairs, against a margin: the one rule of every sentence that compares.

    found = noninferiority.paired(won, theirs, conversation_ids)     # 1, ½ or 0 a pair, [pairs] each
    found.verdict                                                 # "not_worse", "worse", "undecided", …
    found.says("the base model")                                  # "is not worse than the base model by more than …"

A difference is *worse* where its interval lies wholly below 0, and *not worse by more than the margin* where it lies
wholly above −margin (non-inferiority: Piaggio et al. 2012, JAMA 308). Both can hold, and then both are said. Where
neither holds the comparison is undecided, and the number of pairs that would decide it is estimated. Intervals hold
95 %, so that each of the wrong claims is made in at most 2.5 % of studies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from headwater import statistics
from headwater.errors import UsageError
from headwater.statistics import Estimate, Floats

MARGIN = 2.0
"""Default margin, in percentage points: a loss up to this is no loss that matters."""
POWER = 0.8
"""Probability with which `Comparison.needed` pairs decide a comparison whose difference is the one that was seen."""

Verdict = Literal["same", "better", "not_worse", "slightly_worse", "worse", "undecided", "too_few"]
"""same: equal on every pair. better: above 0, and so not worse. not_worse: not by more than the margin.
slightly_worse: below 0, but not by more than the margin. worse: below 0. too_few: there is no interval."""

_Z = 1.959964
"""Quantile of a normal distribution at 97.5 %."""
_Z_POWER = 0.841621
"""Quantile of a normal distribution at `POWER`."""


class Comparison(NamedTuple):
    """Difference of two models on the same pairs, the first less the second, and what it says against a margin."""

    difference: Estimate
    """Higher is better; in shares of 1, as the margin."""
    margin: float
    same: bool = False
    """Whether both are equal on every pair."""

    @property
    def not_worse(self) -> bool:
        """Whether the first is not worse by more than the margin: the interval lies wholly above −margin."""
        return self.difference.low is not None and self.difference.low > -self.margin

    @property
    def worse(self) -> bool:
        """Whether the first is worse: the interval lies wholly below 0."""
        return self.difference.high is not None and self.difference.high < 0

    @property
    def better(self) -> bool:
        """Whether the first is better: the interval lies wholly above 0."""
        return self.difference.low is not None and self.difference.low > 0

    @property
    def verdict(self) -> Verdict:
        """What the interval says, in a word."""
        if self.same:
            return "same"
        if self.difference.low is None:
            return "too_few"
        if self.worse:
            return "slightly_worse" if self.not_worse else "worse"
        if self.better:
            return "better"
        return "not_worse" if self.not_worse else "undecided"

    @property
    def needed(self) -> int | None:
        """Number of pairs that would decide it with probability `POWER`; None where it is decided or cannot be told.

        The difference is taken to be the one that was seen, and the interval to shrink with the root of the number.
        """
        found = self.difference
        if self.verdict != "undecided" or found.low is None or found.high is None:
            return None
        wide = (found.high - found.low) / 2
        reach = max(found.value + self.margin, -found.value) / (1 + _Z_POWER / _Z)
        return math.ceil(found.n * (wide / reach) ** 2)

    def says(self, other: str, unit: str = "pairs", shown: str = "") -> str:
        """Return the answer as the end of a sentence about the first model, with its numbers.

        `other` is the name of the second and `unit` what was compared, such as `prompts`; `shown` are other numbers
        than the difference in points.
        """
        by, n = points(self.margin), f"{self.difference.n:,} {unit}"
        numbers = f"{shown or signed_points(self.difference)}, n = {n}"
        answers: dict[Verdict, str] = {
            "same": f"does the same as {other} on every one of {n}: a tie",
            "better": f"is better than {other}: {numbers}",
            "not_worse": f"is not worse than {other} by more than {by}: {numbers}",
            "slightly_worse": f"is worse than {other}, but not by more than {by}: {numbers}",
            "worse": f"is worse than {other}: {numbers}",
            "too_few": f"has too few prompts to be compared with {other}: {numbers}",
        }
        if self.verdict in answers:
            return answers[self.verdict]
        return (
            f"may or may not be worse than {other}, which is not decided at a margin of {by}: {numbers}; about "
            f"{rounded(self.needed)} {unit} would decide it"
        )

    def says_if_better(self, other: str, unit: str = "pairs") -> str:
        """Return the end of a sentence about a model that has to beat `other`, such as a rule that needs no model."""
        if self.better or self.worse or self.same or self.difference.low is None:
            return self.says(other, unit)
        found = self.difference
        return f"is not shown to be better than {other}: {signed_points(found)}, n = {found.n:,} {unit}"


def against(difference: Estimate, margin: float = MARGIN, same: bool = False) -> Comparison:
    """Compare by a difference of shares with its interval; `margin` is in percentage points.

    The interval is widened for small numbers, see `statistics.widened`.
    """
    return Comparison(statistics.widened(difference, span=2), margin / 100, same)


def paired(first: Floats, second: Floats, clusters: Sequence[str], margin: float = MARGIN, seed: int = 0) -> Comparison:
    """Compare what two models won of the same pairs (1, ½ or 0), [pairs] each, by a bootstrap over `clusters` [pairs].

    `margin` is in percentage points.
    """
    difference = statistics.mean(first - second, clusters, seed)
    return against(difference, margin, bool(len(first)) and bool(np.array_equal(first, second)))


def with_a_half(share: Estimate, margin: float = MARGIN) -> Comparison:
    """Compare a win rate, or an accuracy, with ½. The interval is taken as it is; `margin` is in percentage points."""
    low, high = (None if bound is None else bound - 0.5 for bound in (share.low, share.high))
    return Comparison(Estimate(share.value - 0.5, low, high, share.n, share.clusters), margin / 100)


def check_margin(margin: float) -> None:
    """Refuse a margin that is no number of percentage points. Errors: `UsageError`."""
    if not 0 < margin < 100:
        raise UsageError(f"--margin {margin:g}", "expected percentage points above 0", "such as 2")


def points(share: float) -> str:
    """Return a share of 1 as text in percentage points: 0.02 is `2 points`."""
    text = f"{100 * share:.1f}".removesuffix(".0").replace("-", "−")
    return f"{text} point" if text in ("1", "−1") else f"{text} points"


def signed_points(difference: Estimate) -> str:
    """Return a difference of shares with its interval, in points: `−0.3 points [−1.2, +0.6]`."""

    def signed(value: float) -> str:
        return f"{round(100 * value, 1) + 0.0:+.1f}".replace("-", "−")

    if difference.low is None or difference.high is None:
        return f"{signed(difference.value)} points"
    return f"{signed(difference.value)} points [{signed(difference.low)}, {signed(difference.high)}]"


def rounded(count: int | None) -> str:
    """Return a number of pairs to two digits: 12,345 is `12,000`; more than a million is said as that."""
    if count is None or count > 1_000_000:
        return "a million or more" if count else "more"
    step: int = 10 ** max(0, len(str(count)) - 2)
    return f"{math.ceil(count / step) * step:,}"
