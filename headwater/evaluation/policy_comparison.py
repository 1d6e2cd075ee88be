"""Comparison of models under judges: win rates against a baseline, rankings, agreement of judges, examples.

    found = compare(judgements, ComparisonOptions(baseline="base"))
    found.figures.of_model("win_rate", "reward", "dpo")       # Estimate(value=…, low=…, high=…, n=…, clusters=…)
    found.sentences                                           # ["By reward, dpo is better than base: win rate …", …]

Judgements are read by `judgement_files.read`, from AlpacaEval, Arena-Hard, human labels, or a judge run.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from headwater import noninferiority
from headwater.data.reading import RowCounts
from headwater.errors import DataError, UsageError
from headwater.evaluation import alpaca_eval, arena_hard, bradley_terry, length_control, policies
from headwater.evaluation.agreement import Agreement, agreements
from headwater.evaluation.arena_hard import AnswerStyle
from headwater.evaluation.judgements import Judgement, identical_are_ties, say_identical, whole
from headwater.evaluation.length_control import Fit, Reference
from headwater.evaluation.policies import Standing
from headwater.noninferiority import MARGIN
from headwater.results.comparison import (
    ComparedAnswers,
    ComparedPrompts,
    ComparisonTables,
    JudgedFigures,
    OfficialFigures,
    WinShare,
    of_judges,
    of_model,
)
from headwater.results.runs import RunWriter
from headwater.statistics import Estimate, Floats

Fits = Mapping[tuple[str, str], Fit]
"""Length-controlled win rates by judge and model."""


@dataclass(frozen=True)
class ComparisonOptions:
    """How models are compared."""

    baseline: str | None = None
    """Model to compare with; None: the one that comes first in all judgements."""
    reference: Reference = length_control.NOTHING
    """AlpacaEval's data for its official length-controlled win rate."""
    style_control: bool = False
    """Whether models are ranked at equal style: length, headers, lists and bold."""
    styles: Mapping[tuple[str, str], AnswerStyle] = field(default_factory=dict)
    """Styles by (model, prompt) of answers that the judgements do not hold."""
    upstream: bool = False
    """Whether win rates are computed as Arena-Hard does, with 90 % intervals over single votes."""
    examples: int = 5
    """Number of most improved, and of most degraded, prompts to keep."""
    margin: float = MARGIN
    """Percentage points of win rate by which a model may be below ½ and still count as not worse."""
    seed: int = 42


@dataclass(frozen=True)
class PolicyComparison:
    """Models under judges, against a baseline."""

    baseline: str
    standings: list[Standing]
    figures: JudgedFigures
    tables: ComparisonTables
    records: ComparedPrompts
    agreements: list[Agreement]
    differences: dict[tuple[str, str, str], Estimate]
    """Difference in preference by (judge, model, other model), over the prompts that both answered."""
    undefined: Mapping[tuple[str, str], str]
    """Why there is no win rate at equal length, by judge and model."""
    sentences: list[str]
    """What follows, with numbers."""
    length_control: str | None
    """Mode of the length-controlled win rates, see `length_control`; None without any."""
    row_counts: RowCounts
    """Votes with a verdict: kept where they show the baseline."""

    def write(self, run: RunWriter) -> None:
        """Store the comparison in a run."""
        for part in (self.figures, self.records, self.tables):
            run.write(part)
        run.facts |= {"baseline": self.baseline, "says": self.sentences, "length_control": self.length_control}


