"""Reward–KL frontier: mean reward of every strategy at its KL from the reference, against interpolation.

Interpolation between the two models is the baseline: a strategy is useful where its reward lies above the baseline's at
the same KL. Plain numbers only; starts without torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from headwater import statistics
from headwater.data.published import published_points
from headwater.errors import UsageError
from headwater.results.decoding import FrontierPoint, PublishedPoints
from headwater.statistics import LEVEL, RESAMPLES, Estimate, Floats

BASELINE = "interpolate"


class GridPoint(NamedTuple):
    """A strategy of the grid."""

    name: str
    """Constructor call of the strategy."""
    family: str
    setting: float


@dataclass(frozen=True)
class FrontierOptions:
    """Grid options: the strategies to try, and what is recommended from them."""

    first: tuple[int, ...] = (5, 10, 20, 50)
    """Numbers of tokens of length_control(first=…) to try."""
    thresholds: tuple[float, ...] = (0.05, 0.1, 0.5, 1.0)
    """Thresholds of kl_threshold(threshold=…) to try, in nats."""
    below: float = 0.0
    """Weight of the policy where KL is below the threshold: 0 as in the paper, 0.5 as in its code."""
    weights: tuple[float, ...] = (0.25, 0.5, 0.75, 1.5)
    """Weights of interpolate(weight=…), the baseline, to try; 0 and 1, the two models, are always tried."""
    best_of: tuple[int, ...] = (4,)
    """Numbers of responses of the reference from which the first reward model picks the best."""
    budget: float | None = None
    """KL in nats that a response may spend, for the recommendation. Default: half of what the policy spends."""
    published: tuple[str, ...] = ()
    """Points of papers to draw behind, as FILE.json:NAME, where NAME holds [KL, reward] pairs; their rewards are
    from other models."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work. Errors: `UsageError`."""
        if any(n < 2 for n in self.best_of):
            raise UsageError(f"--best-of {min(self.best_of)}", "expected 2 or more")
        if self.budget is not None and self.budget < 0:
            raise UsageError(f"--budget {self.budget:g}", "expected nats, 0 or more")

    def grid(self) -> list[GridPoint]:
        """Return the strategies to decode, the two models alone first."""
        points = [GridPoint("reference", BASELINE, 0.0), GridPoint("policy", BASELINE, 1.0)]
        points += [GridPoint(f"interpolate(weight={w:g})", BASELINE, w) for w in self.weights if w not in (0, 1)]
        points += [GridPoint(f"length_control(first={t})", "length_control", t) for t in self.first]
        below = f", below={self.below:g}" if self.below else ""
        points += [GridPoint(f"kl_threshold(threshold={b:g}{below})", "kl_threshold", b) for b in self.thresholds]
        return list(dict.fromkeys(points))

    def published_points(self) -> PublishedPoints:
        """Return the points of papers to draw behind the frontier. Errors: `UsageError`."""
        return PublishedPoints({name: tuple(published_points(name)) for name in self.published})


class StrategyResponses(NamedTuple):
    """The responses of one strategy."""

    name: str
    """Constructor call of the strategy."""
    family: str
    setting: float
    kl: Floats
    """KL(used ‖ reference) of every response, in nats."""
    reward: Floats
    conversation_ids: list[str]


def best_of(rewards: Floats, picker: Floats, conversation_ids: Sequence[str], n: int) -> StrategyResponses:
    """Return the best of the first n draws by `picker` with its `rewards`, both [prompts, draws]; NaN is never picked.

    Its KL is log n − (n − 1)/n, an upper bound (arXiv:2401.01879).
    """
    picked = np.where(np.isnan(picker[:, :n]), -np.inf, picker[:, :n]).argmax(1)
    kl = np.full(len(picked), math.log(n) - (n - 1) / n)
    return StrategyResponses(
        f"best_of(n={n})", "best_of", n, kl, rewards[np.arange(len(picked)), picked], list(conversation_ids)
    )


