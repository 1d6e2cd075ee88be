"""Models under judges against a baseline: win rates, also at equal length, score differences, examples, differences."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from headwater import noninferiority, statistics
from headwater.evaluation import length_control
from headwater.evaluation.judgements import Compared, Judgement, facing, mean, whole
from headwater.evaluation.length_control import Fit, Reference
from headwater.results.comparison import ExampleAnswers, ModelExamples
from headwater.statistics import Estimate, Floats


class Opinion(NamedTuple):
    """A judge's preference in one comparison, over all of its votes."""

    prompt: str
    preference: float
    """For the model, against the baseline, 0 to 1."""
    vote: Judgement
    """One of its votes, for texts, scores and category."""

    @property
    def gain(self) -> float:
        """Return the score difference where the judge gives scores, else the preference above ½; 0 for a tie."""
        scores = self.vote.scores
        if self.preference == 0.5:
            return 0.0
        return scores[1] - scores[0] if scores else self.preference - 0.5


class Standing(NamedTuple):
    """One model under one judge, against the baseline."""

    judge: str
    model: str
    votes: list[Judgement]
    opinions: list[Opinion]

    @property
    def prompts(self) -> list[str]:
        """Return the prompt of every opinion."""
        return [one.prompt for one in self.opinions]

    @property
    def all_ties(self) -> bool:
        """Whether every comparison is a tie."""
        return all(one.preference == 0.5 for one in self.opinions)

    def lengths(self) -> Floats | None:
        """Return the characters of both answers, [n, 2]; None where the judgements do not hold them."""
        rows = [one.vote.outputs for one in self.opinions]
        return None if None in rows else np.array([[len(text) for text in row or ()] for row in rows], dtype=np.float64)


def standings(judgements: Sequence[Judgement], baseline: str) -> list[Standing]:
    """Return the comparisons with a verdict of every model under every judge."""
    grouped: dict[tuple[str, str], list[Judgement]] = {}
    for one in facing(whole(judgements), baseline):
        grouped.setdefault((one.judge, one.second), []).append(one)
    return [Standing(judge, model, votes, _opinions(votes)) for (judge, model), votes in grouped.items()]


def _opinions(votes: Sequence[Judgement]) -> list[Opinion]:
    by_answers: dict[Compared, list[Judgement]] = {}
    for one in votes:
        by_answers.setdefault(one.compared, []).append(one)
    found = []
    for each in by_answers.values():
        preference = mean(each)
        assert preference is not None  # `standings` left those out
        found.append(Opinion(each[0].prompt, preference, each[0]))
    return found


def figures(standing: Standing, seed: int) -> dict[str, Estimate]:
    """Return win rate (by votes), and where known: score difference, length difference, correlation of length and gain.

    Lengths are characters, the model's less the baseline's; the correlation is Spearman's, with the gain.
    """
    from scipy.stats import rankdata

    votes = np.array([one.weight for one in standing.votes], dtype=np.float64)
    shares = np.array([one.preference for one in standing.votes], dtype=np.float64)
    rate = statistics.weighted_mean(shares, votes, [one.prompt for one in standing.votes], seed)
    found = {"win_rate": statistics.widened(rate, span=1)}
    gains = np.array([one.gain for one in standing.opinions])
    if all(one.vote.scores for one in standing.opinions):
        found["score_difference"] = statistics.mean(gains, standing.prompts, seed)
    lengths = standing.lengths()
    if lengths is not None:
        longer = lengths[:, 1] - lengths[:, 0]
        found["length_difference"] = statistics.mean(longer, standing.prompts, seed)
        correlation = statistics.correlation(rankdata(longer), rankdata(gains), standing.prompts, seed)
        if not np.isnan(correlation.value):
            found["length_correlation"] = correlation
    return found


def why_undefined(standing: Standing, reference: Reference) -> str:
    """Return why there is no win rate at equal length; nothing where there is one."""
    lengths = standing.lengths()
    if lengths is None:
        return "the judgements do not hold the answers"
    if len(lengths) < 2 * length_control.SPLITS:
        return f"{len(lengths)} pairs are judged, and {2 * length_control.SPLITS} are needed"
    if not np.ptp(lengths[:, 0] - lengths[:, 1]):
        return "all answers differ by the same length"
    one_sided = {one.preference for one in standing.opinions}
    # Difficulties and gamed answers are known of the official prompts: with them, a fit has an end all the same.
    if not len(reference.difficulty) and one_sided in ({0.0}, {1.0}):
        return f"every prompt is {'won' if one_sided == {1.0} else 'lost'}"
    return ""


def at_equal_length(standing: Standing, reference: Reference, seed: int) -> Fit | None:
    """Return the length-controlled win rate; None where it is undefined, as `why_undefined` says.

    Errors: `DataError` where the reference does not fit.
    """
    lengths = standing.lengths()
    if lengths is None or why_undefined(standing, reference):
        return None
    preferences = np.array([one.preference for one in standing.opinions])
    return length_control.win_rate(preferences, lengths, standing.prompts, reference.of(standing.prompts), seed)


def differences(found: Sequence[Standing], seed: int) -> dict[tuple[str, str, str], Estimate]:
    """Return by (judge, model, other) the difference in preference on the prompts that both models answered.

    Differences are taken prompt by prompt, so that the difficulty of a prompt cancels out; of a prompt with several
    answers of one model, their mean is taken.
    """
    result = {}
    for place, one in enumerate(found):
        for other in found[place + 1 :]:
            if one.judge != other.judge:
                continue
            own, theirs = _by_prompt(one), _by_prompt(other)
            prompts = [prompt for prompt in own if prompt in theirs]
            if prompts:
                first, second = (np.array([by[prompt] for prompt in prompts]) for by in (own, theirs))
                compared = noninferiority.paired(first, second, prompts, seed=seed)
                result[one.judge, one.model, other.model] = compared.difference
    return result


def _by_prompt(standing: Standing) -> dict[str, float]:
    """Return the mean preference for a model on every prompt."""
    found: dict[str, list[float]] = {}
    for one in standing.opinions:
        found.setdefault(one.prompt, []).append(one.preference)
    return {prompt: float(np.mean(values)) for prompt, values in found.items()}


def mismatches(rates: dict[tuple[str, str], Estimate]) -> list[tuple[str, str, str]]:
    """Return (model, judge that prefers it, judge that does not) where both intervals exclude ½.

    A policy that was trained on one reward model is better by it, and may be worse by another one.
    """
    found = []
    for (judge, model), rate in rates.items():
        for (other, same), against in rates.items():
            apart = rate.low is not None and against.high is not None and rate.low > 0.5 > against.high
            if model == same and apart:
                found.append((model, judge, other))
    return found


def examples(standing: Standing, count: int) -> ModelExamples:
    """Return the prompts on which the model gained and lost most, `count` each, with both answers if known."""
    order = sorted(standing.opinions, key=lambda one: -one.gain)
    improved = [one for one in order if one.gain > 0][:count]
    degraded = [one for one in reversed(order) if one.gain < 0][:count]
    return ModelExamples(standing.judge, standing.model, tuple(map(_example, improved)), tuple(map(_example, degraded)))


def _example(one: Opinion) -> ExampleAnswers:
    baseline, model = one.vote.outputs or ("", "")
    return ExampleAnswers(one.prompt, one.preference, one.vote.scores, baseline, model)