def compare(judgements: Sequence[Judgement], options: ComparisonOptions | None = None) -> PolicyComparison:
    """Compare every model with the baseline under every judge.

    Comparisons with a vote that has no verdict are left out, and answers of the same text are ties. Errors:
    `UsageError` where the baseline is ambiguous or met no other model, `DataError` for models that cannot be ranked,
    and where the reference does not fit.
    """
    options = options or ComparisonOptions()
    judgements = identical_are_ties(judgements)
    usable = whole(judgements)
    baseline = options.baseline or _baseline(judgements)
    standings = policies.standings(judgements, baseline)
    reference = _in_order(options.reference, standings)
    if not standings:
        met = sorted({name for one in judgements for name in (one.first, one.second)})
        raise UsageError(f"--baseline {baseline}", "met no other model", f"judged are {', '.join(met)}")
    fits = {
        (one.judge, one.model): fit
        for one in standings
        if (fit := policies.at_equal_length(one, reference, options.seed))
    }
    undefined = {
        (one.judge, one.model): policies.why_undefined(one, reference)
        for one in standings
        if (one.judge, one.model) not in fits
    }
    found = agreements(usable, options.seed)
    differences = policies.differences(standings, options.seed)
    figures = dict(_model_figures(standings, fits, options))
    figures |= dict(_between(found, differences))
    figures |= dict(_strengths(usable, baseline, options))
    votes = sum(len(one.votes) for one in standings)
    return PolicyComparison(
        baseline=baseline,
        standings=standings,
        figures=JudgedFigures({name: value for name, value in figures.items() if value.value == value.value}),  # no NaN
        tables=_tables(standings, usable, fits, options.examples),
        records=ComparedPrompts(tuple(row for standing in standings for row in _records(standing, baseline))),
        agreements=found,
        differences=differences,
        undefined=undefined,
        sentences=[
            *say_identical(vote for standing in standings for vote in standing.votes),
            *_sentences(standings, figures, fits, baseline, options.margin),
            *_undefined(undefined),
        ],
        length_control=next((fit.mode for fit in fits.values()), None),
        row_counts=RowCounts(len(usable), votes, +Counter({"without_baseline": len(usable) - votes})),
    )


def _in_order(reference: Reference, standings: Sequence[Standing]) -> Reference:
    """Return the reference with the order of its instructions, from a model that was judged on all of them."""
    complete = [one.prompts for one in standings if len(one.prompts) == len(reference.difficulty) > 0]
    return reference if reference.prompts or not complete else reference.with_prompts(complete[0])


def _baseline(judgements: Sequence[Judgement]) -> str:
    """Return the one model that is first in all judgements. Errors: `UsageError`."""
    first = sorted({one.first for one in judgements})
    if len(first) > 1:
        raise UsageError("--baseline", f"is not plain: {', '.join(first)} come first", "name one")
    return first[0]


def _model_figures(
    standings: Sequence[Standing], fits: Fits, options: ComparisonOptions
) -> Iterator[tuple[str, Estimate]]:
    """Yield the figures of every model under every judge, and its win rate in every category of prompts."""
    for one in standings:
        own = policies.figures(one, options.seed)
        if options.upstream:
            own["win_rate"] = arena_hard.upstream(one.votes, options.seed)
        if fit := fits.get((one.judge, one.model)):
            value, low, high, n, clusters = fit.estimate
            figure = "minimal_lc_win_rate" if fit.mode == "minimal" else "lc_win_rate"
            own[figure] = Estimate(value / 100, (low or 0) / 100, (high or 0) / 100, n, clusters)
        categories = sorted({vote.category for vote in one.votes})
        for category in categories if len(categories) > 1 else ():
            votes = [vote for vote in one.votes if vote.category == category]
            own[f"win_rate in {category}"] = arena_hard.score(votes, options.seed)
        for name, estimate in own.items():
            yield of_model(name, one.judge, one.model), estimate


def _between(
    found: Sequence[Agreement], differences: Mapping[tuple[str, str, str], Estimate]
) -> Iterator[tuple[str, Estimate]]:
    """Yield the figures of every two judges, and of every two models."""
    for one in found:
        yield of_judges("agreement", one.judges), one.same
        yield of_judges("kappa", one.judges), one.kappa
        yield of_judges("rank", one.judges), one.rank
    for (judge, model, other), estimate in differences.items():
        yield of_model("difference", judge, f"{model} − {other}"), estimate


def _strengths(
    judgements: Sequence[Judgement], baseline: str, options: ComparisonOptions
) -> Iterator[tuple[str, Estimate]]:
    """Yield Bradley–Terry strengths by judge and model, of more than two models or at equal style."""
    for judge in dict.fromkeys(one.judge for one in judgements):
        own = [one for one in judgements if one.judge == judge and one.first != one.second]
        if len({name for one in own for name in (one.first, one.second)}) < 3 and not options.style_control:
            continue
        styles = _style_differences(own, options.styles) if options.style_control else None
        ranking = bradley_terry.rank(own, baseline, styles, options.seed)
        names = [*ranking.models, *(f"style: {name}" for name in arena_hard.STYLES if styles is not None)]
        for name, strength in zip(names, [*ranking.strengths, *ranking.styles], strict=True):
            yield of_model("strength", judge, name), strength


