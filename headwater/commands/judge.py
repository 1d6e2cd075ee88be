"""Ask judges which of two answers is better: LLMs on a server, reward models, or policies' implicit rewards.

Writes AlpacaEval annotations, for `headwater compare`. Every reply of a server is in OUTPUT.ledger before it is used,
and stays there: a command that was stopped, or has more answers to judge, pays for nothing twice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from rich.table import Table

from headwater import files
from headwater.config import POSITIONAL, build
from headwater.console import say, say_stages, show, track
from headwater.data.reading import RowCounts
from headwater.data.templates import renders_conversations
from headwater.errors import DataError, NetworkError, UsageError
from headwater.journal import Journal
from headwater.network.endpoint import Endpoint
from headwater.results import runs
from headwater.statistics import LEVEL, Estimate

if TYPE_CHECKING:
    from headwater.evaluation.alpaca_eval import Answer
    from headwater.evaluation.judgements import Judgement
    from headwater.evaluation.judges import Asking, Comparison, Scoring

EXAMPLE = (
    "headwater judge --baseline base.json --answers dpo.json --output runs/judged "
    "--judge \"reward(model='runs/reward')\""
)
AT_ONCE = 8

HELP = {
    "Input": ("answers", "baseline"),
    "Output": ("output", "overwrite"),
    "Judges": ("judge", "endpoint", "concurrency", "dry_run", "seed"),
}
"""Options that `--help` shows, by group; `--help-all` shows the others too."""


@dataclass(frozen=True)
class Config:
    """Flags of `headwater judge`."""

    baseline: Path
    """Answers to compare with: AlpacaEval outputs (instruction, output, generator) or Arena-Hard answers."""
    answers: Annotated[tuple[Path, ...], POSITIONAL]
    """Answers of the models to judge, one file each, to the same prompts."""
    judge: tuple[str, ...]
    """Judges: pairwise(model='…'), arena_hard(model='…') or alpaca_eval(model='…') on --endpoint, or
    reward(model='RUN') for a reward model or a policy. Several judge the same answers."""
    output: Path
    """Directory of the run; annotations.json holds the judgements."""
    endpoint: str | None = None
    """OpenAI-compatible server of the judges, such as http://localhost:8000/v1; its key is read from OPENAI_API_KEY."""
    concurrency: int | None = None
    """Number of requests sent at a time. Default: 8."""
    dry_run: bool = False
    """Print the number of requests without sending any."""
    seed: int = 42
    """Random seed of the bootstrap intervals."""
    chat_template: str | None = None
    """Chat template to use instead of the model's own: plain, chatml, or a Jinja file."""
    overwrite: bool = False
    """Replace an existing run at --output; its journal of judgements is kept."""


@renders_conversations
def run(config: Config) -> Path:
    """Judge, print the win rates and return the run directory (which a dry run does not write)."""
    from headwater.evaluation.alpaca_eval import read_answers

    judges = _judges(config)
    runs.check_free(config.output, config.overwrite, config)
    baseline = read_answers(config.baseline)
    _say_capped(baseline)
    comparisons: list[Comparison] = []
    stages: dict[str, RowCounts] = {}
    for path in config.answers:
        answers = read_answers(path)
        _say_capped(answers)
        found, row_counts = _compared(baseline, answers)
        if f"answers of {answers[0].model}" in stages or answers[0].model == baseline[0].model:
            raise DataError(str(path), f"holds answers of {answers[0].model}, as another file does", "rename one")
        stages[f"answers of {answers[0].model}"] = row_counts
        comparisons += found
    say_stages(stages)
    if not comparisons:
        raise DataError(str(config.baseline), "shares no prompt with the answers", "expected the same prompts")
    if config.dry_run:
        return _say_plan(config, judges, comparisons)
    said: dict[str, str] = {}
    judgements = [one for judge in judges for one in _judged(config, judge, comparisons, said)]
    _check_judged(config, judgements, said)
    return _write(config, judgements, stages)


