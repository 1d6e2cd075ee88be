"""Scores of every response of a data set by one or more saved models, in passes that can be interrupted.

Every window of rows is scored by a model and stored in a journal before the next one is read, so that a job that was
stopped continues where it was. `DataScorer.score` fills the journal, a model at a time; `DataScorer.rows` reads the
data once more and joins the scores of all models.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import orjson
import xxhash

from headwater import interrupts, statistics
from headwater.console import say
from headwater.data import reading
from headwater.data.preference import Candidates, Preference, Record
from headwater.data.reading import ReadOptions
from headwater.data.recorded import RowName
from headwater.data.tokens import MAX_LENGTH, TOKENS_PER_PASS
from headwater.data.turns import EndToken
from headwater.data.writing import row_of
from headwater.errors import DataError, UsageError
from headwater.journal import Journal
from headwater.models import fingerprint
from headwater.models.turn_ends import end_rule
from headwater.results import runs
from headwater.results.rewards import RewardRecord, RewardRecords, ScoreFigures
from headwater.rewards.responses import Reading, ResponseScorer, Rewards, load_likelihood, load_response_scorer
from headwater.statistics import Floats

WINDOW = 256
"""Number of rows that are scored, and stored, together."""

Value = Literal["reward", "log_prob", "mean_log_prob"]


@dataclass(frozen=True)
class ScoringOptions:
    """How responses are scored."""

    value: Value = "reward"
    """Reward; or the log-probability of a response under a policy, summed over its tokens or their mean."""
    reference: str | None = None
    """Reference model of a policy; None: the one that its training run names."""
    reward_head: int | None = None
    """Index of the reward among the outputs of a reward model with several."""
    beta: float | None = None
    """Scale of a policy's implicit reward; None: 0.1."""
    end: EndToken | None = None
    """Which responses get an end-of-turn token; None: as the model was trained."""
    max_length: int | None = None
    """Maximum tokens of prompt and response; a longer response gets no score."""
    tokens_per_pass: int = TOKENS_PER_PASS
    seed: int = 42

    def check(self, models: Sequence[str]) -> None:
        """Refuse options that cannot work, for these models. Errors: `UsageError`."""
        if not models or len(set(models)) < len(models):
            raise UsageError("--model", "names a model twice, or none", "name each one once")
        if self.reference is not None and len(models) > 1:
            raise UsageError("--reference", f"for {len(models)} models", "score with one policy at a time")
        for name in ("reference", "beta", "reward_head") if self.value != "reward" else ():
            if getattr(self, name) is not None:
                flag = f"--{name.replace('_', '-')}"
                raise UsageError(flag, f"has no effect with --value {self.value}", "leave one out")
        for name in ("max_length", "tokens_per_pass"):
            if (getattr(self, name) or 2) < 2:
                flag = f"--{name.replace('_', '-')} {getattr(self, name)}"
                raise UsageError(flag, "expected a value above 1")

    def settings(self, models: Sequence[str]) -> dict[str, Any]:
        """Return what the scores depend on, for the header of a journal."""
        found: dict[str, Any] = {name: getattr(self, name) for name in ("value", "beta", "reference", "end")}
        found |= {} if self.reward_head is None else {"reward_head": self.reward_head}
        models_read = [*models, *([self.reference] if self.reference else [])]
        return found | {"max_length": self.max_length or MAX_LENGTH, "models": fingerprint.of_models(models_read)}


def members_of(models: Iterable[str]) -> tuple[str, ...]:
    """Return the models, with the members of an ensemble in its place."""
    return tuple(member for name in models for member in runs.members_of(name))


