"""The chosen rows, read a second time: as they are, as pairs, or without labels for human annotation."""

from __future__ import annotations

import dataclasses
import math
import random
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import orjson
import pyarrow
import pyarrow.parquet

from headwater.data.layouts import NoPreference, check_responses
from headwater.data.preference import Candidates, Preference, question_of
from headwater.data.reading import RowCounts, RowReader
from headwater.data.selection.effects import columns_of
from headwater.data.selection.pairing import Pairing, compared, seed_of
from headwater.data.selection.pool import Pool, responses_of
from headwater.data.selection.selectors import PVar, Selector
from headwater.data.selection.variance import Floats, Ints
from headwater.errors import DataError
from headwater.files import write_atomically

SHOWN = 3
"""Examples from either end of the ranking."""
CHARACTERS = 300
"""Of a text in an example."""


class ExampleResponse(NamedTuple):
    """A response of an example; its reward is NaN where it has none."""

    text: str
    reward: float


class Example(NamedTuple):
    """A row from one end of the ranking, with shortened texts."""

    id: str
    score: float
    taken: bool
    prompt: str
    best: ExampleResponse
    worst: ExampleResponse


class ChosenRows:
    """Reads the data again and yields the chosen ones; row counts and examples fill meanwhile."""

    def __init__(
        self, pool: Pool, scores: Floats, chosen: Ints, pairing: Pairing | None, seed: int, wanted: Collection[int] = ()
    ) -> None:
        self.wanted: dict[int, Preference | Candidates] = {}
        """The rows of the argument `wanted`, chosen or not."""
        self.pairs = RowCounts()
        """Counts of the pairs that were made of candidates; ties, and pairs that compare nothing, are dropped."""
        self._pool, self._pairing, self._seed = pool, pairing, seed
        self._reward = pool.reward
        self._chosen, self._wanted = frozenset(chosen.tolist()), frozenset(wanted)
        self._scores = scores
        defined = np.argsort(scores, kind="stable")[: np.count_nonzero(~np.isnan(scores))]  # NaN sorts last
        self._ends = {"top": defined[::-1][:SHOWN].tolist(), "bottom": defined[:SHOWN].tolist()}
        self._shown: dict[int, Example] = {}

    def records(self, row_reader: RowReader) -> Iterator[Preference | Candidates]:
        """Yield the chosen rows in the order of the data. Errors: `DataError` when it is not what was read before."""
        shown = {row for rows in self._ends.values() for row in rows}
        read = 0
        for row, record in enumerate(row_reader):
            if not isinstance(record, Preference | Candidates) or [record.key] != list(self._pool.keys[row : row + 1]):
                raise _changed(row_reader.place)
            read += 1
            if row in self._wanted:
                self.wanted[row] = record
            if row in shown:
                self._shown[row] = self._example(row, record)
            if row in self._chosen:
                yield from self._pairs(row, record) if self._pairing else [record]
        if read < len(self._pool):
            raise _changed(row_reader.place)

    def examples(self) -> dict[str, tuple[Example, ...]]:
        """Return the rows with the highest (`top`) and lowest (`bottom`) scores, in order, with shortened texts."""
        return {end: tuple(self._shown[row] for row in rows if row in self._shown) for end, rows in self._ends.items()}

    def _pairs(self, row: int, record: Preference | Candidates) -> Iterator[Preference]:
        assert self._pairing is not None  # the caller asked
        rewards = self._reward[self._pool.of_row(row)]
        found = compared(self._pairing, rewards, seed_of(self._seed, record.key))
        self.pairs.rows_in += len(found.pairs) + found.ties
        if found.ties:
            self.pairs.dropped["tie"] += found.ties
        for better, worse in found.pairs:
            chosen, rejected = (
                dataclasses.replace(responses_of(record)[place], score=float(rewards[place]))
                for place in (better, worse)
            )
            try:
                check_responses(chosen, rejected)
            except NoPreference as reason:
                self.pairs.dropped[str(reason)] += 1
                continue
            self.pairs.kept += 1
            name = f"{record.id}:{better + 1}>{worse + 1}"
            yield Preference(
                prompt=record.prompt,
                chosen=chosen,
                rejected=rejected,
                id=name,
                source=record.source,
                condition=record.condition,
            )

    def _example(self, row: int, record: Preference | Candidates) -> Example:
        rewards = self._reward[self._pool.of_row(row)]
        found = zip(responses_of(record), rewards.tolist(), strict=True)
        ranked = sorted(found, key=lambda one: (math.isnan(one[1]), -one[1]))  # those without a reward come last
        scored = [one for one in ranked if not math.isnan(one[1])] or ranked
        prompt = question_of(record.prompt)
        best, worst = (ExampleResponse(one.shown[:CHARACTERS], reward) for one, reward in (scored[0], scored[-1]))
        score, taken = float(self._scores[row]), row in self._chosen
        return Example(record.id, score, taken, prompt[:CHARACTERS], best, worst)


def _changed(place: str) -> DataError:
    return DataError(place, "changed while it was read", "expected the same rows the second time", "repeat the command")


def annotation_rows(records: Iterable[Preference | Candidates], seed: int) -> Iterator[dict[str, Any]]:
    """Yield rows for annotation: `instruction`, `response_1` … and no label, in a seeded order of the responses.

    Argilla logs them as they are, with text fields of these names. `order` maps back: `response_1` is the response
    number `order[0]` of the row `id`, counted from 0.
    """
    for record in records:
        responses = responses_of(record)
        order = random.Random(seed_of(seed, record.key)).sample(range(len(responses)), len(responses))
        texts = {f"response_{number}": responses[place].shown for number, place in enumerate(order, start=1)}
        yield {"id": record.id, "source": record.source, "instruction": _asked(record)} | texts | {"order": order}


def _asked(record: Preference | Candidates) -> str:
    """Return the prompt as a person reads it: the text alone, or every turn under its role."""
    if len(record.prompt) == 1:
        return record.prompt[0].shown
    return "\n\n".join(f"{message.role}: {message.shown}" for message in record.prompt)


def write_annotation(path: Path, records: Iterable[Preference | Candidates], seed: int) -> None:
    """Write `annotation_rows` as JSON lines, atomically."""

    def fill(temporary: Path) -> None:
        with temporary.open("wb") as handle:
            for row in annotation_rows(records, seed):
                handle.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))

    write_atomically(path, fill)


SCORES = "selection.parquet"
"""In a run: one line a row that was read, in the order of the data."""


def write_scores(path: Path, pool: Pool, selector: Selector, scores: Floats, chosen: Ints) -> None:
    """Write every row's score, place in the choice (`rank` from 1; 0: not taken), PVar with its error, and length.

    PVar has the settings of `selector` where that is PVar, and the usual ones elsewhere.
    """
    rank = np.zeros(len(pool), dtype=np.int64)
    rank[chosen] = np.arange(1, len(chosen) + 1)
    columns: dict[str, Any] = {
        "id": pool.ids,
        "source": pool.sources,
        "opening": pool.conversation_ids,
        "score": scores,
    }
    columns |= {"taken": rank > 0, "rank": rank}
    if not np.isnan(pool.reward).all():
        measured = (selector if isinstance(selector, PVar) else PVar()).measured(pool)
        columns |= {"pvar": measured.value, "pvar_error": measured.error, "scored_responses": measured.scored}
    columns |= columns_of(pool)
    table = pyarrow.table({name: pyarrow.array(values, from_pandas=True) for name, values in columns.items()})
    write_atomically(path, lambda temporary: pyarrow.parquet.write_table(table, temporary))
