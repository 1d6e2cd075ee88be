"""Options of a selection: what ranks rows, how many are taken, and what lengths and rewards are counted by."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from headwater.config import build
from headwater.data.facts import Scores
from headwater.data.selection.choosing import Budget, Take
from headwater.data.selection.pairing import PAIRINGS, Pairing
from headwater.data.selection.pool import Pool
from headwater.data.selection.selectors import SELECTORS, Need, Random, Selector, lacking
from headwater.errors import UsageError


class Plan(NamedTuple):
    """Parsed options."""

    selector: Selector
    budget: Budget
    take: Take
    pairing: Pairing | None


@dataclass(frozen=True)
class SelectionOptions:
    """What ranks rows, how many are selected, and what lengths and rewards are counted by."""

    by: str = "pvar(tau=1.0)"
    """Score that rows are ranked by, such as pvar(tau=1.0, scale="corpus"): the variance of the preference
    probability over the responses to a prompt.

    Also random(seed=0), reward_gap, uncertainty(tau=1.0), length_gap; with --likelihoods: likelihood; with
    --implicit: implicit_gap, dual_margin(low=-2.0), held_out_loss."""
    budget: str = "10%"
    """How much to select: 10% (of the prompts), 500prompts, 2000pairs, 1000000tokens or 5%tokens."""
    take: Take | None = None
    """Part of the ranking to select. Default: the part that the paper behind --by selects."""
    scores: Scores | None = None
    """Meaning of the scores in the data: rewards, probabilities of beating one common opponent, or log-likelihoods.
    Default: by layout, or as `headwater score` recorded it."""
    rewards: tuple[Path, ...] = ()
    """Runs of score, evaluate or sample whose rewards replace the scores of the data; several form an ensemble."""
    implicit: tuple[Path, ...] = ()
    """Runs of score or evaluate that scored this data with policies; adds their implicit rewards."""
    likelihoods: tuple[Path, ...] = ()
    """Runs of `headwater score --value mean_log_prob` (or log_prob) on this data."""
    pairs: str | None = None
    """How pairs are made of several responses: best_worst, best_random, random, all, sigma(k=2.0) or
    best_sigma(k=2.0)."""
    per_source: bool = False
    """Select from every source in proportion to its number of rows."""
    drop_near_duplicates: bool = False
    """Keep one of prompts that are nearly the same (MinHash, Jaccard similarity 0.8). Holds all prompts in memory."""
    tokenizer: str | None = None
    """Tokenizer in whose tokens lengths are measured: Hugging Face name or path. Default: characters."""

    def plan(self) -> Plan:
        """Return the parsed options. Errors: `UsageError` for those that cannot work or have no effect."""
        selector = build(self.by, SELECTORS, "selector")
        budget = Budget.parse(self.budget)
        pairing = build(self.pairs, PAIRINGS, "pairing") if self.pairs else None
        if isinstance(selector, Random) and self.take not in (None, "top"):
            raise UsageError(f"--take {self.take}", "has no effect on a random ranking", "leave it out")
        if self.scores and self.rewards:
            raise UsageError("--scores", "has no effect beside --rewards", "leave one out")
        if budget.unit == "tokens" and not self.tokenizer:
            raise UsageError(f"--budget {self.budget}", "counts tokens", "name your model's with --tokenizer")
        return Plan(selector, budget, self.take or selector.takes, pairing)

    def check(self, plan: Plan, pool: Pool, data: Path, measure_gradients: int | None = None) -> None:
        """Refuse a plan that these rows cannot serve. Errors: `UsageError`."""
        need = lacking(plan.selector, pool)
        if need:
            raise UsageError(f"--by {self.by}", *LACKING[need])
        if plan.pairing and pool.paired:
            raise UsageError(f"--pairs {self.pairs}", f"{data} holds pairs already", "leave it out")
        if plan.budget.unit == "pairs" and not (plan.pairing or pool.paired):
            raise UsageError(f"--budget {self.budget}", "counts pairs, but none are made", "add --pairs best_worst")
        if plan.pairing and np.isnan(pool.reward).all():
            raise UsageError(f"--pairs {self.pairs}", "no response has a reward to compare by", LACKING["rewards"][1])
        if measure_gradients and not len(pool.scored_rows()):
            raise UsageError("--measure-gradients", "no prompt has two responses with rewards", LACKING["rewards"][1])
        self._check_use("--implicit", self.implicit, "implicit", plan)
        self._check_use("--likelihoods", self.likelihoods, "likelihood", plan)

    def _check_use(self, flag: str, given: Sequence[Path], need: Need, plan: Plan) -> None:
        if given and need not in plan.selector.needs:
            readers = ", ".join(name for name, selector in SELECTORS.items() if need in selector.needs)
            raise UsageError(flag, f"has no effect with --by {self.by}", f"it is for {readers}; see --rewards")


LACKING: dict[Need, tuple[str, str]] = {
    "pairs": ("needs pairs of a chosen and a rejected response", "this data holds candidates"),
    "rewards": ("needs rewards, and no response has one", "name runs that scored this data with --rewards"),
    "likelihood": ("needs log-likelihoods", "name runs of score --value mean_log_prob by --likelihoods"),
    "implicit": ("needs implicit rewards", "name runs that scored this data with policies by --implicit"),
}
"""Problem and remedy where a selector needs what the data lacks."""
