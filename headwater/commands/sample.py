"""Draw several responses to every prompt, from a local model or an OpenAI-compatible server, with optional rewards."""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from headwater.commands._flags import DataFlags, RunFlags
from headwater.config import POSITIONAL
from headwater.console import say, say_stages, track
from headwater.data import reading
from headwater.data.layouts import Broken, fields, with_messages
from headwater.data.preference import Candidates, Prompted
from headwater.data.reading import RowCounts
from headwater.data.recorded import RowName
from headwater.data.sampling import Asked, Drawn, Journal, Sampling, ask_many, asked
from headwater.data.templates import given_template, renders_conversations
from headwater.errors import DataError, NetworkError, UsageError
from headwater.network.endpoint import Endpoint, Refusals
from headwater.results import runs
from headwater.results.outputs import free_places

EXAMPLE = "headwater sample --input pairs.jsonl --output candidates.jsonl --model runs/sft --n 8"
AT_ONCE = 8
Rewards = list[float | None]
"""Of the responses to one prompt; None for one that is empty or too long."""

HELP = {
    "Input": ("model", "input", "split", "limit"),
    "Output": ("output", "overwrite"),
    "Sampling": ("n", "temperature", "top_p", "max_new_tokens", "seed"),
    "Rewards": ("reward_model",),
    "Computation": ("batch_size", "endpoint", "concurrency"),
}
"""Options that `--help` shows, by group; `--help-all` shows the others too."""


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
    endpoint: str | None = None
    """OpenAI-compatible server to ask instead of a local model, such as http://localhost:8000/v1; its key is read
    from OPENAI_API_KEY."""
    sampling: Sampling = field(default_factory=Sampling)
    reward_model: tuple[str, ...] = ()
    """Reward models that score every response: training runs, paths or Hugging Face names. The rewards of the first
    are the scores of the data; the run holds those of all, for `headwater select --rewards`."""
    batch_size: int | None = None
    """Number of prompts a local model answers at a time. Does not change results. Default: 8."""
    concurrency: int | None = None
    """Number of prompts sent to a server at a time; each response is a request. Default: 8."""
    seed: int = 42
    """Random seed of the responses."""


@renders_conversations
def run(config: Config) -> Path:
    """Draw the responses and return the data file."""
    _check(config)
    target, home = free_places(config.output, config.input, config.overwrite, config)
    row_reader = reading.stream(config.input, config.read_options)
    prompts, row_counts = asked(_only_prompts(config) if config.column else row_reader)
    if not prompts:
        raise row_reader.no_usable_rows()
    stages = {"prompts": row_counts} if config.column else {"read": row_reader.row_counts, "prompts": row_counts}
    journal = Journal(target.with_name(target.name + ".ledger"), _settings(config))
    try:
        refusals = Refusals(answered=len(journal) > 0)
        _draw(config, prompts, journal, refusals)
        kept = [one for one in prompts if one.key in journal]
        dropped = refusals.counts if config.endpoint else Counter({"too_long": len(prompts) - len(kept)})
        stages["sample"] = RowCounts(len(prompts), len(kept), +dropped)
        say_stages(stages)
        if not kept and config.endpoint:
            raise NetworkError(config.endpoint, f"no prompt was answered: {refusals.summary()}")
        if not kept:
            raise DataError(str(config.input), "no prompt leaves room for a response", "lower --max-new-tokens")
        rewards = _rewards(config, kept, journal)
        facts = {"sampled_from": config.model, **dataclasses.asdict(config.sampling)}
        writer = runs.start(home, "sample", config, inputs=row_reader.files, facts=facts)
        row_reader.quarantine.save(home / reading.QUARANTINE)
        writer.count_stages(stages)
        figures = _Figures()
        found = list(_candidates(kept, journal, next(iter(rewards.values()), None)))
        reading.write(target, figures.counting(found))
        if rewards:
            writer.write_records(
                [
                    RowName.of(one).record() | {"model": name, "rewards": row}
                    for name, rows in rewards.items()
                    for one, row in zip(found, rows, strict=True)
                ]
            )
    except BaseException:
        journal.close()
        raise
    writer.write_metrics(figures.metrics())
    writer.finish()
    journal.discard()
    say(f"{figures.responses:,} responses, {figures.complete:,} complete, {figures.different:,} different in their row")
    say(f"written: {target}")
    return target


def _only_prompts(config: Config) -> Iterator[Prompted]:
    """Read the prompts of rows that hold nothing else. Errors: `DataError` at the first row that has none."""
    for row in itertools.islice(reading.read_rows(config.input, config.read_options), config.read_options.limit):
        try:
            prompt = fields.prompt(with_messages(row.fields)[0], str(config.column))
        except Broken as problem:
            raise DataError(row.place, *problem.args) from problem
        if prompt[-1].role != "user":
            raise DataError(
                row.place, f"{config.column} ends with the turn of the {prompt[-1].role}", "expected a user's"
            )
        name = str(row.fields.get("id") or Path(row.place).name)
        one = Prompted(prompt=prompt, id=name, source=str(row.fields.get("source") or config.input.name))
        yield reading.conditioned(one, row, config.read_options)


