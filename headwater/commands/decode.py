"""Let a policy and its reference answer prompts together, and say what every token cost in KL.

A strategy says who speaks: length_control(first=20), kl_threshold(threshold=0.5), interpolate(weight=0.5), or one
model alone: policy, reference.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from rich.table import Table
from rich.text import Text

from headwater import config as configs
from headwater import files, statistics
from headwater.config import POSITIONAL, build
from headwater.console import say_stages, show
from headwater.data import reading
from headwater.data.preference import Candidates
from headwater.data.reading import ReadOptions, RowCounts
from headwater.data.sampling import Asked, Drawn, asked
from headwater.data.templates import renders_conversations
from headwater.decoding.options import DecodingOptions, Servers
from headwater.errors import DataError, UsageError
from headwater.journal import Journal
from headwater.marks import visible
from headwater.results import runs
from headwater.statistics import LEVEL, Estimate

if TYPE_CHECKING:
    from headwater.decoding.session import Speakers
    from headwater.decoding.strategies import Strategy

EXAMPLE = (
    'headwater decode --model runs/dpo --input pairs.jsonl --output runs/decoded --strategy "length_control(first=20)"'
)
POSITIONS = "positions.json"
"""In the run: the mean share of the policy and KL a token, over stretches of positions, with intervals."""
STRETCHES = (1, 2, 5, 10, 20, 50, 100, 200, 500)
"""First positions of the stretches; a response's first token is 1."""
SHOWN = 3

HELP = {
    "Input": ("model", "input", "reference", "split", "limit"),
    "Output": ("output", "overwrite"),
    "Decoding": ("strategy", "n", "temperature", "top_p", "max_new_tokens", "seed"),
    "Computation": ("batch_size", "release_policy", "endpoint"),
    "Rewards": ("reward_model",),
}
"""Options that `--help` shows, by group; `--help-all` shows the others too."""


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
    strategy: str = "length_control(first=20)"
    """Which model generates which tokens: length_control(first=…), kl_threshold(threshold=…, below=…),
    interpolate(weight=…), policy or reference."""
    reference: str | None = None
    """Reference model. Default: the one that the policy's training run names."""
    release_policy: bool = False
    """Hold one model in memory at a time, for length control: the policy generates the first tokens of all
    responses, then the reference is loaded instead. The responses are the same; KL, which needs both models, is not
    recorded."""
    servers: Servers = field(default_factory=Servers)
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
        if self.draws < 0:
            raise UsageError(f"--draws {self.draws}", "expected 0 or more")
        endpoint = self.servers.endpoint
        apart = "--endpoint" if endpoint else "--release-policy" if self.release_policy else None
        if apart and self.draws:
            raise UsageError("--draws", f"needs both models at once, which {apart} has not", "leave one out")
        if endpoint and self.release_policy:
            raise UsageError("--release-policy", "has no effect with --endpoint", "leave it out")
        if endpoint and self.reference is None:
            raise UsageError("--endpoint", "does not know a reference", "name --reference as its server knows it")
        if endpoint and self.decoding.draft != DecodingOptions.draft:
            raise UsageError("--draft", "has no effect with --endpoint", "leave it out")


@renders_conversations
def run(config: Config) -> Path:
    """Decode, print the figures and return the run directory."""
    from headwater.decoding.session import Judges

    strategy = _strategy(config)
    runs.check_free(config.output, config.overwrite, config)
    row_reader = reading.stream(config.input, config.read_options)
    prompts, row_counts = asked(row_reader)
    if not prompts:
        raise row_reader.no_usable_rows()
    journal = Journal(config.output.with_name(config.output.name + ".ledger"), _settings(config))
    try:
        speakers = _speakers(config, prompts, journal)
        decoded = RowCounts(len(prompts), len(speakers.prompts), +Counter(speakers.dropped))
        stages = {"read": row_reader.row_counts, "prompts": row_counts, "decode": decoded}
        say_stages(stages)
        if not speakers.prompts:
            raise DataError(str(config.input), "no prompt leaves room for a response", "lower --max-new-tokens")
        judges = Judges(config.reward_model, config.read_options.told, config.seed, config.decoding.batch_size)
        answers = speakers.answers(strategy, config.seed, config.draws)
        records = [answer.record(judges.rewards(answer)) for answer in answers]
        # A server may refuse a prompt only once it is asked.
        stages["decode"] = RowCounts(len(prompts), len(speakers.prompts), +Counter(speakers.dropped))
    except BaseException:
        journal.close()
        raise
    facts = {"decoded_from": config.model, "strategy": config.strategy}
    writer = runs.start(config.output, "decode", config, inputs=row_reader.files, facts=facts)
    writer.count_stages(stages)
    row_reader.quarantine.save(writer.path / reading.QUARANTINE)
    files.write_text(writer.path / runs.DECODED, "".join(files.to_json(record) + "\n" for record in records))
    reading.write(writer.path / reading.PREFERENCES, _candidates(speakers.prompts, records, config))
    files.write_json(writer.path / POSITIONS, list(positions(records, config.seed)))
    figures = summary(records, config.seed)
    writer.write_metrics({**figures, **speakers.figures})
    _show(figures, speakers.figures, records, config)
    found = writer.finish()
    journal.discard()
    return found


