"""Decode with many strategies, and report mean reward against KL from the reference for each of them.

Every point is stored when it is finished, so a command that was stopped continues when it is repeated. Interpolation
between the two models is the baseline: a strategy is compared with it at equal KL, with an interval.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from headwater import config as configs
from headwater.config import POSITIONAL
from headwater.console import say_stages, show
from headwater.data.prompts import check_column, read_prompts
from headwater.data.reading import ReadOptions, RowCounts
from headwater.data.templates import renders_conversations
from headwater.decoding.advice import advice
from headwater.decoding.frontier import FrontierOptions, frontier
from headwater.decoding.options import DecodingOptions
from headwater.decoding.tables import frontier_table
from headwater.errors import DataError, UsageError
from headwater.reporting import page
from headwater.results import runs
from headwater.results.decoding import Frontier
from headwater.results.facts import Facts
from headwater.results.recording import recording
from headwater.statistics import Estimate

EXAMPLE = "headwater frontier runs/dpo pairs.jsonl --output frontier --reward-model runs/reward"

HELP = {
    "Input": ("model", "input", "reference", "split", "limit"),
    "Output": ("output",),
    "Strategies": ("first", "thresholds", "weights", "best_of"),
    "Rewards": ("reward_model", "budget"),
    "Sampling": ("n", "temperature", "max_new_tokens", "batch_size", "seed"),
}


@dataclass(frozen=True)
class Config:
    """Flags of `headwater frontier`."""

    model: Annotated[str, POSITIONAL]
    """Policy: a training run, path or Hugging Face name."""
    input: Annotated[Path, POSITIONAL]
    """Data whose prompts are answered, each once: a file, directory, pattern, run, or name on the hub."""
    reward_model: tuple[str, ...]
    """Reward models that score every response: training runs, paths or Hugging Face names. The first one picks the
    best of n."""
    output: Path = Path("frontier")
    """Directory of the study, which holds a run for every point and a summary."""
    reference: str | None = None
    """Reference model. Default: the one that the policy's training run names."""
    options: FrontierOptions = field(default_factory=FrontierOptions)
    decoding: DecodingOptions = field(default_factory=DecodingOptions)
    seed: int = 42
    """Random seed of the responses, the same at every point, and of the bootstrap intervals."""
    column: str | None = None
    """Column that holds the prompt, a text or a list of messages, in data without responses."""
    chat_template: str | None = None
    """Chat template to use instead of the model's own: plain, chatml, or a Jinja file."""
    read_options: ReadOptions = field(default_factory=ReadOptions)

    def __post_init__(self) -> None:
        """Refuse values that cannot work. Errors: `UsageError`."""
        check_column(self.column, self.read_options)
        if not self.reward_model:
            raise UsageError("--reward-model", "is empty", "name one or more")
        if self.options.best_of and self.decoding.temperature == 0:
            raise UsageError("--best-of", "greedy responses are all the same", "write --best-of without a number")

    def common(self) -> dict[str, Any]:
        """Return the settings that a point depends on: all but the grid, and what changes only the speed."""
        free = {"output", "batch_size", "draft", *vars(self.options)}
        return {name: value for name, value in configs.flatten(self).items() if name not in free}


@renders_conversations
def run(config: Config) -> Path:
    """Decode and score the points that are missing, and return the run directory of the summary."""
    from headwater.decoding import study
    from headwater.decoding.decoders import PairDecoder, RewardModels, load_pair
    from headwater.decoding.strategies import STRATEGIES

    for point in config.options.grid():
        configs.build(point.name, STRATEGIES, "strategy")
    study.check_settings(config.output, config.common())
    published = config.options.published_points()
    prompts, stages, row_reader = read_prompts(config.input, config.read_options, config.column)
    decoder = PairDecoder(load_pair(config.model, config.reference, config.seed), prompts, config.decoding)
    stages["decode"] = RowCounts(len(prompts), len(decoder.prompts), +Counter(decoder.dropped))
    say_stages(stages)
    if not decoder.prompts:
        raise DataError(str(config.input), "no prompt leaves room for a response", "lower --max-new-tokens")
    study.store_settings(config.output, config.common())
    condition, batch = config.read_options.told, config.decoding.batch_size
    reward_models = RewardModels(config.reward_model, condition, config.seed, batch)
    responses = study.decode_grid(config.output, config.options, decoder, reward_models, config.seed)

    output = config.output / "summary"
    facts: Facts = {"decoded_from": config.model, "reward_models": list(config.reward_model)}
    with recording(output, "frontier", config, read=row_reader, stages=stages, facts=facts) as writer:
        picker, points = config.reward_model[0], []
        says: list[str] = []
        metrics: dict[str, Estimate | str | float] = {}
        for model in config.reward_model:
            columns = list(study.strategy_responses(config.options, responses, model, picker))
            own = frontier(columns, config.seed, model)
            points += own
            for part in frontier_table(own, model):
                show(part)
            found, lines = advice(own, columns, config.options.budget, picker, config.seed)
            show("\n".join(lines))
            says.append(f"{Path(model).name}: {'; '.join(line.strip() for line in lines)}.")
            metrics |= found
        Frontier(tuple(points)).write(writer.path)
        published.write(writer.path)
        writer.write_metrics(metrics)
        writer.facts["says"] = says
    page.write([runs.load(output)], config.output / "report.html")
    return output
