"""Measure where in a response the preference is decided, how deep the signal goes, and how much to keep.

Without --model, a bag of words scores every prefix: no model, no torch, seconds. With a reward model, or a policy and
its reference, one forward pass a pair scores every prefix, and the bag of words serves as a control. A reward
model that was trained on whole responses scores prefixes worse than one trained on them: its curve is a lower bound.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from headwater.commands._flags import DataFlags, RunFlags
from headwater.config import POSITIONAL
from headwater.console import say, say_notes, say_stages, show
from headwater.data import reading
from headwater.data.preparation import PrepLog
from headwater.data.templates import renders_conversations
from headwater.errors import UsageError
from headwater.results import runs
from headwater.signals.measuring import measure_input, model_input, words_input
from headwater.signals.options import ScorerOptions, SignalOptions
from headwater.signals.tables import signal_tables

EXAMPLE = "headwater signal pairs.jsonl"

HELP = {
    "Input": ("data", "split", "limit"),
    "Output": ("output", "overwrite"),
    "Model": ("model", "reference"),
    "Measurement": ("ratios", "amounts", "margin", "max_length", "tokens_per_pass", "seed"),
}


@dataclass(frozen=True, kw_only=True)
class Config(DataFlags, RunFlags):
    """Flags of `headwater signal`."""

    data: Annotated[Path, POSITIONAL]
    """Preference pairs: a file, directory, pattern, run, or name on the hub."""
    output: Path | None = None
    """Directory of the run. Default: ./DATA-signal, or ./DATA-signal-by-MODEL."""
    model: str | None = None
    """Reward model, or policy with its reference, that scores the prefixes. Default: a bag of words trained on the
    data."""
    scorer: ScorerOptions = field(default_factory=ScorerOptions)
    options: SignalOptions = field(default_factory=SignalOptions)
    allow_leakage: bool = False
    """Measure on pairs whose prompts the model was trained on, too."""
    seed: int = 42
    """Random seed of folds, random spans, shuffles and bootstrap intervals."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work. Errors: `UsageError`."""
        given = self.scorer.given()
        given += ["span_ratios"] if self.options.span_ratios is not None else []
        given += ["allow_leakage"] if self.allow_leakage else []
        if self.model is None and given:
            raise UsageError(f"--{given[0].replace('_', '-')}", "is about a model", "name one with --model")


@renders_conversations
def run(config: Config) -> Path:
    """Measure the signal, print it and return the run directory."""
    output = config.output or _default_output(config)
    runs.check_free(output, config.overwrite, config)
    head = _checked_head(config)
    grid = config.options.grid(config.model, head, config.seed)
    config.options.published_curve("tokens")  # refused before any work
    loaded = reading.load(config.data, config.read_options)
    say(f"data: {loaded.path} · {loaded.layout}")
    prep_log = PrepLog({"read": loaded.row_counts})
    if config.model is None:
        read = words_input(loaded.preferences, config.seed)
    else:
        read = model_input(
            loaded.preferences, config.model, config.scorer, config.options.spans(grid), config.seed, prep_log,
            allow_leakage=config.allow_leakage,
        )  # fmt: skip
    say_stages(prep_log.stages)
    say_notes(prep_log.notes)

    writer = runs.start(output, "signal", config, inputs=loaded.files, facts=runs.facts_of(config.data) | read.facts)
    writer.count_stages(prep_log.stages)
    loaded.quarantine.save(writer.path / reading.QUARANTINE)
    found = measure_input(read, config.options, grid)
    writer.facts |= found.facts
    writer.write_metrics(found.metrics)
    found.curve.write(writer.path)
    writer.write_records(found.records)
    for part in signal_tables(found):
        show(part)
    return writer.finish()


def _default_output(config: Config) -> Path:
    name = f"{reading.name_of(config.data)}-signal"
    return Path(f"{name}-by-{Path(config.model).name}" if config.model else name)


def _checked_head(config: Config) -> Literal["policy", "reward"] | None:
    """Return the head of the model, None without one, before the data is read. Errors: `UsageError`, `ModelError`."""
    if config.model is None:
        return None
    from headwater.signals import passes

    head = passes.head_of(config.model)
    config.scorer.check_head(config.model, head)
    return head