def _judges(config: Config) -> list[Asking | Scoring]:
    """Build the judges and refuse flags that cannot work. Errors: `UsageError`."""
    from headwater.evaluation.judges import JUDGES, Asking

    if not config.judge or not config.answers:
        raise UsageError("--judge" if not config.judge else "--answers", "names nothing", "name one or more")
    judges = [build(text, JUDGES, "judge") for text in config.judge]
    if len({judge.name for judge in judges}) < len(judges):
        raise UsageError("--judge", "names a judge twice", "name each one once")
    asks = [text for text, judge in zip(config.judge, judges, strict=True) if isinstance(judge, Asking)]
    if asks and config.endpoint is None:
        raise UsageError(f"--judge {asks[0]}", "needs a server", "add --endpoint http://…/v1")
    for flag, value in (("--endpoint", config.endpoint), ("--concurrency", config.concurrency)):
        if value is not None and not asks:
            raise UsageError(flag, "has no effect: no judge asks a server", "leave it out")
    if config.chat_template is not None and len(asks) == len(judges):
        raise UsageError("--chat-template", "has no effect: every judge asks a server", "leave it out")
    if config.concurrency is not None and config.concurrency < 1:
        raise UsageError(f"--concurrency {config.concurrency}", "expected 1 or more")
    if config.dry_run and not asks:
        raise UsageError("--dry-run", "no judge asks a server: there is nothing to pay", "leave it out")
    return judges


def _say_capped(answers: Sequence[Answer]) -> None:
    """Say how many answers were cut off, where that is known: a judge takes it for a fault of the model."""
    capped = sum(answer.complete is False for answer in answers)
    if capped:
        say(f"{answers[0].model}: {capped:,} of {len(answers):,} answers were cut off before their end")


def _compared(baseline: Sequence[Answer], answers: Sequence[Answer]) -> tuple[list[Comparison], RowCounts]:
    """Put answers beside the baseline's, with an account of the prompts of either."""
    from headwater.evaluation.judges import Comparison

    known = {answer.prompt: answer for answer in baseline}
    found = [Comparison(known[answer.prompt], answer) for answer in answers if answer.prompt in known]
    strange, unanswered = len(answers) - len(found), len(baseline) - len(found)
    dropped = Counter({"not_in_baseline": strange, "unanswered": unanswered})
    return found, RowCounts(len(answers) + unanswered, len(found), +dropped)


def _desk_files(config: Config) -> tuple[Endpoint, Journal]:
    return Endpoint(str(config.endpoint)), Journal(config.output.with_name(config.output.name + ".ledger"), {})


def _say_plan(config: Config, judges: Sequence[Asking | Scoring], comparisons: Sequence[Comparison]) -> Path:
    """Show how many requests each LLM judge takes."""
    from headwater.evaluation.judge_client import JudgeClient
    from headwater.evaluation.judges import Asking

    endpoint, journal = _desk_files(config)
    try:
        client = JudgeClient(endpoint, journal, 1)
        table = Table("judge", "requests", "of them in the ledger", "to make", title="plan", title_justify="left")
        for judge in judges:
            if isinstance(judge, Asking):
                every, left = client.unpaid(judge, comparisons)
                table.add_row(judge.name, f"{every:,}", f"{every - left:,}", f"{left:,}")
    finally:
        journal.close()
    show(table)
    show("A reply without a verdict takes one more request.")
    return config.output


def _judged(
    config: Config, judge: Asking | Scoring, comparisons: Sequence[Comparison], said: dict[str, str]
) -> list[Judgement]:
    """Let one judge judge; `said` takes what a server says of requests that it refuses, by problem."""
    from headwater.evaluation.judge_client import JudgeClient
    from headwater.evaluation.judges import Asking

    if not isinstance(judge, Asking):
        return judge.judge(comparisons)
    endpoint, journal = _desk_files(config)
    client = JudgeClient(endpoint, journal, config.concurrency or AT_ONCE)
    every, left = client.unpaid(judge, comparisons)
    say(f"{judge.name}: {every:,} requests, {every - left:,} of them in {journal.path}")
    try:
        return client.judge(judge, comparisons, lambda items, total: track(items, f"asking {judge.name}", total))
    finally:
        said |= client.refusals.said
        journal.close()


