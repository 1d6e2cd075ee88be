"""The signal measurement as a whole: what scores prefixes, the curves, the signal depth, and the recommendation.

measured = measure_signal(preferences)                        # a bag of words: no model, no torch
measured = measure_signal(preferences, model="runs/reward")   # a reward model, or a policy with its reference
measured.curve.to_pandas()
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from headwater.console import say
from headwater.data import segmentation
from headwater.data.preference import Preference
from headwater.data.preparation import PrepLog, prepare
from headwater.data.splitting import unseen
from headwater.data.truncation import Truncation
from headwater.results import runs
from headwater.results.facts import Facts
from headwater.results.signal import CurvePoint, SignalCurve
from headwater.signals.curves import Curves, Grid, groups_of, measure
from headwater.signals.depth import Recommendation, depth_metrics, recommend, training_saved
from headwater.signals.options import ScorerOptions, SignalOptions
from headwater.signals.prefix_scorers import Ints, PrefixScorer
from headwater.signals.words import Words
from headwater.statistics import Estimate


@dataclass(frozen=True)
class SignalMeasurement:
    """A measured signal: the curve, its figures, and the margins of every pair."""

    curve: SignalCurve
    metrics: dict[str, Estimate]
    """Accuracy on full responses, that of length alone, and the signal depths."""
    facts: Facts
    """The recommendation (`verdict`, `recommended_keep`, `says`), the unit, the shuffled labels, and what scored."""
    records: list[dict[str, Any]]
    """One row a pair: lengths, and the margin of the chosen response at every ratio."""

    def _repr_html_(self) -> str:
        """Return the curve as a table for a notebook, under the recommendation."""
        return f"<p>{self.facts['says']}</p>{self.curve._repr_html_()}"


@dataclass(frozen=True)
class SignalInput:
    """The pairs to measure, and what scores their prefixes."""

    preferences: list[Preference]
    score: Callable[[], PrefixScorer]
    """Runs the forward passes; everything that can be refused has been refused before."""
    prompts: Ints  # [pairs] length of every prompt, in the unit of the scorer
    facts: Facts

    @property
    def conversation_ids(self) -> list[str]:
        """The conversations by which intervals are clustered, [pairs]."""
        return [preference.conversation_id for preference in self.preferences]


def measure_signal(
    preferences: Sequence[Preference],
    model: str | None = None,
    *,
    options: SignalOptions | None = None,
    scorer: ScorerOptions | None = None,
    allow_leakage: bool = False,
    seed: int = 42,
) -> SignalMeasurement:
    """Return where in the responses of `preferences` the preference is decided.

    Without a `model`, a cross-fitted bag of words scores every prefix; with a reward model, or a policy and its
    reference, one forward pass a pair does. Pairs that the model was trained on are left out unless `allow_leakage`.
    Errors: `UsageError`, `ModelError`, `DataError` for too few conversations.
    """
    options, scorer = options or SignalOptions(), scorer or ScorerOptions()
    if model is None:
        grid = options.grid(None, None, seed)
        return measure_input(words_input(list(preferences), seed), options, grid)
    from headwater.signals import passes

    grid = options.grid(model, passes.head_of(model), seed)
    spans = options.spans(grid)
    read = model_input(list(preferences), model, scorer, spans, seed, PrepLog(), allow_leakage=allow_leakage)
    return measure_input(read, options, grid)


def words_input(preferences: list[Preference], seed: int) -> SignalInput:
    """Return pairs that are scored by a cross-fitted bag of words. Errors: `DataError` for too few conversations."""
    say("scorer: a bag of words, cross-fitted; --model takes a reward model or a policy")
    prompts = [sum(len(segmentation.ends(m.content, "word")) for m in p.prompt) for p in preferences]
    words = Words.read(preferences, seed)
    return SignalInput(preferences, lambda: words, np.array(prompts, dtype=np.int64), {"kind": "words"})


def model_input(
    preferences: list[Preference],
    model: str,
    options: ScorerOptions,
    spans: Sequence[Truncation],
    seed: int,
    prep_log: PrepLog,
    *,
    allow_leakage: bool,
) -> SignalInput:
    """Return pairs that a model scores, loaded and encoded; a reward model scores `spans` in passes of their own.

    Row counts go to `prep_log`. Errors: `UsageError`, `ModelError`, `DataError` where no pair is left.
    """
    from headwater.models import loading
    from headwater.signals import passes

    if not allow_leakage:
        preferences, prep_log.stages["leakage"] = unseen(preferences, runs.trained_on(Path(model)))
    head = passes.head_of(model)
    if head == "reward":
        loading.check_conditions(model, (preference.condition for preference in preferences))
    scorer = passes.load_prefix_model(model, options, seed, preferences)
    pairs = prepare("read pairs", preferences, scorer.encode_options, scorer.tokenizer, prep_log)
    facts: Facts = {
        "kind": runs.facts_of(Path(model)).get("kind", "reward model" if head == "reward" else "policy"),
        "end": scorer.encode_options.end,
        "training_flops_a_token": 6 * scorer.parameters,
    }
    return SignalInput(
        [preferences[pair.row] for pair in pairs],
        lambda: scorer.score_with_spans(pairs, spans),
        np.array([len(pair.prompt) for pair in pairs], dtype=np.int64),
        facts,
    )


def measure_input(read: SignalInput, options: SignalOptions, grid: Grid) -> SignalMeasurement:
    """Score all prefixes, and return the curves with their figures and the recommendation."""
    scorer = read.score()
    groups = groups_of(read.preferences, scorer.lengths)
    curves = measure(scorer, read.conversation_ids, groups.members, grid)
    advice = recommend(curves, grid.ratios, options.margin)
    points = list(curves.curve(scorer.unit).points)
    if scorer.unit != Words.unit:
        points += _words_curve(read, grid)
    facts = read.facts | _facts(scorer, read.prompts, curves, advice)
    facts |= {"published": options.published} if options.published else {}
    facts |= {"margin": options.margin / 100, "groups_too_small": groups.too_small}
    return SignalMeasurement(
        SignalCurve((*points, *options.published_curve(scorer.unit))),
        depth_metrics(curves, grid.ratios),
        facts,
        _records(read.preferences, scorer, curves, [f"{float(ratio):g}" for ratio in grid.ratios]),
    )


def _words_curve(read: SignalInput, grid: Grid) -> list[CurvePoint]:
    """Return the accuracy of a bag of words on the pairs that a model has scored: the signal that needs no model."""
    if len(set(read.conversation_ids)) < Words.fewest:
        say(f"control: too few conversations for the bag of words, which takes {Words.fewest} or more")
        return []
    own = dataclasses.replace(grid, amounts=(), cuts=("own",), parts=(), shuffles=0)
    curves = measure(Words.read(read.preferences, grid.seed), read.conversation_ids, {}, own)
    return [dataclasses.replace(point, curve="words") for point in curves.curve(Words.unit).along()]


def _facts(scorer: PrefixScorer, prompts: Ints, curves: Curves, advice: Recommendation) -> Facts:
    """Return what later steps and the report need to know."""
    saved = None if advice.keep is None else training_saved(prompts, scorer.lengths, advice.keep)
    return {
        "unit": scorer.unit,
        "verdict": advice.verdict,
        "recommended_keep": None if advice.keep is None else str(float(advice.keep)),
        "recommended_flops_saved": saved,
        "says": advice.sentence + (f" It saves {100 * saved:.0f} % of the FLOPs of training." if saved else ""),
        "shuffled": [float(curves.shuffled.min()), float(curves.shuffled.max())],
        "shuffles": len(curves.shuffled),
    }


def _records(
    preferences: Sequence[Preference], scorer: PrefixScorer, curves: Curves, ratios: Sequence[str]
) -> list[dict[str, Any]]:
    """Return one row a pair: lengths, and the margins of the chosen response at every ratio."""
    lengths = scorer.lengths.tolist()
    return [
        {
            "id": preference.id,
            "source": preference.source,
            "opening": preference.conversation_id,
            f"chosen_{scorer.unit}": chosen,
            f"rejected_{scorer.unit}": rejected,
            **{f"margin_at_{ratio}": float(value) for ratio, value in zip(ratios, margins, strict=True)},
        }
        for preference, (chosen, rejected), margins in zip(preferences, lengths, curves.margins, strict=True)
    ]
