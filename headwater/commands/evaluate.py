"""Score preference pairs, or labelled responses, with a trained model: accuracy or AUC, and rewards, with intervals."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from headwater.commands._flags import DataFlags, RewardFlags, RunFlags
from headwater.config import POSITIONAL, build
from headwater.console import say, say_notes, say_stages, show
from headwater.data import reading
from headwater.data.preparation import PrepLog
from headwater.data.templates import renders_conversations
from headwater.data.truncation_options import TruncationOptions
from headwater.noninferiority import MARGIN, check_margin
from headwater.results import runs
from headwater.results.facts import Facts
from headwater.results.outputs import default_run
from headwater.results.recording import recording

if TYPE_CHECKING:
    from headwater.evaluation.pairs import Evaluation, EvaluationOptions

EXAMPLE = "headwater evaluate runs/reward pairs.jsonl --output runs/reward-eval"

HELP = {
    "Input": ("model", "dataset", "split", "limit"),
    "Output": ("output", "overwrite"),
    "Policies": ("reference", "beta"),
    "Truncation": ("keep", "max_length"),
    "Comparison": ("against", "untrained", "margin"),
    "Computation": ("tokens_per_pass", "allow_leakage", "seed"),
}


@dataclass(frozen=True, kw_only=True)
class Config(RewardFlags, DataFlags, RunFlags):
    """Flags of `headwater evaluate`."""

    model: Annotated[str, POSITIONAL]
    """Model to evaluate: a training run, path or Hugging Face name of a reward model, of an ensemble, or of a policy
    (by its implicit reward)."""
    dataset: Annotated[Path, POSITIONAL]
    """Preference pairs or responses with labels: a file, directory, pattern, run, or name on the hub. Rows whose
    prompts the model was trained on are left out."""
    output: Path | None = None
    """Directory of the run. Default: MODEL-on-DATASET beside a training run, ./DATASET-evaluation otherwise."""
    weights: str | None = None
    """Weight of every token in the implicit reward: first(tokens=…), decay(gamma=…), tail(alpha=…), mean(), …
    Default: uniform()."""
    correct: str | None = None
    """Correction of rewards for length: "divide(alpha=100)" is r / (alpha + tokens); "regress(on='RUN')" is r − b ×
    tokens, with b from a run of evaluate on the training pairs (with --allow-leakage). Figures are shown before and
    after."""
    against: tuple[Path, ...] = ()
    """Runs of evaluate on the same pairs to compare with, by a paired bootstrap and McNemar's test."""
    margin: float = MARGIN
    """Percentage points of accuracy by which a model may be worse and still count as not worse."""
    untrained: bool = False
    """Compare a reward model with itself before training: its initial weights and a new head."""
    embed: int | None = None
    """Number of pairs to embed by PCA and t-SNE of the model's last hidden states, for the report."""
    allow_leakage: bool = False
    """Evaluate rows whose prompts the model was trained on, too."""
    seed: int = 42
    """Random seed of the bootstrap intervals and of --embed."""
    truncation: TruncationOptions = field(default_factory=TruncationOptions)


@renders_conversations
def run(config: Config) -> Path:
    """Score the rows, print the tables and return the run directory."""
    from headwater.evaluation import pairs

    check_margin(config.margin)
    output = config.output or default_run(config.model, config.dataset)
    runs.check_free(output, config.overwrite, config)
    options = _options(config)
    options.check(config.model)
    loaded = reading.load_examples(config.dataset, config.read_options)
    say(f"data: {loaded.path} · {loaded.layout}")
    prep_log = PrepLog({"read": loaded.row_counts})
    encoded = pairs.prepare(config.model, loaded.preferences, options, prep_log)
    say_stages(prep_log.stages)
    say_notes(prep_log.notes)
    facts: Facts = encoded.facts | ({"correction": config.correct} if config.correct else {})
    with recording(output, "evaluate", config, read=loaded, stages=prep_log.stages, facts=facts) as run:
        found = pairs.score(encoded)
        found.write(run)
        _show(found, config)
    return run.path


def _options(config: Config) -> EvaluationOptions:
    from headwater.evaluation.length_bias import CORRECTIONS
    from headwater.evaluation.pairs import EvaluationOptions
    from headwater.losses.token_weights import WEIGHTS

    return EvaluationOptions(
        reference=config.reference,
        reward_head=config.reward_head,
        beta=config.beta,
        weights=None if config.weights is None else build(config.weights, WEIGHTS, "weights"),
        correction=None if config.correct is None else build(config.correct, CORRECTIONS, "correction"),
        against=config.against,
        untrained=config.untrained,
        embed=config.embed,
        tokens_per_pass=config.tokens_per_pass,
        allow_leakage=config.allow_leakage,
        seed=config.seed,
        truncation=config.truncation,
    )


def _show(found: Evaluation, config: Config) -> None:
    """Print the figures, and for pairs where the model is right and how it compares with others."""
    from headwater.evaluation import figure_tables

    show(figure_tables.evaluation_table(f"{config.model} on {config.dataset}", found.figures))
    if found.diagnostics is None:
        return
    for part in figure_tables.diagnostics_parts(found.diagnostics, found.records, config.model, config.correct):
        show(part)
    for line in figure_tables.diagnostics_lines(found.diagnostics, config.margin):
        say(line)
