"""Give every response its reward (a reward model's, a policy's implicit one, an ensemble's mean), or its likelihood."""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
import orjson
import xxhash
from rich.table import Table

from headwater import interrupts, statistics
from headwater.config import POSITIONAL
from headwater.console import say, say_stages, show
from headwater.data import reading
from headwater.data.preference import Candidates, Preference, Record
from headwater.data.reading import ReadOptions
from headwater.data.recorded import RowName
from headwater.data.templates import renders_conversations
from headwater.data.tokens import MAX_LENGTH, TOKENS_PER_PASS, EndToken
from headwater.data.writing import row_of
from headwater.errors import DataError, UsageError
from headwater.journal import Journal
from headwater.results import runs
from headwater.results.outputs import free_places
from headwater.statistics import LEVEL, Estimate, Floats

if TYPE_CHECKING:
    from headwater.rewards.responses import Rewards

EXAMPLE = "headwater score --input candidates.jsonl --output scored.jsonl --model runs/reward"
WINDOW = 256
"""Rows that are scored, and written down, together."""

HELP = {
    "Input": ("input", "model", "split", "limit"),
    "Output": ("output", "overwrite"),
    "Scores": ("value", "reference", "beta"),
    "Computation": ("max_length", "tokens_per_pass", "seed"),
}
"""Options that `--help` shows, by group; `--help-all` shows the others too."""


@dataclass(frozen=True)
class Config:
    """Flags of `headwater score`."""

    input: Annotated[Path, POSITIONAL]
    """Pairs, prompts with several responses, or single responses: a file, directory, pattern, run, or name on the
    hub."""
    output: Path
    """Data file to write (.jsonl, .jsonl.gz or .parquet), whose run is OUTPUT.run, or a run directory. A command
    that was stopped continues when it is repeated."""
    model: tuple[str, ...]
    """Reward models, or policies with their references: training runs, paths or Hugging Face names. With several,
    the data gets their mean and the run the scores of each."""
    value: Literal["reward", "log_prob", "mean_log_prob"] = "reward"
    """Score of a response: its reward, or its log-probability under a policy, summed over tokens or as their mean."""
    reference: str | None = None
    """Reference model of a policy. Default: the one that its training run names; policies trained with simpo, orpo,
    cpo or slic have none, and get the reward of their loss."""
    reward_head: int | None = None
    """Output, from 0, that is the reward in a reward model with several. Default: its only one."""
    beta: float | None = None
    """Scale of a policy's implicit reward, beta × (log π − log π_ref). Default: 0.1."""
    end: EndToken | None = None
    """Which responses get an end-of-turn token: complete ones, always, or never. Default: as in training, or
    complete."""
    max_length: int | None = None
    """Maximum number of tokens of a prompt with a response; a longer response gets no score and is counted. Default:
    2048, or the number of positions of the model if that is less."""
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
    """Score the responses and return the data file."""
    members = tuple(member for name in config.model for member in runs.members_of(name))
    config = dataclasses.replace(config, model=members)
    _check(config)
    target, home = free_places(config.output, config.input, config.overwrite, config)
    began = time.monotonic()
    settings = {name: getattr(config, name) for name in ("value", "beta", "reference", "end", "chat_template")}
    settings |= {} if config.reward_head is None else {"reward_head": config.reward_head}
    settings["max_length"] = config.max_length or MAX_LENGTH
    settings["models"] = _fingerprints(config)
    journal = Journal(config.output.with_name(config.output.name + ".ledger"), settings)
    try:
        tokens = sum(_score(config, name, journal) for name in config.model)
        row_reader = reading.stream(config.input, config.read_options)
        scores = "reward" if config.value == "reward" else "likelihood"
        facts = runs.facts_of(config.input) | {"scored_by": list(config.model), "scores": scores}
        writer = runs.start(home, "score", config, inputs=row_reader.files, facts=facts, began=began)
        scored = _Scored(config, journal)
        files = reading.write(target, scored.rows(row_reader))
    except BaseException:
        journal.close()
        raise
    say_stages({"read": row_reader.row_counts})
    row_reader.quarantine.save(home / reading.QUARANTINE)
    writer.count_stages({"read": row_reader.row_counts})
    writer.write_records(scored.records)
    metrics = scored.metrics()
    _say_throughput(scored, tokens, time.monotonic() - began)
    writer.write_metrics(metrics)
    writer.finish()
    journal.discard()
    _print(metrics, config)
    say(f"written: {files[0]}")
    return target


def _fingerprints(config: Config) -> dict[str, str]:
    from headwater.models import fingerprint

    return fingerprint.of_models([*config.model, config.reference])


def _check(config: Config) -> None:
    """Refuse flags that cannot work. Errors: `UsageError`."""
    if len(set(config.model)) < max(1, len(config.model)) or not config.model:
        raise UsageError("--model", "names a model twice, or none", "name each one once")
    if config.reference is not None and len(config.model) > 1:
        raise UsageError("--reference", f"for {len(config.model)} models", "score with one policy at a time")
    for name in ("reference", "beta", "reward_head") if config.value != "reward" else ():
        if getattr(config, name) is not None:
            raise UsageError(
                f"--{name.replace('_', '-')}", f"has no effect with --value {config.value}", "leave one out"
            )
    for name in ("max_length", "tokens_per_pass"):
        if (getattr(config, name) or 2) < 2:
            raise UsageError(f"--{name.replace('_', '-')} {getattr(config, name)}", "expected a value above 1")


def _windows(records: Iterator[Any]) -> Iterator[list[Any]]:
    while window := list(itertools.islice(records, WINDOW)):
        yield window