def _check_judged(config: Config, judgements: Sequence[Judgement], said: Mapping[str, str]) -> None:
    """Refuse to report on nothing. Errors: `NetworkError` where a server was asked, `DataError` elsewhere."""
    from headwater.evaluation.judgements import no_verdict, whole

    if whole(judgements):
        return
    problem = no_verdict(_row_counts(judgements).dropped)
    if config.endpoint is not None:
        first = next(iter(said.values()), "")
        raise NetworkError(config.endpoint, problem, first, "see what the server answers, or name another judge")
    raise DataError(str(config.answers[0]), problem, "give --judge a larger max_length, or other answers")


def _write(config: Config, judgements: Sequence[Judgement], stages: dict[str, RowCounts]) -> Path:
    """Write the run, and print who wins and how sure that is."""
    from headwater.evaluation.judgements import ANNOTATIONS, as_annotations

    metrics: dict[str, Estimate | float | int | str | None] = {}
    title = f"share of votes against {judgements[0].first}"
    heads = ("judge", "model", "win rate", f"{LEVEL:.0%} interval", "looks", "pairs without a verdict")
    table = Table(*heads, title=title, title_justify="left")
    for judge in dict.fromkeys(one.judge for one in judgements):
        own = [one for one in judgements if one.judge == judge]
        stages[f"judged by {judge}"] = _row_counts(own)
        metrics |= _figures(judge, own, config.seed)
        for model in dict.fromkeys(one.second for one in own):
            rate = metrics.get(f"win_rate/{judge}/{model}")
            cells = (
                (f"{rate.value:.4f}", rate.interval(), str(rate.n)) if isinstance(rate, Estimate) else ("–", "–", "0")
            )
            missing = _row_counts([one for one in own if one.second == model]).dropped
            table.add_row(judge, model, *cells, ", ".join(f"{name} {count}" for name, count in missing.items()) or "0")
    writer = runs.start(config.output, "judge", config, inputs=[config.baseline, *config.answers])
    writer.facts["baseline"] = judgements[0].first
    files.write_json(writer.path / ANNOTATIONS, as_annotations(judgements))
    writer.count_stages(stages)
    writer.write_metrics(metrics)
    say_stages({name: stage for name, stage in stages.items() if name.startswith("judged")})
    show(table)
    say(f"written: {writer.path / ANNOTATIONS}")
    return writer.finish()


def _row_counts(judgements: Sequence[Judgement]) -> RowCounts:
    """Count comparisons, those without a verdict apart, by the reason."""
    without: dict[tuple[str, str, str], str] = {}
    for one in judgements:
        if one.preference is None:
            without.setdefault((one.judge, one.prompt, one.second), one.problem or "unparsed")
    every = len({(one.judge, one.prompt, one.second) for one in judgements})
    return RowCounts(every, every - len(without), Counter(without.values()))


def _figures(judge: str, judgements: Sequence[Judgement], seed: int) -> dict[str, Estimate]:
    """Return the win rate of every model, and how much the judge prefers what it is shown first."""
    from headwater.evaluation.agreement import position_bias
    from headwater.evaluation.arena_hard import score
    from headwater.evaluation.judgements import whole

    usable = whole(judgements)
    found = {}
    for model in dict.fromkeys(one.second for one in judgements):
        votes = [one for one in usable if one.second == model]
        if votes:
            found[f"win_rate/{judge}/{model}"] = score(votes, seed)
    bias = position_bias(usable, seed)
    if bias is not None:
        found[f"prefers_first/{judge}"] = bias
        say(f"{judge}: prefers what it is shown first in {bias.value:.4f} {bias.interval()}; 0.5 is no bias")
    return found