def _strategy(config: Config) -> Strategy:
    """Understand --strategy. Errors: `UsageError`, also for one that needs both models where they are apart."""
    from headwater.decoding.strategies import STRATEGIES, LengthControl

    strategy = build(config.strategy, STRATEGIES, "strategy")
    apart = "--endpoint" if config.servers.endpoint else "--release-policy"
    if (config.servers.endpoint or config.release_policy) and not isinstance(strategy, LengthControl):
        raise UsageError(f"--strategy {config.strategy}", f"is not for {apart}", "write length_control(first=…)")
    if config.release_policy and isinstance(strategy, LengthControl) and not strategy.first:
        raise UsageError("--release-policy", f"has no effect with {config.strategy}", "leave it out")
    return strategy


def _settings(config: Config) -> dict[str, Any]:
    """Return what the responses depend on."""
    from headwater.models import fingerprint

    local = None if config.servers.endpoint else fingerprint.of_models([config.model, config.reference])
    free = ("output", "overwrite", "batch_size", "draft", "draws", "reward_model", "concurrency")
    return {name: value for name, value in configs.flatten(config).items() if name not in free} | {"models": local}


def _speakers(config: Config, prompts: Sequence[Asked], journal: Journal) -> Speakers:
    """Return who answers: two models, one after the other, or two servers."""
    if config.servers.endpoint:
        from headwater.decoding.remote import Remote

        names = config.model, str(config.reference)
        return Remote(names, config.servers, prompts, config.decoding, journal)
    if config.release_policy:
        from headwater.decoding.relay import Relay

        return Relay(config.model, config.reference, prompts, config.decoding, config.seed, journal)
    from headwater.decoding.session import Session, load_pair

    return Session(load_pair(config.model, config.reference, config.seed), prompts, config.decoding, journal)


def summary(records: Sequence[dict[str, Any]], seed: int) -> dict[str, Estimate]:
    """Return the mean over responses of every total and reward, with intervals clustered by opening."""
    totals = ("response_tokens", "policy_share", "kl", "kl_policy", "log_ratio", "monte_carlo", "complete")
    columns = {name: [float(one[name]) for one in records] for name in totals if name in records[0]}
    conversation_ids = [one["opening"] for one in records]
    found = {name: statistics.mean(values, conversation_ids, seed) for name, values in columns.items()}
    for model in records[0]["rewards"]:
        scored = [one for one in records if one["rewards"][model] is not None]
        rewards = [one["rewards"][model] for one in scored]
        found[f"reward_{Path(model).name}"] = statistics.mean(rewards, [one["opening"] for one in scored], seed)
    return found


def positions(records: Sequence[dict[str, Any]], seed: int) -> Iterator[dict[str, Any]]:
    """Yield means a token over stretches of positions, of the responses that reach them."""
    conversation_ids = np.array([one["opening"] for one in records])
    for what in ("policy_share", "kl", "kl_policy"):
        columns = [np.array(one.get(f"token_{what}", ())) for one in records]
        for first, following in zip(STRETCHES, (*STRETCHES[1:], None), strict=True):
            last = None if following is None else following - 1
            parts = [column[first - 1 : last] for column in columns]
            reach = [row for row, part in enumerate(parts) if len(part)]
            if reach:
                tokens = np.array([len(parts[row]) for row in reach], dtype=np.float64)
                means = np.array([parts[row].mean() for row in reach])
                found = statistics.weighted_mean(means, tokens, conversation_ids[reach].tolist(), seed)
                yield {"what": what, "first": first, "last": last, **found._asdict()}


def _candidates(prompts: Sequence[Any], records: Sequence[dict[str, Any]], config: Config) -> list[Candidates]:
    """Return the responses as a data set, scored by the first reward model."""
    n, first = config.decoding.n, next(iter(config.reward_model), None)
    found = []
    for place, one in enumerate(prompts):
        rows = records[place * n : (place + 1) * n]
        responses = tuple(
            Drawn(row["response"], row["complete"]).response(row["rewards"][first] if first else None) for row in rows
        )
        found.append(Candidates(prompt=one.prompt, responses=responses, id=one.id, source=one.source))
    return found


def _show(
    figures: dict[str, Estimate], speed: dict[str, float], records: Sequence[dict[str, Any]], config: Config
) -> None:
    """Print the figures, what decoding took, and a few responses."""
    table = Table("a response", "mean", f"{LEVEL:.0%} interval", "n", title=config.strategy, title_justify="left")
    for name, estimate in figures.items():
        table.add_row(name.replace("_", " "), f"{estimate.value:.4f}", estimate.interval(), str(estimate.n))
    show(table)
    if "kl" in figures:
        show("KL in nats, summed over a response: kl of what was used, kl policy of the policy, from the reference")
    taken = f"; {speed['drafts_taken']:.1%} of the drafts taken" if "drafts_taken" in speed else ""
    who = [each for each in ("policy", "reference") if f"tokens_read_by_{each}" in speed]
    read = "".join(f"; {each} read {speed[f'tokens_read_by_{each}']:,.0f}" for each in who)
    show(f"{speed['tokens']:,.0f} tokens, {speed['tokens_per_second']:.1f} a second{read}{taken}")
    for record in records[:SHOWN]:
        show(Text(f"{record['id']}: {visible(record['response'])[:200]}"))