def _draw(config: Config, prompts: Sequence[Asked], journal: Journal, refusals: Refusals) -> None:
    """Draw for the prompts that are not in the journal, and append each as it comes."""
    left = [one for one in prompts if one.key not in journal]
    if len(left) < len(prompts):
        say(f"resumed: {len(prompts) - len(left):,} of {len(prompts):,} prompts are in {journal.path}")
    drawn = _from_server(config, left, refusals) if config.endpoint else _from_model(config, left)
    for one, responses in track(drawn, "prompts", len(left)):
        journal.add(one.key, responses)


def _check(config: Config) -> None:
    """Refuse flags that cannot work or have no effect. Errors: `UsageError`."""
    if len(set(config.reward_model)) < len(config.reward_model):
        raise UsageError("--reward-model", "names a model twice", "name each one once")
    if config.concurrency is not None and not config.endpoint:
        raise UsageError("--concurrency", "has no effect on a local model", "leave it out, or see --batch-size")
    if config.batch_size is not None and config.endpoint and not config.reward_model:
        raise UsageError("--batch-size", "has no effect on a server", "leave it out, or see --concurrency")
    if config.chat_template is not None and config.endpoint:
        raise UsageError("--chat-template", "has no effect on a server, which has its own", "leave it out")
    for name in ("batch_size", "concurrency"):
        value = getattr(config, name)
        if value is not None and value < 1:
            raise UsageError(f"--{name.replace('_', '-')} {value}", "expected 1 or more")
    if config.endpoint:
        Endpoint(config.endpoint)
    if config.column:
        _check_column(config)


def _check_column(config: Config) -> None:
    """Refuse reading options without effect beside `--column`. Errors: `UsageError`."""
    read_options = config.read_options
    given = {
        "--format": read_options.layout,
        "--columns": read_options.columns,
        "--max-bad-rows": read_options.max_bad_rows != "0" or None,
    }
    for flag, value in given.items():
        if value is not None:
            raise UsageError(flag, "has no effect with --column", "leave one of them out")


def _settings(config: Config) -> dict[str, object]:
    """Return what the draws depend on."""
    from headwater.models import fingerprint

    return {
        "model": config.model,
        "models": None if config.endpoint else fingerprint.of_models([config.model]),
        "endpoint": config.endpoint,
        "chat_template": config.chat_template,
        "seed": config.seed,
        **dataclasses.asdict(config.sampling),
    }


def _from_server(config: Config, prompts: Sequence[Asked], refusals: Refusals) -> Iterator[tuple[Asked, list[Drawn]]]:
    endpoint = Endpoint(str(config.endpoint))
    at_once = config.concurrency or AT_ONCE
    return ask_many(endpoint, config.model, prompts, config.sampling, config.seed, at_once, refusals)


def _from_model(config: Config, prompts: Sequence[Asked]) -> Iterator[tuple[Asked, list[Drawn]]]:
    """Draw from a local model; prompts that are too long are left out."""
    from headwater.rewards.sampling import draw_from

    if prompts:
        yield from draw_from(config.model, prompts, config.sampling, config.seed, config.batch_size or AT_ONCE)


def _rewards(config: Config, prompts: Sequence[Asked], journal: Journal) -> dict[str, list[Rewards]]:
    """Score the draws, prompt by prompt, with every given reward model."""
    from headwater.models import loading, positions
    from headwater.models.turn_ends import end_rule
    from headwater.rewards import sampling

    found: dict[str, list[Rewards]] = {}
    batch = config.batch_size or AT_ONCE
    for name in config.reward_model:
        loading.check_conditions(name, [config.read_options.told])
        with given_template(None):  # a reward model is asked as it was trained
            (model, tokenizer), end = loading.load(name, "reward", (), config.seed), end_rule(name)
        longest = positions.readable(model)
        found[name] = [
            sampling.scores(model, tokenizer, one, journal.drawn(one.key), longest, batch, end)
            for one in track(prompts, f"rewards by {Path(name).name}", len(prompts))
        ]
    return found


def _candidates(prompts: Sequence[Asked], journal: Journal, rewards: Sequence[Rewards] | None) -> Iterator[Candidates]:
    for row, one in enumerate(prompts):
        drawn = journal.drawn(one.key)
        found = rewards[row] if rewards else [None] * len(drawn)
        responses = tuple(each.response(reward) for each, reward in zip(drawn, found, strict=True))
        yield Candidates(prompt=one.prompt, responses=responses, id=one.id, source=one.source)


class _Figures:
    """Counts the written responses."""

    def __init__(self) -> None:
        self.prompts = self.responses = self.complete = self.different = self.scored = 0

    def counting(self, rows: Iterable[Candidates]) -> Iterator[Candidates]:
        for row in rows:
            self.prompts += 1
            self.responses += len(row.responses)
            self.complete += sum(response.complete for response in row.responses)
            self.different += len({response.text for response in row.responses})
            self.scored += sum(response.score is not None for response in row.responses)
            yield row

    def metrics(self) -> dict[str, int]:
        return dict(vars(self))
