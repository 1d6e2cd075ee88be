"""Ask judges which of two answers is better: LLMs on a server, reward models, or policies' implicit rewards.

Writes AlpacaEval annotations, for `headwater compare`. Every reply of a server is stored in OUTPUT.ledger before it is
used, and stays there: a command that was stopped, or has more answers to judge, makes no request twice.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from headwater import files
from headwater.commands._flags import TemplateFlags
from headwater.config import POSITIONAL, build
from headwater.console import say, say_stages, show
from headwater.data.reading import LayoutOptions
from headwater.data.templates import renders_conversations
from headwater.errors import DataError, UsageError
from headwater.results import runs
from headwater.results.facts import Facts
from headwater.results.outputs import journal_of
from headwater.results.recording import recording

if TYPE_CHECKING:
    from headwater.evaluation.judges import Asking, Scoring
    from headwater.evaluation.judging import JudgeServer

EXAMPLE = "headwater judge dpo.json --baseline base.json --output runs/judged --judge \"reward(model='runs/reward')\""

HELP = {
    "Input": ("answers", "baseline", "columns"),
    "Output": ("output", "overwrite"),
    "Judges": ("judge", "endpoint", "concurrency", "dry_run", "seed"),
}


@dataclass(frozen=True, kw_only=True)
class Config(TemplateFlags):
    """Flags of `headwater judge`."""

    baseline: Path
    """Answers to compare with: AlpacaEval outputs (instruction, output, generator) or Arena-Hard answers."""
    answers: Annotated[tuple[Path, ...], POSITIONAL]
    """Answers of the models to judge, one file each, to the same prompts."""
    layout_options: LayoutOptions = field(default_factory=LayoutOptions)
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
    overwrite: bool = False
    """Replace an existing run at --output; its journal of judgements is kept."""


@renders_conversations
def run(config: Config) -> Path:
    """Judge, print the win rates and return the run directory (which a dry run does not write)."""
    from headwater.evaluation import judging, tables
    from headwater.evaluation.judgements import ANNOTATIONS, as_annotations, count_comparisons, say_identical

    judges = _judges(config)
    runs.check_free(config.output, config.overwrite, config)
    description = config.layout_options.description
    comparisons, stages = judging.read_comparisons(config.baseline, config.answers, description)
    say_stages(stages)
    if not comparisons:
        raise DataError(str(config.baseline), "shares no prompt with the answers", "expected the same prompts")
    server = _server(config)
    if config.dry_run and server is not None:
        show(tables.requests(judging.plan(judges, comparisons, server)))
        show("A reply without a verdict takes one more request.")
        return config.output
    judgements = judging.judge(judges, comparisons, server)
    figures = judging.figures(judgements, config.seed)
    counts = {f"judged by {name}": count_comparisons(own) for name, own in judging.by_judge(judgements).items()}
    inputs = [config.baseline, *config.answers]
    says = say_identical(judgements)
    facts: Facts = {"baseline": judgements[0].first, "says": says}
    with recording(config.output, "judge", config, inputs=inputs, stages=stages | counts, facts=facts) as run:
        files.write_json(run.path / ANNOTATIONS, as_annotations(judgements))
        run.write(figures)
    say_stages(counts)
    for name in judging.by_judge(judgements):
        if bias := figures.of_judge("prefers_first", name):
            say(f"{name}: prefers what it is shown first in {bias.value:.4f} {bias.interval()}; 0.5 is no bias")
    show(tables.judged(judgements, figures))
    for sentence in says:
        show(sentence)
    return run.path


def _judges(config: Config) -> list[Asking | Scoring]:
    """Build the judges and refuse flags that cannot work. Errors: `UsageError`."""
    from headwater.evaluation.judges import JUDGES, Asking

    if not config.judge or not config.answers:
        raise UsageError("--judge" if not config.judge else "--answers", "names nothing", "name one or more")
    config.layout_options.check_describes()
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


def _server(config: Config) -> JudgeServer | None:
    from headwater.evaluation.judging import AT_ONCE, JudgeServer

    if config.endpoint is None:
        return None
    return JudgeServer(config.endpoint, journal_of(config.output), config.concurrency or AT_ONCE)