def frontier(points: Iterable[StrategyResponses], seed: int, reward_model: str = "") -> list[FrontierPoint]:
    """Return every point with intervals clustered by conversation, and its gap to the baseline.

    All points are resampled together: they answer the same prompts, so differences are paired. Responses without a
    reward (NaN) are left out of both means.
    """
    usable = [_usable(point) for point in points]
    kl, reward = _resampled(usable, seed)
    gaps = _gaps(usable, kl, reward)
    rows = []
    for point, gap in zip(usable, gaps, strict=True):
        known = gap is not None and point.family != BASELINE
        rows.append(
            FrontierPoint(
                reward_model=reward_model,
                name=point.name,
                family=point.family,
                setting=point.setting,
                kl=statistics.mean(point.kl, point.conversation_ids, seed),
                reward=statistics.mean(point.reward, point.conversation_ids, seed),
                gap=gap if known else None,
            )
        )
    return rows


def _usable(point: StrategyResponses) -> StrategyResponses:
    stays = ~np.isnan(point.reward)
    conversation_ids = [
        conversation_id for conversation_id, stay in zip(point.conversation_ids, stays, strict=True) if stay
    ]
    return point._replace(kl=point.kl[stays], reward=point.reward[stays], conversation_ids=conversation_ids)


def _resampled(points: Sequence[StrategyResponses], seed: int) -> tuple[Floats, Floats]:
    """Return mean KL and mean reward, [points, 1 + resamples] each; the first column is of the data as it is."""
    names = sorted({conversation_id for point in points for conversation_id in point.conversation_ids})
    place = {name: index for index, name in enumerate(names)}
    drawn = np.random.default_rng(seed).multinomial(len(names), np.full(len(names), 1 / len(names)), size=RESAMPLES)
    weights = np.vstack([np.ones(len(names)), drawn])
    kl, reward = [], []
    for point in points:
        index = [place[conversation_id] for conversation_id in point.conversation_ids]
        columns = (np.ones(len(index)), point.kl, point.reward)
        sums = [np.bincount(index, weights=column, minlength=len(names)) for column in columns]
        with np.errstate(invalid="ignore", divide="ignore"):  # a resample may hold no response of a point
            count, total_kl, total_reward = (weights @ each for each in sums)
            kl.append(total_kl / count)
            reward.append(total_reward / count)
    return np.array(kl), np.array(reward)


def _gaps(points: Sequence[StrategyResponses], kl: Floats, reward: Floats) -> list[Estimate | None]:
    """Return how far every point lies above the line through the baseline's points."""
    base = [place for place, point in enumerate(points) if point.family == BASELINE]
    order = np.argsort(kl[base], axis=0)
    line = [np.take_along_axis(each[base], order, axis=0) for each in (kl, reward)]
    gaps = reward - np.array([_on_line(each, *line) for each in kl])
    tail = 100 * (1 - LEVEL) / 2
    found: list[Estimate | None] = []
    for point, (value, *resampled) in zip(points, gaps, strict=True):
        if np.isnan(value):
            found.append(None)
            continue
        clusters = len(set(point.conversation_ids))
        # Where many resamples leave the baseline's range, the remaining ones would give a truncated interval.
        inside = np.mean(np.isfinite(resampled)) >= LEVEL and clusters > 1
        low, high = (float(end) for end in np.nanpercentile(resampled, [tail, 100 - tail])) if inside else (None, None)
        found.append(Estimate(float(value), low, high, len(point.reward), clusters))
    return found


def _on_line(x: Floats, xs: Floats, ys: Floats) -> Floats:
    """Interpolate at x [n] in n lines through points [points, n], sorted by xs; NaN beyond their ends."""
    found = np.full(x.shape, np.nan)
    for left in range(len(xs) - 1):
        width = xs[left + 1] - xs[left]
        share = np.divide(x - xs[left], width, out=np.zeros_like(x), where=width > 0)
        inside = (xs[left] <= x) & (x <= xs[left + 1])
        found = np.where(inside, ys[left] + share * (ys[left + 1] - ys[left]), found)
    return found
