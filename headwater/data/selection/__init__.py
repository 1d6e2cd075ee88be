"""Select the rows to learn from, by preference variance and other selectors.

    builder = PoolBuilder()
    for record in reading.stream("candidates.jsonl"): builder.add(record)
    pool = builder.pool("reward")                              # flat arrays, no text
    scores = build("pvar(tau=1.0)", SELECTORS, "selector")(pool)
    choice = choose(scores, costs(pool, "prompts", None, 0), Budget.parse("10%"), "top", seed=0)

A selector gives every row a score; which end of the ranking is taken, how many rows, and from which sources, is chosen
in the same way for all. `selecting.select` does all of it.
"""

from __future__ import annotations

from headwater.data.facts import Scores
from headwater.data.selection.choosing import Budget, Choice, Take, choose
from headwater.data.selection.duplicates import PromptGroups
from headwater.data.selection.effects import (
    Agreement,
    Effect,
    agreement,
    blocks,
    by_source,
    columns_of,
    effects,
    gradient_figures,
)
from headwater.data.selection.pairing import PAIRINGS, Pairing, PromptPairs, compared, costs, seed_of
from headwater.data.selection.pool import PROBABILITIES, Measure, Pool, PoolBuilder, Rewards, responses_of
from headwater.data.selection.selectors import SELECTORS, Need, PVar, Random, Selector, alternatives, lacking, unit_of
from headwater.data.selection.variance import Floats, Ints, PairMean, logit, pair_mean, preference_variance
from headwater.data.selection.writing import (
    SCORES,
    ChosenRows,
    Example,
    ExampleResponse,
    annotation_rows,
    write_annotation,
    write_scores,
)

__all__ = [
    "PAIRINGS",
    "PROBABILITIES",
    "SCORES",
    "SELECTORS",
    "Agreement",
    "Budget",
    "Choice",
    "ChosenRows",
    "Effect",
    "Example",
    "ExampleResponse",
    "Floats",
    "Ints",
    "Measure",
    "Need",
    "PVar",
    "PairMean",
    "Pairing",
    "Pool",
    "PoolBuilder",
    "PromptGroups",
    "PromptPairs",
    "Random",
    "Rewards",
    "Scores",
    "Selector",
    "Take",
    "agreement",
    "alternatives",
    "annotation_rows",
    "blocks",
    "by_source",
    "choose",
    "columns_of",
    "compared",
    "costs",
    "effects",
    "gradient_figures",
    "lacking",
    "logit",
    "pair_mean",
    "preference_variance",
    "responses_of",
    "seed_of",
    "unit_of",
    "write_annotation",
    "write_scores",
]
