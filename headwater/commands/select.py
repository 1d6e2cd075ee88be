"""Select the rows that can teach most, by preference variance or another selector, within a budget."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from headwater.commands._flags import RunFlags
from headwater.config import POSITIONAL
from headwater.console import say, say_stages, show
from headwater.data import reading
from headwater.data import selection as picking
from headwater.data.reading import ReadOptions, RowCounts
from headwater.data.selection import ChosenRows, tables
from headwater.data.selection.options import SelectionOptions
from headwater.data.selection.selecting import Selected, read_pool, rows_to_measure, select, several_responses
from headwater.data.tokenizers import load_tokenizer
from headwater.errors import DataError, UsageError
from headwater.results import runs
from headwater.results.facts import Facts
from headwater.results.outputs import check_data_file, free_places
from headwater.results.recorded_rewards import recorded_rewards
from headwater.results.recording import recording
from headwater.results.selection import GradientRow, Selection

EXAMPLE = "headwater select ultrafeedback.jsonl --output selected.jsonl --by pvar --budget 10%"

HELP = {
    "Input": ("input", "split", "limit", "rewards"),
    "Output": ("output", "overwrite"),
    "Selection": ("by", "budget", "take", "pairs", "per_source", "drop_near_duplicates", "seed"),
}


@dataclass(frozen=True, kw_only=True)
class Config(RunFlags):
    """Flags of `headwater select`."""

    input: Annotated[Path, POSITIONAL]
    """Prompts with several responses, or pairs: a file, directory, pattern, run, or name on the hub."""
    output: Path
    """Data file to write (.jsonl, .jsonl.gz or .parquet), whose run is OUTPUT.run, or a run directory."""
    options: SelectionOptions = field(default_factory=SelectionOptions)
    export_for_annotation: Path | None = None
    """File to write the selected rows to for human annotation: responses shuffled, without labels (.jsonl, columns
    for Argilla)."""
    measure_gradients: int | None = None
    """Number of randomly drawn prompts whose DPO gradient under --policy is measured and compared with the score and
    with the bound set by preference variance."""
    policy: str | None = None
    """Policy whose gradients are measured: a training run, path or Hugging Face name."""
    seed: int = 42
    """Random seed of ties, draws and bootstrap intervals."""
    read_options: ReadOptions = field(default_factory=ReadOptions)

    def __post_init__(self) -> None:
        """Refuse values that cannot work or have no effect. Errors: `UsageError`."""
        if (self.measure_gradients is None) != (self.policy is None):
            given, lacking = "--measure-gradients", "--policy"
            given, lacking = (lacking, given) if self.policy else (given, lacking)
            raise UsageError(given, f"has no effect without {lacking}", "name both or none")
        if self.measure_gradients is not None and self.measure_gradients < 2:
            raise UsageError(f"--measure-gradients {self.measure_gradients}", "expected 2 prompts or more")
        if self.export_for_annotation and self.options.pairs:
            problem = "labels what --export-for-annotation sends to be labelled"
            raise UsageError("--pairs", problem, "leave one out")


def run(config: Config) -> Path:
    """Select rows, write them and what they were chosen by, and return the data file."""
    options, plan = config.options, config.options.plan()
    _check_files(config)
    target, home = free_places(config.output, config.input, config.overwrite, config)
    recorded = recorded_rewards(options.rewards, options.implicit, options.likelihoods)
    row_reader = reading.stream(config.input, config.read_options)
    before = runs.facts_of(config.input)
    read = read_pool(row_reader, options, recorded, before.get("scores"))
    pool = read.pool
    options.check(plan, pool, config.input, config.measure_gradients)
    chosen = select(read, plan, options, config.seed)
    taken = chosen.choice.rows
    stages = {"read": row_reader.row_counts, "select": RowCounts(len(pool), len(taken), chosen.choice.dropped)}
    if not len(taken):
        say_stages(stages)
        raise DataError(str(config.input), f"no row fits into --budget {options.budget}", "see the row counts above")

    facts: Facts = {**before, **chosen.facts(options.by)}
    with recording(home, "select", config, read=row_reader, stages=stages, facts=facts) as writer:
        measured = rows_to_measure(pool, config.measure_gradients or 0, config.seed)
        rows = ChosenRows(pool, chosen.scores, taken, plan.pairing, config.seed, measured)
        reading.write(target, rows.records(reading.stream(config.input, config.read_options)))
        if config.export_for_annotation:
            written = several_responses(reading.stream(target))
            picking.write_annotation(config.export_for_annotation, written, config.seed)
        stages |= {"pairs": rows.pairs} if plan.pairing else {}
        say_stages(stages)
        effects, agreements = chosen.effects, tuple(chosen.agreements())
        gradients = _gradients(config.policy, chosen, rows) if config.policy else ()
        figures = picking.gradient_figures(gradients, config.seed)
        writer.write_metrics(chosen.metrics(effects) | figures)
        picking.write_scores(home / picking.SCORES, pool, plan.selector, chosen.scores, taken)
        sources, examples = picking.by_source(pool, taken), rows.examples()
        found = Selection(
            by=options.by, take=plan.take, budget=options.budget, unit=pool.unit,
            agreement=agreements, sources=sources, examples=examples, gradients=gradients,
        )  # fmt: skip
        found.write(home)
        title = f"{plan.take} of {options.by}: {len(taken):,} of {len(pool):,} rows"
        show(tables.tables(title, effects, agreements, figures, examples))
    if tied := chosen.choice.tied:
        say(f"ties: {tied:,} rows left out have the score of the last one taken; --seed draws among them")
    return target


def _check_files(config: Config) -> None:
    """Refuse a file for annotation that is taken, or of another format, and a model that is no policy."""
    export = config.export_for_annotation
    if export and export.suffix.lower() != ".jsonl":
        raise UsageError(f"--export-for-annotation {export}", "expected a name that ends in .jsonl")
    if export:
        home = runs.beside(config.output) if config.output.suffix else config.output
        check_data_file(export, home, config.overwrite, "--export-for-annotation")
    if config.policy and runs.facts_of(Path(config.policy)).get("kind") == "reward model":
        raise UsageError(f"--policy {config.policy}", "is a reward model", "name a policy")
    if config.policy:
        load_tokenizer(config.policy, ())  # a name that is none is refused before the work


def _gradients(policy: str, chosen: Selected, rows: ChosenRows) -> tuple[GradientRow, ...]:
    from headwater.rewards.gradients import gradient_rows  # the only part that needs torch

    return gradient_rows(policy, chosen, rows.wanted)
