"""Advice from a frontier: of all strategies that were tried, the one with the highest reward within a budget of KL."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from headwater import statistics
from headwater.decoding.frontier import StrategyResponses
from headwater.results.decoding import FrontierPoint
from headwater.statistics import Estimate, Floats


class Advice(NamedTuple):
    """The best strategies within a budget, by one reward model."""

    budget: float
    """Nats a response."""
    best: FrontierPoint
    """Of all strategies."""
    single: FrontierPoint | None
    """Of those that draw one response a prompt; None where none lies within the budget."""
    gain: Estimate | None
    """Reward of `best` less that of `single`, on the same prompts; None where they are the same."""

    def metrics(self, reward_model: str) -> dict[str, Estimate | str | float]:
        """Return the figures that a run stores, by name."""
        key = Path(reward_model).name
        found: dict[str, Estimate | str | float] = {
            f"recommended_by_{key}": self.best.name,
            f"budget_{key}": self.budget,
            f"reward_{key}": self.best.reward,
            f"kl_{key}": self.best.kl,
        }
        if self.single is not None and self.gain is not None:
            found |= {f"recommended_single_by_{key}": self.single.name, f"best_of_gain_{key}": self.gain}
        return found

    def sentences(self, given: str, reward_model: str, picker: str) -> Iterator[str]:
        """Yield the advice; `given` says where the budget is from, and `picker` chose the best of n."""
        yield f"within {self.budget:.4g} nats ({given}): {self.best.name}, {_figures(self.best)}"
        if self.best.family != "best_of":
            return
        costs = f"it draws {self.best.setting:g} responses a prompt"
        if reward_model == picker:
            costs += ", and they were picked by the same model that scores them here, which flatters it"
        yield f"  {costs}"
        if self.single is None or self.gain is None:
            yield "  no strategy that draws one response lies within the budget"
            return
        low, high = self.gain.low, self.gain.high
        verdict = "is higher" if low is not None and low > 0 else "is not shown to be higher"
        if high is not None and high < 0:
            verdict = "is lower"
        yield f"  with one response a prompt: {self.single.name}, {_figures(self.single)}"
        yield (
            f"  the reward of {self.best.name} {verdict}: {self.gain.value:+.4f} {self.gain.interval()} on the same "
            f"{self.gain.clusters} prompts"
        )


def _figures(point: FrontierPoint) -> str:
    reward, kl = point.reward, point.kl
    return f"reward {reward.value:.4f} {reward.interval()} at {kl.value:.4f} nats {kl.interval()}, n = {reward.n}"


def advise(
    points: Sequence[FrontierPoint], responses: Sequence[StrategyResponses], budget: float, seed: int
) -> Advice | None:
    """Return the strategies with the highest mean reward whose mean KL is at most `budget`; None where none is.

    `points` are the figures of `responses`, by the same reward model.
    """
    within = [point for point in points if point.kl.value <= budget]
    if not within:
        return None
    best = max(within, key=lambda point: point.reward.value)
    single = max((p for p in within if p.family != "best_of"), key=lambda p: p.reward.value, default=None)
    if single is None or single is best:
        return Advice(budget, best, single, None)
    named = {one.name: one for one in responses}
    return Advice(budget, best, single, difference(named[best.name], named[single.name], seed))


def difference(first: StrategyResponses, second: StrategyResponses, seed: int) -> Estimate:
    """Return the mean reward of `first` less that of `second`, with an interval over the conversations of both.

    Responses without a reward are left out; resamples of conversations are the same for both, so that hard prompts
    cancel out.
    """
    sides = []
    for place, one in enumerate((first, second)):
        known = ~np.isnan(one.reward)
        columns = np.zeros((4, len(one.reward)))
        columns[2 * place] = np.where(known, one.reward, 0.0)
        columns[2 * place + 1] = known
        sides.append(columns)
    ids = [*first.conversation_ids, *second.conversation_ids]

    def apart(total: Floats, count: Floats, other: Floats, others: Floats) -> Floats:
        with np.errstate(invalid="ignore", divide="ignore"):  # a resample may hold no response of one side
            found: Floats = total / count - other / others
            return found

    return statistics.of_sums(list(np.concatenate(sides, axis=1)), apart, ids, seed)


def advice(
    points: Sequence[FrontierPoint],
    responses: Sequence[StrategyResponses],
    budget: float | None,
    picker: str,
    seed: int,
) -> tuple[dict[str, Estimate | str | float], list[str]]:
    """Return the figures and the sentences of `advise`; without a budget, for half of what the policy spends."""
    given = "half of what the policy spends" if budget is None else "--budget"
    if budget is None:
        budget = next(point for point in points if point.name == "policy").kl.value / 2
    found = advise(points, responses, budget, seed)
    if found is None:
        return {}, [f"within {budget:.4g} nats ({given}): no point of the grid"]
    model = points[0].reward_model
    return found.metrics(model), list(found.sentences(given, model, picker))
