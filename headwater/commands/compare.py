"""Say whether a tuned model is better: win rates, at equal length too, rankings, and whether judges agree.

Reads AlpacaEval annotations, Arena-Hard judgments, battles, labels of people and runs of `headwater judge`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple

from headwater import files
from headwater.config import POSITIONAL
from headwater.console import say_stages, show
from headwater.data.reading import RowCounts
from headwater.errors import DataError, UsageError
from headwater.results import runs
from headwater.statistics import LEVEL, Estimate

if TYPE_CHECKING:
    from headwater.evaluation.agreement import Agreement
    from headwater.evaluation.judgements import Judgement
    from headwater.evaluation.length_control import Fit
    from headwater.evaluation.policies import Standing

EXAMPLE = "headwater compare runs/judged annotations.json --output runs/compared"
RESULTS = "comparison.json"

HELP = {
    "Input": ("judgements", "baseline"),
    "Output": ("output", "overwrite"),
    "Length and style": ("lc_data", "style_control"),
    "Statistics": ("compat", "seed"),
}
"""Options that `--help` shows, by group; `--help-all` shows the others too."""


@dataclass(frozen=True)
class Config:
    """Flags of `headwater compare`."""

    judgements: Annotated[tuple[Path, ...], POSITIONAL]
    """Files of judgements, and runs of judge, on the same answers."""
    output: Path
    """Directory of the run."""
    baseline: str | None = None
    """Model to compare with. Default: the one that comes first in all judgements."""
    lc_data: Path | None = None
    """AlpacaEval's instruction_difficulty.csv or df_gamed.csv, for the length-controlled win rate as published.
    Without it, only length is controlled for, which works for any prompts."""
    style_control: bool = False
    """Rank models at equal style: length, headers, lists and bold text."""
    answers: tuple[Path, ...] = ()
    """Arena-Hard answers whose style is measured; not needed where the judgements hold the answers."""
    compat: Literal["upstream"] | None = None
    """Compute win rates as a benchmark does: upstream, as Arena-Hard does, with 90% intervals over votes that are
    not independent."""
    examples: int = 5
    """Number of most improved prompts, and of most degraded ones, to keep."""
    seed: int = 42
    """Random seed of the bootstrap intervals."""
    overwrite: bool = False
    """Replace an existing run at --output."""


class Between(NamedTuple):
    """What lies between judges, and between models."""

    agreements: list[Agreement]
    differences: dict[tuple[str, str, str], Estimate]
    """By judge, model and other model."""

    def metrics(self) -> dict[str, Estimate]:
        """Return the same by name."""
        found: dict[str, Estimate] = {}
        for one in self.agreements:
            judges = " ~ ".join(one.judges)
            found |= {f"agreement/{judges}": one.same, f"kappa/{judges}": one.kappa, f"rank/{judges}": one.rank}
        for (judge, model, other), estimate in self.differences.items():
            found[f"difference/{judge}/{model} − {other}"] = estimate
        return found


def run(config: Config) -> Path:
    """Compare, print what follows and return the run directory."""
    from headwater.evaluation import agreement, policies, tables

    _check(config)
    judgements, stages = _read(config)
    baseline = config.baseline or _baseline(judgements)
    found = policies.standings(judgements, baseline)
    if not found:
        met = sorted({name for one in judgements for name in (one.first, one.second)})
        raise UsageError(f"--baseline {baseline}", "met no other model", f"judged are {', '.join(met)}")
    stages[f"against {baseline}"] = _facing(judgements, found)
    metrics, fits = _figures(config, found)
    between = Between(
        agreement.agreements([vote for standing in found for vote in standing.votes], config.seed),
        policies.differences(found, config.seed),
    )
    metrics |= between.metrics()
    ranking = _rankings(config, judgements, baseline)
    metrics |= {f"strength/{name}": strength for name, strength in ranking.items()}
    says = _sentences(found, metrics, fits, baseline) + _undefined(config, found, fits)

    writer = runs.start(config.output, "compare", config, inputs=[p for p in config.judgements if p.is_file()])
    writer.facts |= {"baseline": baseline, "says": says, "length_control": _mode(fits)}
    writer.count_stages(stages)
    writer.write_metrics({name: value for name, value in metrics.items() if value.value == value.value})
    writer.write_records([row for standing in found for row in _records(standing, baseline)])
    results = _results(config, found, judgements, fits)
    files.write_json(writer.path / RESULTS, results)
    say_stages(stages)
    _show(found, metrics, results, between, baseline, _heads(config, fits))
    if config.lc_data:
        show(tables.official(results["official"]))
    for sentence in says:
        show(sentence)
    return writer.finish()


def _check(config: Config) -> None:
    """Refuse flags that cannot work. Errors: `UsageError`."""
    if not config.judgements:
        raise UsageError("no judgements are named", "headwater compare RUN … --output runs/compared")
    if config.answers and not config.style_control:
        raise UsageError("--answers", "has no effect without --style-control", "add it, or leave --answers out")
    if config.examples < 0:
        raise UsageError(f"--examples {config.examples}", "expected 0 or more")
    runs.check_free(config.output, config.overwrite, config)


def _read(config: Config) -> tuple[list[Judgement], dict[str, RowCounts]]:
    from headwater.evaluation import judgements

    found: list[Judgement] = []
    stages = {}
    for path in config.judgements:
        if not path.exists():
            raise UsageError(str(path), "is not there", "name a file of judgements or a judge run")
        read, stages[str(path)] = judgements.read(path)
        found += read
    dropped = judgements.without_verdict(found)
    stages["looks"] = RowCounts(len(found), len(found) - dropped.total(), dropped)
    if not stages["looks"].kept:
        where = ", ".join(map(str, config.judgements))
        raise DataError(where, judgements.no_verdict(dropped), "judge the answers again, or name other judgements")
    return found, stages


def _facing(judgements: Sequence[Judgement], found: Sequence[Standing]) -> RowCounts:
    """Count the looks with a verdict that show the baseline; the others count for rankings alone."""
    from headwater.evaluation.judgements import whole

    every, kept = len(whole(judgements)), sum(len(one.votes) for one in found)
    return RowCounts(every, kept, +Counter({"without_baseline": every - kept}))


def _baseline(judgements: Sequence[Judgement]) -> str:
    """Return the one model that is first in all judgements. Errors: `UsageError`."""
    first = sorted({one.first for one in judgements})
    if len(first) > 1:
        raise UsageError("--baseline", f"is not plain: {', '.join(first)} come first", "name one")
    return first[0]


def _figures(config: Config, found: Sequence[Standing]) -> tuple[dict[str, Estimate], dict[tuple[str, str], Fit]]:
    """Return the figures of every model under every judge, and the fits at equal length."""
    from headwater.evaluation import arena_hard, length_control, policies

    reference = length_control.read_reference(config.lc_data) if config.lc_data else length_control.NOTHING
    metrics: dict[str, Estimate] = {}
    fits = {}
    for one in found:
        own = policies.figures(one, config.seed)
        if config.compat:
            own["win_rate"] = arena_hard.upstream(one.votes, config.seed)
        fit = policies.at_equal_length(one, reference, config.seed)
        if fit:
            fits[one.judge, one.model] = fit
            value, low, high, n, clusters = fit.estimate
            own["lc_win_rate"] = Estimate(value / 100, (low or 0) / 100, (high or 0) / 100, n, clusters)
        categories = Counter(vote.category for vote in one.votes)
        for category in sorted(categories) if len(categories) > 1 else ():
            votes = [vote for vote in one.votes if vote.category == category]
            own[f"win_rate in {category}"] = arena_hard.score(votes, config.seed)
        metrics |= {f"{name}/{one.judge}/{one.model}": value for name, value in own.items()}
    if config.lc_data and not fits:
        raise UsageError(
            "--lc-data", "has no effect: the judgements hold no answers of different lengths", "leave it out"
        )
    return metrics, fits


def _mode(fits: Mapping[Any, Fit]) -> str | None:
    return next((fit.mode for fit in fits.values()), None)


def _rankings(config: Config, judgements: Sequence[Judgement], baseline: str) -> dict[str, Estimate]:
    """Return Bradley–Terry strengths by judge and model, of more than two models or at equal style."""
    from headwater.evaluation import bradley_terry
    from headwater.evaluation.judgements import whole

    found: dict[str, Estimate] = {}
    usable = whole(judgements)
    for judge in dict.fromkeys(one.judge for one in usable):
        own = [one for one in usable if one.judge == judge and one.first != one.second]
        if len({name for one in own for name in (one.first, one.second)}) < 3 and not config.style_control:
            continue
        styles = _styles(config, own) if config.style_control else None
        ranking = bradley_terry.rank(own, baseline, styles, config.seed)
        found |= {f"{judge}/{name}": s for name, s in zip(ranking.models, ranking.strengths, strict=True)}
        if styles is not None:
            from headwater.evaluation.arena_hard import STYLES

            found |= {f"{judge}/style: {name}": s for name, s in zip(STYLES, ranking.styles, strict=True)}
    return found


def _styles(config: Config, judgements: Sequence[Judgement]) -> Any:
    """Return style differences [n, 4]. Errors: `DataError` for an answer whose style nobody knows."""
    from headwater.evaluation.arena_hard import read_styles, style_differences, style_of

    known = read_styles(config.answers)
    sides = []
    for place in (0, 1):
        styles = []
        for one in judgements:
            model = (one.first, one.second)[place]
            if one.outputs is None and (model, one.prompt) not in known:
                raise DataError("--style-control", f"no answer of {model} to {one.prompt}", "name it with --answers")
            styles.append(style_of(one.outputs[place]) if one.outputs else known[model, one.prompt])
        sides.append(styles)
    return style_differences(*sides)


def _sentences(
    found: Sequence[Standing], metrics: Mapping[str, Estimate], fits: Mapping[tuple[str, str], Fit], baseline: str
) -> list[str]:
    """Say what follows, with numbers."""
    from headwater.evaluation.length_control import is_extreme
    from headwater.evaluation.policies import mismatches

    rates = {(one.judge, one.model): metrics[f"win_rate/{one.judge}/{one.model}"] for one in found}
    says = []
    for (judge, model), rate in rates.items():
        if rate.low is None or rate.high is None:
            told = "has been judged on too few prompts"
        elif rate.low > 0.5:
            told = f"is better than {baseline}"
        else:
            told = f"is worse than {baseline}" if rate.high < 0.5 else f"cannot be told from {baseline}"
        says.append(f"By {judge}, {model} {told}: win rate {rate.value:.3f} {rate.interval()}, n = {rate.n}.")
    for model, judge, other in mismatches(rates):
        says.append(f"The judges contradict each other on {model}: {judge} prefers it, {other} does not.")
    for (judge, model), fit in fits.items():
        before = 100 * rates[judge, model].value
        if is_extreme(before, fit.estimate.value):
            moved = f"moves from {before:.1f} to {fit.estimate.value:.1f}"
            says.append(f"By {judge}, the win rate of {model} {moved} at equal length: the length model may not fit.")
    return says


def _undefined(config: Config, found: Sequence[Standing], fits: Mapping[tuple[str, str], Fit]) -> list[str]:
    """Say where there is no win rate at equal length, and why."""
    from headwater.evaluation.length_control import NOTHING, read_reference
    from headwater.evaluation.policies import why_undefined

    reference = read_reference(config.lc_data) if config.lc_data else NOTHING
    return [
        f"By {one.judge}, the win rate of {one.model} at equal length is undefined: {why_undefined(one, reference)}."
        for one in found
        if (one.judge, one.model) not in fits
    ]


def _records(standing: Standing, baseline: str) -> list[dict[str, Any]]:
    """Return one row a comparison."""
    lengths = standing.lengths()
    return [
        {
            "judge": standing.judge,
            "model": standing.model,
            "baseline": baseline,
            "prompt": one.prompt,
            "category": one.vote.category,
            "preference": one.preference,
            "baseline_score": one.vote.scores[0] if one.vote.scores else None,
            "model_score": one.vote.scores[1] if one.vote.scores else None,
            "baseline_length": None if lengths is None else int(lengths[row, 0]),
            "model_length": None if lengths is None else int(lengths[row, 1]),
        }
        for row, one in enumerate(standing.opinions)
    ]


def _results(
    config: Config, found: Sequence[Standing], judgements: Sequence[Judgement], fits: Mapping[tuple[str, str], Fit]
) -> dict[str, Any]:
    """Return what has no place among metrics: official figures, who beat whom, and examples."""
    from headwater.evaluation import alpaca_eval, bradley_terry, policies
    from headwater.evaluation.judgements import whole

    official = []
    for one in found:
        row = alpaca_eval.win_rate([opinion.preference for opinion in one.opinions])._asdict()
        fit = fits.get((one.judge, one.model))
        if fit:
            row |= {"length_controlled_winrate": fit.estimate.value, "lc_standard_error": fit.standard_error}
            row |= {"length_control": fit.mode, "weights": fit.weights}
        official.append({"judge": one.judge, "model": one.model} | row)
    usable = whole(judgements)
    beaten = [
        {"judge": judge, "model": model, "opponent": opponent, "share": share, "n": n}
        for judge in dict.fromkeys(one.judge for one in usable)
        for (model, opponent), (share, n) in bradley_terry.win_matrix([o for o in usable if o.judge == judge]).items()
    ]
    examples = [{"judge": one.judge, "model": one.model} | policies.examples(one, config.examples) for one in found]
    return {"official": official, "win_matrix": beaten, "examples": examples}


def _show(
    found: Sequence[Standing],
    metrics: Mapping[str, Estimate],
    results: Mapping[str, Any],
    between: Between,
    baseline: str,
    figures: Mapping[str, str],
) -> None:
    """Print the models under all judges and under each, scores and lengths, agreement, examples and who beat whom."""
    from headwater.evaluation import tables

    judges = list(dict.fromkeys(one.judge for one in found))
    beaten = results["win_matrix"]
    for table in (
        *(tables.standings(found, metrics, judge, figures) for judge in judges),
        tables.matrix(found, metrics, baseline),
        tables.lengths(found, metrics),
        tables.agreement(between.agreements),
        tables.differences(between.differences),
        *(tables.wins([one for one in beaten if one["judge"] == judge], judge) for judge in judges),
        tables.extremes(results["examples"]),
    ):
        if table:
            show(table)


def _heads(config: Config, fits: Mapping[Any, Fit]) -> dict[str, str]:
    """Return by figure what it is called in a table."""
    level = "90 % over votes" if config.compat else f"{100 * LEVEL:g} %"
    return {
        "win_rate": f"win rate ({level})",
        "lc_win_rate": f"at equal length ({_mode(fits)})",
        "strength": "strength",
    }
