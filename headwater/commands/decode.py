"""Generate responses with a policy and its reference together, and report the KL divergence of every token.

The strategy decides which model generates which tokens: length_control(first=20), kl_threshold(threshold=0.5),
interpolate(weight=0.5), or one model alone: policy, reference.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from headwater import config as configs
from headwater.config import POSITIONAL
from headwater.console import say_stages, show
from headwater.data import reading
from headwater.data.prompts import check_column, read_prompts
from headwater.data.reading import ReadOptions, RowCounts
from headwater.data.templates import renders_conversations
from headwater.decoding.options import DecodingOptions, ServerOptions
from headwater.decoding.summary import candidates, position_means, summary
from headwater.decoding.tables import decode_tables
from headwater.errors import DataError, UsageError
from headwater.journal import Journal
from headwater.results import runs
from headwater.results.facts import Facts
from headwater.results.outputs import journal_of
from headwater.results.recording import recording

EXAMPLE = 'headwater decode runs/dpo pairs.jsonl --output runs/decoded --strategy "length_control(first=20)"'

HELP = {
    "Input": ("model", "input", "column", "reference", "split", "limit"),
    "Output": ("output", "overwrite"),
    "Decoding": ("strategy", "n", "temperature", "top_p", "max_new_tokens", "seed"),
    "Computation": ("batch_size", "release_policy", "endpoint"),
    "Rewards": ("reward_model",),
}


@dataclass(frozen=True)
class Config:
    """Flags of `headwater decode`."""

    model: Annotated[str, POSITIONAL]
    """Policy: a training run, path or Hugging Face name; with --endpoint, the server's name for it."""
    input: Annotated[Path, POSITIONAL]
    """Data whose prompts are answered, each once: a file, directory, pattern, run, or name on the hub."""
    output: Path
    """Directory of the run, which is also a data set for `headwater judge` and, with --n 2 or more, for score and
    select. A command that was stopped continues when it is repeated."""
    column: str | None = None
    """Column that holds the prompt, a text or a list of messages, in data without responses."""
    strategy: str = "length_control(first=20)"
    """Which model generates which tokens: length_control(first=…), kl_threshold(threshold=…, below=…),
    interpolate(weight=…), policy or reference."""
    reference: str | None = None
    """Reference model. Default: the one that the policy's training run names."""
    release_policy: bool = False
    """Hold one model in memory at a time, for length control: the policy generates the first tokens of all
    responses, then the reference is loaded instead. The responses are the same; KL, which needs both models, is not
    recorded."""
    servers: ServerOptions = field(default_factory=ServerOptions)
    decoding: DecodingOptions = field(default_factory=DecodingOptions)
    reward_model: tuple[str, ...] = ()
    """Reward models that score every response; the rewards of the first are the scores of the data."""
    draws: int = 0
    """Draws a token for a Monte-Carlo estimate of KL(policy ‖ reference), 1000 in the paper; 0 for none."""
    seed: int = 42
    """Random seed of the responses and of the bootstrap intervals."""
    chat_template: str | None = None
    """Chat template to use instead of the model's own: plain, chatml, or a Jinja file."""
    overwrite: bool = False
    """Replace an existing run at --output."""
    read_options: ReadOptions = field(default_factory=ReadOptions)

    def __post_init__(self) -> None:
        """Refuse values that cannot work. Errors: `UsageError`."""
        check_column(self.column, self.read_options)
        if self.draws < 0:
            raise UsageError(f"--draws {self.draws}", "expected 0 or more")
        self.servers.check(self.reference, self.draws, self.decoding.draft, self.release_policy)


@renders_conversations
def run(config: Config) -> Path:
    """Decode, print the figures and return the run directory."""
    from headwater.decoding.decode import decoded, load_decoder, parse_strategy
    from headwater.decoding.decoders import RewardModels

    strategy = parse_strategy(config.strategy, config.servers, config.release_policy)
    runs.check_free(config.output, config.overwrite, config)
    prompts, stages, row_reader = read_prompts(config.input, config.read_options, config.column)
    journal = Journal(journal_of(config.output), _settings(config))
    try:
        decoder = load_decoder(
            config.model, config.reference, prompts, config.decoding, config.seed, journal,
            servers=config.servers, release_policy=config.release_policy,
        )  # fmt: skip
        stages["decode"] = RowCounts(len(prompts), len(decoder.prompts), +Counter(decoder.dropped))
        say_stages(stages)
        if not decoder.prompts:
            raise DataError(str(config.input), "no prompt leaves room for a response", "lower --max-new-tokens")
        condition = config.read_options.told
        reward_models = RewardModels(config.reward_model, condition, config.seed, config.decoding.batch_size)
        found = decoded(decoder, strategy, reward_models, config.seed, config.draws)
        # A server may refuse a prompt only when it is requested.
        stages["decode"] = RowCounts(len(prompts), len(decoder.prompts), +Counter(decoder.dropped))
    except BaseException:
        journal.close()
        raise
    facts: Facts = {"decoded_from": config.model, "strategy": config.strategy}
    with recording(config.output, "decode", config, read=row_reader, stages=stages, facts=facts) as writer:
        found.write(writer.path)
        scorer = next(iter(config.reward_model), None)
        scored = candidates(decoder.prompts, found.responses, config.decoding.n, scorer)
        reading.write(writer.path / reading.PREFERENCES, scored)
        position_means(found.responses, config.seed).write(writer.path)
        metrics = summary(found.responses, config.seed)
        writer.write_metrics({**metrics, **decoder.figures})
        for part in decode_tables(config.strategy, metrics, decoder.figures, found.responses):
            show(part)
    journal.discard()
    return config.output


def _settings(config: Config) -> dict[str, Any]:
    """Return the settings that the responses depend on."""
    from headwater.models import fingerprint

    local = None if config.servers.endpoint else fingerprint.of_models([config.model, config.reference])
    free = ("output", "overwrite", "batch_size", "draft", "draws", "reward_model", "concurrency")
    return {name: value for name, value in configs.flatten(config).items() if name not in free} | {"models": local}