def _style_differences(judgements: Sequence[Judgement], known: Mapping[tuple[str, str], AnswerStyle]) -> Floats:
    """Return the style differences of both answers, [n, 4]. Errors: `DataError` for an answer of unknown style."""
    sides = []
    for place in (0, 1):
        styles = []
        for one in judgements:
            model = (one.first, one.second)[place]
            if one.outputs is None and (model, one.prompt) not in known:
                raise DataError("--style-control", f"no answer of {model} to {one.prompt}", "name it with --answers")
            styles.append(arena_hard.style_of(one.outputs[place]) if one.outputs else known[model, one.prompt])
        sides.append(styles)
    return arena_hard.style_differences(*sides)


def _sentences(
    standings: Sequence[Standing], figures: Mapping[str, Estimate], fits: Fits, baseline: str, margin: float
) -> Iterator[str]:
    """Yield what follows, with numbers: who is better, whether judges contradict each other, extreme fits."""
    rates = {(one.judge, one.model): figures[of_model("win_rate", one.judge, one.model)] for one in standings}
    for one in standings:
        rate = rates[one.judge, one.model]
        compared = noninferiority.with_a_half(rate, margin)._replace(same=one.all_ties)
        shown = f"win rate {rate.value:.3f} {rate.interval()}"
        yield f"By {one.judge}, {one.model} {compared.says(baseline, 'votes', shown)}."
    for model, judge, other in policies.mismatches(rates):
        yield f"The judges contradict each other on {model}: {judge} prefers it, {other} does not."
    for (judge, model), fit in fits.items():
        before = 100 * rates[judge, model].value
        if fit.mode == "minimal":
            found = figures[of_model("minimal_lc_win_rate", judge, model)]
            yield (
                f"By {judge}, {model} at equal length by a model of length alone (minimal; not AlpacaEval's figure): "
                f"{found.value:.3f}, and with the error of that model between {found.low:.3f} and {found.high:.3f}. On "
                f"AlpacaEval's prompts, --lc-data df_gamed.csv of its repository settles it."
            )
        elif length_control.is_extreme(before, fit.estimate.value):
            moved = f"moves from {before:.1f} to {fit.estimate.value:.1f}"
            yield f"By {judge}, the win rate of {model} {moved} at equal length: the length model may not fit."


def _undefined(undefined: Mapping[tuple[str, str], str]) -> Iterator[str]:
    """Yield why there is no win rate at equal length, for every model without one."""
    for (judge, model), why in undefined.items():
        yield f"By {judge}, the win rate of {model} at equal length is undefined: {why}."


def _records(standing: Standing, baseline: str) -> Iterator[ComparedAnswers]:
    lengths = standing.lengths()
    for row, one in enumerate(standing.opinions):
        scores = one.vote.scores
        yield ComparedAnswers(
            judge=standing.judge,
            model=standing.model,
            baseline=baseline,
            prompt=one.prompt,
            category=one.vote.category,
            preference=one.preference,
            baseline_score=scores[0] if scores else None,
            model_score=scores[1] if scores else None,
            baseline_length=None if lengths is None else int(lengths[row, 0]),
            model_length=None if lengths is None else int(lengths[row, 1]),
        )


def _tables(
    standings: Sequence[Standing], judgements: Sequence[Judgement], fits: Fits, examples: int
) -> ComparisonTables:
    by_judge = {judge: [one for one in judgements if one.judge == judge] for judge in _judges(judgements)}
    return ComparisonTables(
        official=tuple(_official(one, fits.get((one.judge, one.model))) for one in standings),
        win_matrix=tuple(
            WinShare(judge, model, opponent, share, n)
            for judge, own in by_judge.items()
            for (model, opponent), (share, n) in bradley_terry.win_matrix(own).items()
        ),
        examples=tuple(policies.examples(one, examples) for one in standings),
    )


def _judges(judgements: Sequence[Judgement]) -> list[str]:
    return list(dict.fromkeys(one.judge for one in judgements))


def _official(standing: Standing, fit: Fit | None) -> OfficialFigures:
    """Return AlpacaEval's own figures of a model, with its length-controlled win rate where there is one."""
    rates = alpaca_eval.win_rate([opinion.preference for opinion in standing.opinions])
    found = OfficialFigures(standing.judge, standing.model, **rates._asdict())
    if fit is None:
        return found
    return dataclasses.replace(
        found,
        length_controlled_winrate=fit.estimate.value,
        lc_standard_error=fit.standard_error,
        length_control=fit.mode,
        weights=fit.weights,
    )