def _score(config: Config, name: str, journal: Journal) -> int:
    """Score with one model what is not in the ledger yet; returns the tokens that went through it."""
    from headwater.models.turn_ends import end_rule
    from headwater.rewards.responses import Reading, ResponseScorer, load_likelihood, load_response_scorer

    judge: ResponseScorer | None = None
    done, began = 0, time.monotonic()
    row_reader = reading.stream(config.input, config.read_options)
    for window in _windows(row_reader):
        interrupts.check()
        done += len(window)
        if _key(name, window) in journal:
            continue
        if judge is None:
            end = config.end or end_rule(name)
            how = Reading(end, config.max_length, config.tokens_per_pass)
            if config.value == "reward":
                judge = load_response_scorer(name, config.reference, config.beta, how, config.seed, config.reward_head)
            else:
                judge = load_likelihood(name, config.value == "mean_log_prob", how, config.seed)
            if done > len(window):
                say(f"{name}: {done - len(window):,} rows were scored before, in {journal.path}")
        journal[_key(name, window)] = judge(window)
        say(f"{name}: {done:,} rows · {judge.tokens / (time.monotonic() - began):,.0f} tokens/s")
    if not done:
        raise row_reader.no_usable_rows()
    return judge.tokens if judge else 0


def _key(name: str, window: Sequence[Record]) -> str:
    """Return what stands for a model and some rows: data that changes in between is scored anew."""
    digest = xxhash.xxh3_128(name.encode())
    for record in window:
        digest.update(orjson.dumps(row_of(record)))
    return digest.hexdigest()


class _Scored:
    """Rows with their scores, and what is to be known of them."""

    def __init__(self, config: Config, journal: Journal) -> None:
        self._config, self._journal = config, journal
        self.records: list[dict[str, Any]] = []
        self._values: list[Floats] = []
        self._conversation_ids: list[str] = []

    def rows(self, row_reader: Iterator[Any]) -> Iterator[Record]:
        """Yield the rows with the means of their scores. Errors: `DataError` for data that changed meanwhile."""
        for window in _windows(row_reader):
            keys = [_key(name, window) for name in self._config.model]
            if not all(key in self._journal for key in keys):
                raise DataError(str(self._config.input), "changed between two readings", "score it again")
            for record, *rewards in zip(window, *(self._journal[key] for key in keys), strict=True):
                yield self._row(record, np.array(rewards, dtype=np.float64))

    def _row(self, record: Record, rewards: Floats) -> Record:
        """Take down `rewards` [models, responses], NaN where there is none, and return the row with their mean."""
        several = len(rewards) > 1
        spread = {"reward_std": _plain(rewards.std(axis=0, ddof=1))} if several else {}
        about = RowName.of(record).record() | {"source": record.source}
        for name, row in zip(self._config.model, rewards, strict=True):
            self.records.append({**about, "model": name, "rewards": _plain(row), **spread})
        self._values.append(rewards)
        self._conversation_ids += [record.conversation_id] * rewards.shape[1]
        return _with_scores(record, _plain(rewards.mean(axis=0)))

    def metrics(self) -> dict[str, Estimate | float | int]:
        """Return counts, mean and spread of the scores, and how far the models of an ensemble are apart."""
        values = np.concatenate(self._values, axis=1)
        known = np.asarray(np.isfinite(values).all(axis=0))
        conversation_ids = [
            conversation_id
            for conversation_id, there in zip(self._conversation_ids, known.tolist(), strict=True)
            if there
        ]
        means, seed = values[:, known].mean(axis=0), self._config.seed
        found: dict[str, Estimate | float | int] = {
            "rows": len(self._values),
            "responses": values.shape[1],
            "without_score": int((~known).sum()),
            f"{self._config.value}_mean": statistics.mean(means, conversation_ids, seed),
            f"{self._config.value}_std": statistics.std(means, conversation_ids, seed),
        }
        if len(values) > 1:
            found["ensemble_std"] = statistics.mean(values[:, known].std(axis=0, ddof=1), conversation_ids, seed)
        return found


def _plain(values: Floats) -> Rewards:
    return [float(value) if np.isfinite(value) else None for value in values]


def _with_scores(record: Record, scores: Rewards) -> Record:
    """Return a row whose responses have these scores and no others."""
    if isinstance(record, Candidates):
        pairs = zip(record.responses, scores, strict=True)
        return dataclasses.replace(record, responses=tuple(dataclasses.replace(r, score=s) for r, s in pairs))
    sides = ("chosen", "rejected") if isinstance(record, Preference) else ("response",)
    found = {side: dataclasses.replace(getattr(record, side), score=s) for side, s in zip(sides, scores, strict=True)}
    return dataclasses.replace(record, **found)


def _say_throughput(scored: _Scored, tokens: int, seconds: float) -> None:
    counts = scored.metrics()
    without = f", {counts['without_score']:,} of them too long or empty and without a score"
    say(
        f"{counts['responses']:,} responses of {counts['rows']:,} rows{without if counts['without_score'] else ''}: "
        f"{tokens:,} tokens in {seconds:.1f} s, {tokens / seconds:,.0f} tokens/s with loading"
    )


def _print(metrics: Mapping[str, Estimate | float | int], config: Config) -> None:
    title = f"{', '.join(config.model)} on {config.input}"
    table = Table("figure", "value", f"{LEVEL:.0%} interval", "n", title=title, title_justify="left")
    for name, found in metrics.items():
        if isinstance(found, Estimate):
            table.add_row(name, f"{found.value:.4f}", found.interval(), str(found.n))
    show(table)
