"""Evaluate a reward model, or a policy's implicit reward, on RewardBench, RewardBench 2 or RM-Bench."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from headwater.config import POSITIONAL
from headwater.console import say, say_stages, show
from headwater.data.reading import ReadOptions
from headwater.data.templates import renders_conversations
from headwater.data.tokens import TOKENS_PER_PASS, EndToken
from headwater.results import runs
from headwater.results.recording import recording

EXAMPLE = "headwater reward-bench --model runs/reward --dataset allenai/reward-bench --split filtered"

HELP = {
    "Input": ("model", "dataset"),
    "Output": ("output", "overwrite"),
    "Policies": ("reference", "beta"),
    "Computation": ("max_length", "tokens_per_pass", "seed"),
}
"""Options that `--help` shows, by group; `--help-all` shows the others too."""


@dataclass(frozen=True)
class Config:
    """Flags of `headwater reward-bench`."""

    model: Annotated[str, POSITIONAL]
    """Reward model, or policy with its reference: a training run, path or Hugging Face name."""
    dataset: Annotated[Path, POSITIONAL]
    """Rows of RewardBench 1 or 2 or of RM-Bench, recognised by their columns: a file, directory, pattern, or name on
    the hub."""
    output: Path
    """Directory of the run."""
    reference: str | None = None
    """Reference model of a policy. Default: the one that its training run names."""
    reward_head: int | None = None
    """Output, from 0, that is the reward in a reward model with several. Default: its only one."""
    beta: float | None = None
    """Scale of a policy's implicit reward, beta × (log π − log π_ref). Default: 0.1."""
    end: EndToken | None = None
    """Which responses get an end-of-turn token: complete ones, always, or never. Default: as in training, or
    complete."""
    max_length: int | None = None
    """Maximum number of tokens of a prompt with a response; longer ones are dropped and counted. Default: 2048, or
    the number of positions of the model if that is less."""
    tokens_per_pass: int = TOKENS_PER_PASS
    """Maximum number of tokens in one forward pass. Changes memory use, not the result."""
    seed: int = 42
    """Random seed of the bootstrap intervals."""
    chat_template: str | None = None
    """Chat template to use instead of the model's own: plain, chatml, or a Jinja file."""
    overwrite: bool = False
    """Replace an existing run at --output."""
    read_options: ReadOptions = field(default_factory=ReadOptions)


@renders_conversations
def run(config: Config) -> Path:
    """Score the benchmark, print the figures and return the run directory."""
    from headwater.evaluation.benchmark import evaluate_items, read_items
    from headwater.evaluation.figure_tables import figure_table
    from headwater.models.turn_ends import end_rule
    from headwater.rewards.responses import Reading, load_response_scorer

    runs.check_free(config.output, config.overwrite, config)
    name, items, files = read_items(config.dataset, config.read_options)
    say(f"data: {config.dataset} · {name} · {len(items):,} rows")
    how = Reading(config.end or end_rule(config.model), config.max_length, config.tokens_per_pass)
    scorer = load_response_scorer(config.model, config.reference, config.beta, how, config.seed, config.reward_head)
    found = evaluate_items(scorer, name, items, config.seed)
    stages = {"judge": found.row_counts}
    say_stages(stages)
    facts = runs.facts_of(Path(config.model)) | {"benchmark": name}
    with recording(config.output, "reward-bench", config, inputs=files, stages=stages, facts=facts) as run:
        found.write(run)
    show(figure_table(f"{config.model} on {name} ({config.dataset})", found.figures.figures))
    return run.path
