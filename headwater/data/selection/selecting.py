"""A selection from data to result: read rows into a pool, score and choose them, and describe the choice.

read = read_pool(reading.stream("candidates.jsonl"), SelectionOptions())
chosen = select(read, options.plan(), options, seed=42)
chosen.choice.rows                                             # which rows, the first-taken first
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from headwater.console import say
from headwater.data.facts import Scores, SelectionFacts
from headwater.data.preference import Candidates, Preference
from headwater.data.reading import RowReader
from headwater.data.selection.choosing import Choice, choose
from headwater.data.selection.duplicates import PromptGroups
from headwater.data.selection.effects import Agreement, Effect, agreement, blocks, columns_of, effects
from headwater.data.selection.options import Plan, SelectionOptions
from headwater.data.selection.pairing import costs
from headwater.data.selection.pool import PROBABILITIES, Measure, Pool, PoolBuilder, Rewards
from headwater.data.selection.selectors import PVar, alternatives, unit_of
from headwater.data.selection.variance import Floats, Ints
from headwater.data.tokenizers import is_call, load_tokenizer
from headwater.errors import DataError, UsageError
from headwater.statistics import Estimate, std

SCORE_NAMES: dict[Scores, str] = {
    "probability": "logit of a probability",
    "likelihood": "log-likelihoods",
    "reward": "rewards",
}


class ReadPool(NamedTuple):
    """The rows to choose from."""

    pool: Pool
    groups: list[int] | None
    """Group of near-duplicate prompts of every row, [rows]; None where near-duplicates are not dropped."""
    scores: Scores
    """Meaning of the scores of the data."""
    models: list[str]
    """Models whose recorded rewards replace the scores of the data."""


def read_pool(
    row_reader: RowReader,
    options: SelectionOptions,
    recorded: Mapping[str, Sequence[Rewards]] | None = None,
    known_scores: Scores | None = None,
) -> ReadPool:
    """Read all rows into a pool, without their texts.

    `recorded` are rewards, implicit rewards and likelihoods that runs recorded of this data; `known_scores` is what
    the run that wrote the data says of its scores. Errors: those of the reader, `DataError` for rows of another kind.
    """
    recorded = recorded or {}
    builder = PoolBuilder(_measure(options.tokenizer), **recorded)
    prompts = PromptGroups() if options.drop_near_duplicates else None
    for record in several_responses(row_reader):
        builder.add(record)
        if prompts:
            prompts.add(record.prompt)
    if not row_reader.row_counts.kept:
        raise row_reader.no_usable_rows()
    by_layout: Scores = "probability" if row_reader.layout.split(" ")[0] in PROBABILITIES else "reward"
    scores = options.scores or known_scores or by_layout
    say(f"data: {row_reader.place} · {row_reader.layout}")
    pool = builder.pool(scores)
    unscored = int(np.isnan(pool.reward).sum())
    if not options.rewards and (scores == "likelihood" or unscored < len(pool.lengths)):
        say(f"scores: {SCORE_NAMES[scores]}, as the data has them")
    if unscored and scores != "likelihood":
        say(f"no reward: {unscored:,} of {len(pool.lengths):,} responses, left out of every comparison of rewards")
    models = [rewards.name for rewards in recorded.get("rewards", ())]
    return ReadPool(pool, prompts.groups() if prompts else None, scores, models)


def several_responses(row_reader: RowReader) -> Iterator[Preference | Candidates]:
    """Yield the rows of a reader. Errors: `DataError` for single responses with a label."""
    for record in row_reader:
        if not isinstance(record, Preference | Candidates):
            found = f"holds single responses with a label: {row_reader.layout}"
            raise DataError(row_reader.place, found, "expected several")
        yield record


def _measure(name: str | None) -> Measure | None:
    """Return a function that counts tokens; None for characters. Errors: `UsageError`."""
    if name is None:
        return None
    if is_call(name):
        raise UsageError(f"--tokenizer {name}", "is trained on data held in memory", "name a tokenizer that exists")
    tokenizer = load_tokenizer(name, ())
    return lambda texts: [len(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]]


@dataclass(frozen=True)
class Selected:
    """A choice of rows, with the scores that it was made by."""

    read: ReadPool
    plan: Plan
    scores: Floats  # [rows] NaN where it is not defined
    choice: Choice
    seed: int
    _choose: Callable[[Plan, Floats], Choice]

    @property
    def effects(self) -> dict[str, Effect]:
        """Means of the score, of lengths and of reward gaps, over all rows and over those taken."""
        columns = {"score": self.scores} | columns_of(self.read.pool)
        return effects(self.read.pool, columns, self.choice.rows, self.seed)

    def facts(self, by: str) -> SelectionFacts:
        """Return what later steps and the report need to know; `by` is the call of the selector."""
        found: SelectionFacts = {"selected_by": by, "selected_end": self.plan.take}
        # Pairs that are made of candidates carry the rewards that they were made by.
        found["scores"] = "reward" if self.plan.pairing else self.read.scores
        if isinstance(self.plan.selector, PVar):
            found["pvar_unit"] = unit_of(self.read.pool, self.plan.selector.tau, self.plan.selector.scale)
        return found

    def metrics(self, effects: Mapping[str, Effect]) -> dict[str, Estimate | float | int | str | None]:
        """Return row counts, the means of `effects`, the spread of the scores, and ties at the end of the choice."""
        pool, scores = self.read.pool, self.scores
        defined = np.flatnonzero(~np.isnan(scores))
        clusters = blocks([pool.conversation_ids[row] for row in defined.tolist()])
        found: dict[str, Estimate | float | int | str | None] = {"rows": len(pool), "taken": len(self.choice.rows)}
        for name, effect in effects.items():
            found |= {f"{name}_all": effect.all, f"{name}_taken": effect.taken}
        spread = std(scores[defined], clusters, self.seed)
        return found | {"score_std": spread, "tied_at_the_end": self.choice.tied}

    def agreements(self) -> Iterator[Agreement]:
        """Yield how every other selector that the rows serve compares, at its defaults and its own end."""
        pool, plan = self.read.pool, self.plan
        for name, selector, seen in alternatives(plan.selector, pool, self.read.models):
            try:
                others = selector(seen)
            except DataError as error:  # such as margins that are all negative: there is nothing to compare with
                say(f"not compared: {error}")
                continue
            other = self._choose(plan._replace(selector=selector, take=selector.takes), others)
            yield agreement(pool, name, self.scores, others, self.choice.rows, other.rows, self.seed)


def select(read: ReadPool, plan: Plan, options: SelectionOptions, seed: int) -> Selected:
    """Score and choose rows; `seed` breaks ties and makes draws."""
    scores = plan.selector(read.pool)
    row_costs: Ints = costs(read.pool, plan.budget.unit, plan.pairing, seed)
    sources = read.pool.sources if options.per_source else None

    def chosen(plan: Plan, scores: Floats) -> Choice:
        return choose(scores, row_costs, plan.budget, plan.take, seed, sources=sources, groups=read.groups)

    return Selected(read, plan, scores, chosen(plan, scores), seed, chosen)


def rows_to_measure(pool: Pool, count: int, seed: int) -> list[int]:
    """Return `count` rows with two or more rewards, drawn at random: those whose gradients are measured."""
    drawn: Iterable[int] = np.random.default_rng(seed).permutation(pool.scored_rows())[:count]
    return [int(row) for row in drawn]
