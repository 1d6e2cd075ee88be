"""Draw several responses to every prompt, from a local model or an OpenAI-compatible server, with optional rewards."""

from __future__ import annotations

import dataclasses
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, cast

from headwater.commands._flags import DataFlags, RunFlags
from headwater.config import POSITIONAL
from headwater.console import say, say_stages
from headwater.data import reading
from headwater.data.prompts import check_column, read_prompts
from headwater.data.reading import RowCounts
from headwater.data.recorded import RowName
from headwater.data.sampling import Journal, Sampling
from headwater.data.templates import renders_conversations
from headwater.errors import DataError, NetworkError, UsageError
from headwater.network.endpoint import Refusals
from headwater.results.facts import Facts
from headwater.results.outputs import free_places, journal_of
from headwater.results.recording import recording
from headwater.rewards import drawing
from headwater.rewards.drawing import SamplerOptions

EXAMPLE = "headwater sample runs/sft pairs.jsonl --output candidates.jsonl --n 8"

HELP = {
    "Input": ("model", "input", "column", "split", "limit"),
    "Output": ("output", "overwrite"),
    "Sampling": ("n", "temperature", "top_p", "max_new_tokens", "seed"),
    "Rewards": ("reward_model",),
    "Computation": ("batch_size", "endpoint", "concurrency"),
}


@dataclass(frozen=True, kw_only=True)
class Config(DataFlags, RunFlags):
    """Flags of `headwater sample`."""

    model: Annotated[str, POSITIONAL]
    """Policy to sample from: a training run, path or Hugging Face name; with --endpoint, the server's name for it."""
    input: Annotated[Path, POSITIONAL]
    """Data whose prompts are answered, each once: a file, directory, pattern, run, or name on the hub."""
    output: Path
    """Data file to write (.jsonl, .jsonl.gz or .parquet), whose run is OUTPUT.run, or a run directory. A command
    that was stopped continues when it is repeated."""
    column: str | None = None
    """Column that holds the prompt, a text or a list of messages, in data without responses."""
    sampler: SamplerOptions = field(default_factory=SamplerOptions)
    sampling: Sampling = field(default_factory=Sampling)
    reward_model: tuple[str, ...] = ()
    """Reward models that score every response: training runs, paths or Hugging Face names. The rewards of the first
    are the scores of the data; the run holds those of all, for `headwater select --rewards`."""
    seed: int = 42
    """Random seed of the responses."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work or have no effect. Errors: `UsageError`."""
        if len(set(self.reward_model)) < len(self.reward_model):
            raise UsageError("--reward-model", "names a model twice", "name each one once")
        self.sampler.check(self.chat_template, scores=bool(self.reward_model))
        check_column(self.column, self.read_options)


@renders_conversations
def run(config: Config) -> Path:
    """Draw the responses and return the data file."""
    endpoint = config.sampler.endpoint
    target, home = free_places(config.output, config.input, config.overwrite, config)
    prompts, stages, row_reader = read_prompts(config.input, config.read_options, config.column)
    journal = Journal(journal_of(config.output), _settings(config))
    try:
        refusals = Refusals(answered=len(journal) > 0)
        kept = drawing.draw_missing(
            config.model, prompts, config.sampling, config.sampler, config.seed, journal, refusals
        )
        dropped = refusals.counts if endpoint else Counter({"too_long": len(prompts) - len(kept)})
        stages["sample"] = RowCounts(len(prompts), len(kept), +dropped)
        say_stages(stages)
        if not kept and endpoint:
            raise NetworkError(endpoint, f"no prompt was answered: {refusals.summary()}")
        if not kept:
            raise DataError(str(config.input), "no prompt leaves room for a response", "lower --max-new-tokens")
        condition, batch = config.read_options.told, config.sampler.batch
        rewards = drawing.score_drawn(config.reward_model, kept, journal, condition, batch, config.seed)
        found = drawing.candidates(kept, journal, next(iter(rewards.values()), None))
        counts = drawing.counts(found)
        facts: Facts = {"sampled_from": config.model, **cast(Facts, dataclasses.asdict(config.sampling))}
        with recording(home, "sample", config, read=row_reader, stages=stages, facts=facts) as writer:
            reading.write(target, found)
            if rewards:
                writer.write_records(
                    [
                        RowName.of(one).record() | {"model": name, "rewards": row}
                        for name, rows in rewards.items()
                        for one, row in zip(found, rows, strict=True)
                    ]
                )
            writer.write_metrics(counts)
    except BaseException:
        journal.close()
        raise
    journal.discard()
    complete, different = counts["complete"], counts["different"]
    say(f"{counts['responses']:,} responses, {complete:,} complete, {different:,} different in their row")
    return target


def _settings(config: Config) -> dict[str, Any]:
    """Return the settings that the draws depend on."""
    from headwater.models import fingerprint

    return {
        "model": config.model,
        "models": None if config.sampler.endpoint else fingerprint.of_models([config.model]),
        "endpoint": config.sampler.endpoint,
        "chat_template": config.chat_template,
        "seed": config.seed,
        **dataclasses.asdict(config.sampling),
    }
