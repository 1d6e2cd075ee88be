"""Which rows to learn from: preference variance and its rivals, on equal terms.

    builder = Builder()
    for record in reading.stream("candidates.jsonl"): builder.add(record)
    pool = builder.pool("reward")                              # flat arrays, no text
    scores = build("pvar(tau=1.0)", SELECTORS, "selector")(pool)
    choice = choose(scores, costs(pool, "prompts", None, 0), Budget.parse("10%"), "top", seed=0)

A selector gives every row a number; everything else (which end, how many, from which source) is the same for all.
"""

from __future__ import annotations

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
from headwater.data.selection.pairing import PAIRINGS, Compared, Pairing, compared, costs, seed_of
from headwater.data.selection.pool import PROBABILITIES, Builder, Measure, Pool, Rewards, Scores, responses_of
from headwater.data.selection.selectors import SELECTORS, Need, PVar, Random, Selector, lacking, rivals, unit_of
from headwater.data.selection.variance import Floats, Ints, PairMean, logit, pair_mean, preference_variance
from headwater.data.selection.writing import SCORES, Harvest, annotation_rows, write_annotation, write_scores

__all__ = [
    "PAIRINGS",
    "PROBABILITIES",
    "SCORES",
    "SELECTORS",
    "Agreement",
    "Budget",
    "Builder",
    "Choice",
    "Compared",
    "Effect",
    "Floats",
    "Harvest",
    "Ints",
    "Measure",
    "Need",
    "PVar",
    "PairMean",
    "Pairing",
    "Pool",
    "PromptGroups",
    "Random",
    "Rewards",
    "Scores",
    "Selector",
    "Take",
    "agreement",
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
    "rivals",
    "seed_of",
    "unit_of",
    "write_annotation",
    "write_scores",
]
