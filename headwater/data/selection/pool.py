"""The rows to choose from, as flat arrays: no text, a few numbers a response, so that millions fit in memory."""

from __future__ import annotations

import sys
from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from headwater.data.facts import Scores
from headwater.data.preference import Candidates, Preference, Response
from headwater.data.recorded import Recorded, RowName
from headwater.data.selection.variance import Floats, Ints, logit
from headwater.errors import DataError

PROBABILITIES = ("alpaca-eval-responses", "best-of-n")
"""Layouts whose scores are probabilities."""

Measure = Callable[[Sequence[str]], Sequence[int]]
"""Texts to their lengths."""


Rewards = Recorded[Sequence[float]]
"""Numbers that a run recorded: [chosen, rejected] of a pair, or one for each of the candidates."""


@dataclass(frozen=True)
class Pool:
    """Numbers of the rows to choose from. Responses lie flat: those of row k are `offsets[k]` to `offsets[k + 1]`."""

    paired: bool
    """Whether rows are pairs: then the first response was preferred to the second."""
    ids: Sequence[str]
    keys: Sequence[str]
    """What the draws of a row are seeded by; see `Prompted.key`."""
    sources: Sequence[str]
    conversation_ids: Sequence[str]
    offsets: Ints
    """[rows + 1]."""
    lengths: Ints
    """Of the responses, [responses], in `unit`."""
    prompt_lengths: Ints
    """[rows], in `unit`."""
    unit: str
    """`characters` or `tokens`."""
    rewards: Floats
    """[models, responses]; NaN where there is none."""
    implicit: Floats
    """Implicit rewards β log π/π_ref, [models, responses]; NaN where there is none."""
    likelihood: Floats
    """log π under policies, [models, responses]; NaN where there is none."""

    def __len__(self) -> int:
        """Return the number of rows."""
        return len(self.ids)

    def of_row(self, row: int) -> slice:
        """Return where the responses of a row lie."""
        return slice(int(self.offsets[row]), int(self.offsets[row + 1]))

    @property
    def reward(self) -> Floats:
        """The reward of every response, [responses]: the mean over models; NaN where one of them has none."""
        return np.asarray(self.rewards.mean(axis=0), dtype=np.float64)

    def scored_rows(self) -> Ints:
        """Return the rows with two or more responses that have a reward."""
        known = np.add.reduceat((~np.isnan(self.reward)).astype(np.int64), self.offsets[:-1])
        return np.flatnonzero(known >= 2)

    def widest(self, values: Floats) -> Floats:
        """Return, for every row, the largest minus the smallest of its responses' `values`; NaN below two."""
        starts = self.offsets[:-1]
        # fmax leaves NaN out.
        span = np.fmax.reduceat(values, starts) - np.fmin.reduceat(values, starts)
        known = np.add.reduceat((~np.isnan(values)).astype(np.int64), starts)
        return np.asarray(np.where(known >= 2, span, np.nan), dtype=np.float64)


class PoolBuilder:
    """Fills row by row with `add`, and makes a `Pool`."""

    def __init__(
        self,
        measure: Measure | None = None,
        rewards: Sequence[Rewards] = (),
        implicit: Sequence[Rewards] = (),
        likelihood: Sequence[Rewards] = (),
    ) -> None:
        """Measure lengths in characters, or as `measure` does (tokens); `rewards` replace the data's own scores."""
        self._measure = measure
        self._recorded = {"rewards": rewards, "implicit": implicit, "likelihood": likelihood}
        self._paired: bool | None = None
        self._ids: list[str] = []
        self._keys: list[str] = []
        self._sources: list[str] = []
        self._conversation_ids: list[str] = []
        self._offsets, self._lengths, self._prompts = array("q", [0]), array("q"), array("q")
        self._scores = array("d")
        self._found = {kind: [array("d") for _ in runs] for kind, runs in self._recorded.items()}

    def add(self, record: Preference | Candidates) -> None:
        """Take in one row.

        Errors: `DataError` for recorded rewards that are not one for each response, or of which nothing but an id that
        several rows bear says whose they are.
        """
        self._paired = isinstance(record, Preference)
        responses = responses_of(record)
        name = RowName.of(record)
        self._ids.append(record.id)
        self._keys.append(record.key)
        self._sources.append(sys.intern(record.source))  # one text for all of its rows
        self._conversation_ids.append(record.conversation_id)
        self._offsets.append(self._offsets[-1] + len(responses))
        prompt, *lengths = self._measured(record, responses)
        self._prompts.append(prompt)
        self._lengths.extend(lengths)
        self._scores.extend(float("nan") if response.score is None else response.score for response in responses)
        for kind, runs in self._recorded.items():
            for run, column in zip(runs, self._found[kind], strict=True):
                column.extend(_recorded(run, name, len(responses)))

    def _measured(self, record: Preference | Candidates, responses: Sequence[Response]) -> Sequence[int]:
        texts = ["\n".join(message.shown for message in record.prompt), *(response.shown for response in responses)]
        return self._measure(texts) if self._measure else [len(text) for text in texts]

    def pool(self, scores: Scores) -> Pool:
        """Return the pool; `scores` says what the data's own are. Errors: `DataError` for a probability that is none.

        A run whose ids are none of the data's is refused, too.
        """
        for runs in self._recorded.values():
            for run in runs:
                self._check_known(run)
        found = {kind: self._columns(kind) for kind in self._recorded}
        if scores == "likelihood":
            found["likelihood"] = np.vstack([np.array(self._scores), found["likelihood"]])
        elif not len(found["rewards"]):
            found["rewards"] = self._own(scores)[None]
        if not len(found["rewards"]):
            found["rewards"] = np.full((1, len(self._lengths)), np.nan)
        return Pool(
            paired=bool(self._paired),
            ids=self._ids,
            keys=self._keys,
            sources=self._sources,
            conversation_ids=self._conversation_ids,
            offsets=np.array(self._offsets),
            lengths=np.array(self._lengths),
            prompt_lengths=np.array(self._prompts),
            unit="tokens" if self._measure else "characters",
            **found,
        )

    def _columns(self, kind: str) -> Floats:
        columns = self._found[kind]
        return np.array([np.frombuffer(column) for column in columns]).reshape(len(columns), len(self._lengths))

    def _own(self, scores: Scores) -> Floats:
        own = np.array(self._scores)
        if scores == "reward":
            return own
        outside = np.flatnonzero((own < 0) | (own > 1))
        if len(outside):
            row = int(np.searchsorted(self._offsets, outside[0], side="right")) - 1
            found = f"has a score of {own[outside[0]]:g}"
            raise DataError(self._ids[row], found, "expected a probability", "choose --scores reward")
        return logit(own)

    def _check_known(self, run: Rewards) -> None:
        if not run.given:
            here, there = (self._ids or ["none"])[0], run.first_id or "none"
            raise DataError(run.name, f"has no rewards for this data: its ids are like {there}, the data's like {here}")


def responses_of(record: Preference | Candidates) -> tuple[Response, ...]:
    """Return the responses of a row; of a pair, the preferred one first."""
    return (record.chosen, record.rejected) if isinstance(record, Preference) else record.responses


def _recorded(run: Rewards, name: RowName, count: int) -> Sequence[float]:
    rewards = run.of(name)
    if rewards is None:
        return [float("nan")] * count
    if len(rewards) != count:
        found = f"has {len(rewards)} rewards for {name.id}"
        raise DataError(run.name, found, f"expected {count}, one for each response")
    return rewards
