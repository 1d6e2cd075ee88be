"""Evaluate a reward model, or a policy's implicit reward, on RewardBench, RewardBench 2 or RM-Bench."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from headwater.commands._flags import DataFlags, ResponseFlags, RunFlags
from headwater.config import POSITIONAL
from headwater.console import say, say_stages, show
from headwater.data.templates import renders_conversations
from headwater.results import runs
from headwater.results.recording import recording

EXAMPLE = "headwater reward-bench runs/reward allenai/reward-bench --output runs/bench --split filtered"

HELP = {
    "Input": ("model", "dataset"),
    "Output": ("output", "overwrite"),
    "Policies": ("reference", "beta"),
    "Computation": ("max_length", "tokens_per_pass", "seed"),
}


@dataclass(frozen=True, kw_only=True)
class Config(ResponseFlags, DataFlags, RunFlags):
    """Flags of `headwater reward-bench`."""

    model: Annotated[str, POSITIONAL]
    """Reward model, or policy with its reference: a training run, path or Hugging Face name."""
    dataset: Annotated[Path, POSITIONAL]
    """Rows of RewardBench 1 or 2 or of RM-Bench, told apart by their responses: a file, directory, pattern, or name
    on the hub."""
    output: Path
    """Directory of the run."""
    seed: int = 42
    """Random seed of the bootstrap intervals."""


@renders_conversations
def run(config: Config) -> Path:
    """Score the benchmark, print the figures and return the run directory."""
    from headwater.evaluation.benchmark import evaluate_items, read_items
    from headwater.evaluation.figure_tables import figure_table
    from headwater.models.turn_ends import end_rule
    from headwater.rewards.responses import Reading, load_response_scorer

    runs.check_free(config.output, config.overwrite, config)
    name, items, files, row_counts = read_items(config.dataset, config.read_options)
    say(f"data: {config.dataset} · {name} · {len(items):,} rows")
    how = Reading(config.end or end_rule(config.model), config.max_length, config.tokens_per_pass)
    scorer = load_response_scorer(config.model, config.reference, config.beta, how, config.seed, config.reward_head)
    found = evaluate_items(scorer, name, items, config.seed)
    stages = {"read": row_counts, "judge": found.row_counts}
    say_stages(stages)
    facts = runs.facts_of(Path(config.model)) | {"benchmark": name}
    with recording(config.output, "reward-bench", config, inputs=files, stages=stages, facts=facts) as run:
        found.write(run)
    show(figure_table(f"{config.model} on {name} ({config.dataset})", found.figures.figures))
    return run.path