class DataScorer:
    """Scores the rows of a data set with several models, and joins the scores."""

    def __init__(
        self, data: Path, read_options: ReadOptions, models: Sequence[str], options: ScoringOptions, journal: Journal
    ) -> None:
        self._data, self._read_options, self._options, self._journal = data, read_options, options, journal
        self._models = tuple(models)
        self._records: list[RewardRecord] = []
        self._values: list[Floats] = []
        self._conversation_ids: list[str] = []

    def score(self) -> int:
        """Score what is not in the journal, and return the number of tokens that the models read."""
        return sum(map(self._score_with, self._models))

    def _score_with(self, model: str) -> int:
        scorer: ResponseScorer | None = None
        done, began = 0, time.monotonic()
        row_reader = reading.stream(self._data, self._read_options)
        for window in _windows(row_reader):
            interrupts.check()
            done += len(window)
            key = _key(model, window)
            if key in self._journal:
                continue
            if scorer is None:
                scorer = self._load(model)
                if done > len(window):
                    say(f"{model}: {done - len(window):,} rows were scored before, in {self._journal.path}")
            self._journal[key] = scorer(window)
            say(f"{model}: {done:,} rows · {scorer.tokens / (time.monotonic() - began):,.0f} tokens/s")
        if not done:
            raise row_reader.no_usable_rows()
        return scorer.tokens if scorer else 0

    def _load(self, model: str) -> ResponseScorer:
        options = self._options
        how = Reading(options.end or end_rule(model), options.max_length, options.tokens_per_pass)
        if options.value == "reward":
            reference, beta, head = options.reference, options.beta, options.reward_head
            return load_response_scorer(model, reference, beta, how, options.seed, head)
        return load_likelihood(model, options.value == "mean_log_prob", how, options.seed)

    def rows(self, records: Iterator[Record]) -> Iterator[Record]:
        """Yield `records`, the rows of the data, with the means of their scores.

        Errors: `DataError` for data that changed since it was scored.
        """
        for window in _windows(records):
            keys = [_key(model, window) for model in self._models]
            if not all(key in self._journal for key in keys):
                raise DataError(str(self._data), "changed between two readings", "score it again")
            for record, *rewards in zip(window, *(self._journal[key] for key in keys), strict=True):
                yield self._joined(record, np.array(rewards, dtype=np.float64))

    def _joined(self, record: Record, rewards: Floats) -> Record:
        """Store `rewards` [models, responses], NaN where there is none, and return the row with their mean."""
        spread = tuple(_plain(rewards.std(axis=0, ddof=1))) if len(rewards) > 1 else None
        name = RowName.of(record)._asdict()
        for model, row in zip(self._models, rewards, strict=True):
            values = tuple(_plain(row))
            self._records.append(
                RewardRecord(**name, source=record.source, model=model, rewards=values, reward_std=spread)
            )
        self._values.append(rewards)
        self._conversation_ids += [record.conversation_id] * rewards.shape[1]
        return _with_scores(record, _plain(rewards.mean(axis=0)))

    def records(self) -> RewardRecords:
        """Return the scores of the rows that `rows` has yielded, by every model."""
        return RewardRecords(tuple(self._records))

    def figures(self) -> ScoreFigures:
        """Return counts, mean and spread of the scores of the rows that `rows` has yielded."""
        values = np.concatenate(self._values, axis=1)
        known = np.asarray(np.isfinite(values).all(axis=0))
        conversation_ids = [one for one, there in zip(self._conversation_ids, known.tolist(), strict=True) if there]
        means, seed = values[:, known].mean(axis=0), self._options.seed
        estimates = {
            f"{self._options.value}_mean": statistics.mean(means, conversation_ids, seed),
            f"{self._options.value}_std": statistics.std(means, conversation_ids, seed),
        }
        if len(values) > 1:
            spread: Floats = values[:, known].std(axis=0, ddof=1)
            estimates["ensemble_std"] = statistics.mean(spread, conversation_ids, seed)
        return ScoreFigures(len(self._values), values.shape[1], int((~known).sum()), **estimates)


def _windows(records: Iterator[Record]) -> Iterator[list[Record]]:
    while window := list(itertools.islice(records, WINDOW)):
        yield window


def _key(model: str, window: Sequence[Record]) -> str:
    """Return the key of a model and some rows in the journal: rows that changed have another one."""
    digest = xxhash.xxh3_128(model.encode())
    for record in window:
        digest.update(orjson.dumps(row_of(record)))
    return digest.hexdigest()


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
