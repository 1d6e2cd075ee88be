"""Judge a reward model, or a policy's implicit reward, on RewardBench, RewardBench 2 or RM-Bench."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from rich.table import Table

from headwater.config import POSITIONAL
from headwater.console import say, say_stages, show, track
from headwater.data import reading
from headwater.data.reading import ReadOptions, RowCounts
from headwater.data.templates import renders_conversations
from headwater.data.tokens import TOKENS_PER_PASS, EndToken
from headwater.errors import DataError, UsageError
from headwater.evaluation import reward_bench
from headwater.evaluation.reward_bench import Item
from headwater.results import runs
from headwater.statistics import LEVEL, Estimate

EXAMPLE = "headwater reward-bench --model runs/reward --dataset allenai/reward-bench --split filtered"
WINDOW = 64
"""Rows that are laid out together."""

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
    """Judge the model, print the figures and return the run directory."""
    runs.check_free(config.output, config.overwrite, config)
    name, items, files = _read(config)
    say(f"data: {config.dataset} · {name} · {len(items):,} rows")
    rewards = _rewards(config, items)
    read = [(item, row) for item, row in zip(items, rewards, strict=True) if row is not None]
    alone = reward_bench.alone([item for item, _ in read])
    judged = [(item, row) for item, row in read if item.subset != reward_bench.TIES or item.candidates.id not in alone]
    dropped = Counter({"unreadable_response": len(items) - len(read), "other_half_missing": len(read) - len(judged)})
    row_counts = RowCounts(len(items), len(judged), dropped=+dropped)
    say_stages({"judge": row_counts})
    if not judged:
        raise DataError(str(config.dataset), "no row is left", "raise --max-length")
    metrics = reward_bench.figures(name, [item for item, _ in judged], [row for _, row in judged], config.seed)
    facts = runs.facts_of(Path(config.model)) | {"benchmark": name}
    writer = runs.start(config.output, "reward-bench", config, inputs=files, facts=facts)
    writer.count("judge", row_counts.rows_in, row_counts.kept, row_counts.dropped)
    writer.write_metrics(metrics)
    writer.write_records(
        [
            {"id": item.candidates.id, "subset": item.subset, "opening": item.conversation_id, "rewards": row}
            | {"correct": item.correct}
            for item, row in judged
        ]
    )
    _print(metrics, f"{config.model} on {name} ({config.dataset})")
    return writer.finish()


def _read(config: Config) -> tuple[str, list[Item], list[Path]]:
    """Read the benchmark; all rows are of one. Errors: `DataError`, `UsageError` for flags that do not count here."""
    for flag, value in {"--format": config.read_options.layout, "--columns": config.read_options.columns}.items():
        if value is not None:
            raise UsageError(flag, "has no effect on a benchmark", "its columns tell which one it is")
    if config.read_options.max_bad_rows != "0":
        raise UsageError("--max-bad-rows", "has no effect on a benchmark", "a bad row is refused")
    found: dict[str, list[Item]] = {}
    for row in itertools.islice(reading.read_rows(config.dataset, config.read_options), config.read_options.limit):
        name, item = reward_bench.read(row)
        item = item._replace(candidates=reading.conditioned(item.candidates, row, config.read_options))
        found.setdefault(name, []).append(item)
    if len(found) != 1:
        raise DataError(
            str(config.dataset), f"holds rows of {' and '.join(found) or 'nothing'}", "expected one benchmark"
        )
    ((name, items),) = found.items()
    return name, items, list(reading.stream(config.dataset, config.read_options).files)


def _rewards(config: Config, items: Sequence[Item]) -> list[list[float] | None]:
    """Return the rewards of all responses of every item; None where one of them cannot be read."""
    from headwater.models.turn_ends import end_rule
    from headwater.rewards.responses import Reading, load_response_scorer

    end = config.end or end_rule(config.model)
    how = Reading(end, config.max_length, config.tokens_per_pass)
    judge = load_response_scorer(config.model, config.reference, config.beta, how, config.seed, config.reward_head)
    found: list[list[float] | None] = []
    starts = range(0, len(items), WINDOW)
    for start in track(starts, "judging", len(starts)):
        for row in judge([item.candidates for item in items[start : start + WINDOW]]):
            known = [reward for reward in row if reward is not None]
            found.append(known if len(known) == len(row) else None)
    return found


def _print(metrics: Mapping[str, Estimate], title: str) -> None:
    table = Table("figure", "value", f"{LEVEL:.0%} interval", "n", title=title, title_justify="left")
    for name, estimate in metrics.items():
        table.add_row(name, f"{estimate.value:.4f}", estimate.interval(), str(estimate.n))
    show(table)
