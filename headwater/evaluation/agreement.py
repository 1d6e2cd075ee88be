"""Agreement of judges, and the preference of a judge for the answer that is shown first."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from headwater import statistics
from headwater.evaluation.judgements import Compared, Judgement, as_shown_in, mean
from headwater.statistics import Estimate


class Agreement(NamedTuple):
    """Two judges on the answers that both compared."""

    judges: tuple[str, str]
    same: Estimate
    """Share of comparisons with the same winner, ties being a third outcome."""
    kappa: Estimate
    """Cohen's κ over win, tie and loss."""
    rank: Estimate
    """Spearman's correlation of preferences."""


def opinions(judgements: Iterable[Judgement]) -> dict[str, dict[Compared, float]]:
    """Return the mean preference of every judge in every comparison, over its votes with a verdict.

    Comparisons are told apart by their answers (`Judgement.compared`), and the preference is for the answer that stands
    second in the first judgement of them.
    """
    shown: dict[Compared, Judgement] = {}
    votes: dict[str, dict[Compared, list[Judgement]]] = {}
    for one in judgements:
        like = shown.setdefault(one.compared, one)
        votes.setdefault(one.judge, {}).setdefault(one.compared, []).append(as_shown_in(like, one))
    return {
        judge: {key: value for key, each in seen.items() if (value := mean(each)) is not None}
        for judge, seen in votes.items()
    }


def agreements(judgements: Sequence[Judgement], seed: int = 0) -> list[Agreement]:
    """Return the agreement of every two judges on all comparisons that both made, whatever the models."""
    found = opinions(judgements)
    judges = list(found)
    pairs = [(a, b) for place, a in enumerate(judges) for b in judges[place + 1 :]]
    return [_agreement((a, b), found, seed) for a, b in pairs if set(found[a]) & set(found[b])]


def _agreement(judges: tuple[str, str], found: dict[str, dict[Compared, float]], seed: int) -> Agreement:
    from scipy.stats import rankdata

    shared = sorted(set(found[judges[0]]) & set(found[judges[1]]))
    prompts = [prompt for prompt, _, _ in shared]
    a, b = (np.array([found[judge][key] for key in shared]) for judge in judges)
    winners_a, winners_b = np.sign(a - 0.5).astype(int), np.sign(b - 0.5).astype(int)
    return Agreement(
        judges,
        statistics.mean((winners_a == winners_b).astype(np.float64), prompts, seed),
        statistics.kappa(winners_a.tolist(), winners_b.tolist(), prompts, seed),
        statistics.correlation(rankdata(a), rankdata(b), prompts, seed),
    )


def position_bias(judgements: Sequence[Judgement], seed: int = 0) -> Estimate | None:
    """Return how often a judge prefers the answer shown first, ½ being no bias; None where no order is known.

    The figure is meaningful where both orders were shown, or an order drawn at random.
    """
    seen = [one for one in judgements if one.swapped is not None and one.preference is not None]
    if not seen:
        return None
    of_shown_first = [one.preference if one.swapped else 1 - (one.preference or 0.0) for one in seen]
    return statistics.mean(np.array(of_shown_first, dtype=np.float64), [one.prompt for one in seen], seed)
