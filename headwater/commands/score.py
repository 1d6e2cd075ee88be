"""Give every response its reward (a reward model's, a policy's implicit one, an ensemble's mean), or its likelihood."""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from headwater.commands._flags import DataFlags, ResponseFlags, RunFlags
from headwater.config import POSITIONAL
from headwater.console import say, say_stages, show
from headwater.data import reading
from headwater.data.templates import renders_conversations
from headwater.journal import Journal
from headwater.results import runs
from headwater.results.outputs import free_places, journal_of
from headwater.results.recording import recording

if TYPE_CHECKING:
    from headwater.evaluation.scoring import ScoringOptions
    from headwater.results.rewards import ScoreFigures

EXAMPLE = "headwater score candidates.jsonl --output scored.jsonl --model runs/reward"

HELP = {
    "Input": ("input", "model", "split", "limit"),
    "Output": ("output", "overwrite"),
    "Scores": ("value", "reference", "beta"),
    "Computation": ("max_length", "tokens_per_pass", "seed"),
}


@dataclass(frozen=True, kw_only=True)
class Config(ResponseFlags, DataFlags, RunFlags):
    """Flags of `headwater score`."""

    input: Annotated[Path, POSITIONAL]
    """Pairs, prompts with several responses, or single responses: a file, directory, pattern, run, or name on the
    hub."""
    output: Path
    """Data file to write (.jsonl, .jsonl.gz or .parquet), whose run is OUTPUT.run, or a run directory. A command
    that was stopped continues when it is repeated."""
    model: tuple[str, ...]
    """Reward models, or policies with their references: training runs, paths or Hugging Face names. With several,
    the data gets their mean and the run the scores of each."""
    value: Literal["reward", "log_prob", "mean_log_prob"] = "reward"
    """Score of a response: its reward, or its log-probability under a policy, summed over tokens or as their mean."""
    seed: int = 42
    """Random seed of the bootstrap intervals."""


@renders_conversations
def run(config: Config) -> Path:
    """Score the responses and return the data file."""
    from headwater.evaluation.figure_tables import figure_table
    from headwater.evaluation.scoring import DataScorer, members_of

    models, options = members_of(config.model), _options(config)
    options.check(models)
    config = dataclasses.replace(config, model=models)
    target, home = free_places(config.output, config.input, config.overwrite, config)
    began = time.monotonic()
    settings = options.settings(models) | {"chat_template": config.chat_template}
    with Journal(journal_of(config.output), settings) as journal:
        scorer = DataScorer(config.input, config.read_options, models, options, journal)
        tokens = scorer.score()
        rows = reading.stream(config.input, config.read_options)
        facts = runs.facts_of(config.input)
        facts |= {"scored_by": list(models), "scores": "reward" if config.value == "reward" else "likelihood"}
        stages = {"read": rows.row_counts}
        with recording(home, "score", config, read=rows, stages=stages, facts=facts, began=began) as run:
            reading.write(target, scorer.rows(rows))
            say_stages(stages)
            figures = scorer.figures()
            run.write(scorer.records())
            run.write(figures)
        journal.discard()
    _say_throughput(figures, tokens, time.monotonic() - began)
    show(figure_table(f"{', '.join(models)} on {config.input}", vars(figures)))
    return target


def _options(config: Config) -> ScoringOptions:
    from headwater.evaluation.scoring import ScoringOptions

    return ScoringOptions(
        value=config.value,
        reference=config.reference,
        reward_head=config.reward_head,
        beta=config.beta,
        end=config.end,
        max_length=config.max_length,
        tokens_per_pass=config.tokens_per_pass,
        seed=config.seed,
    )


def _say_throughput(figures: ScoreFigures, tokens: int, seconds: float) -> None:
    without = f", {figures.without_score:,} of them too long or empty and without a score"
    say(
        f"{figures.responses:,} responses of {figures.rows:,} rows{without if figures.without_score else ''}: "
        f"{tokens:,} tokens in {seconds:.1f} s, {tokens / seconds:,.0f} tokens/s with loading"
    )
