"""Describe a data set: lengths, turns, scripts, and shortcuts that a model could learn from it.

One pass measures every row by a few numbers. Expensive statistics (scripts, tokens, near-duplicates) are measured on a
seeded sample of rows, whose size is reported.
"""

from __future__ import annotations

import functools
import random
import unicodedata
from array import array
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import xxhash
from numpy.typing import NDArray

from headwater.data.preference import Candidates, Message, Preference, Record, Response
from headwater.marks import hidden_in
from headwater.statistics import Estimate, mean

SAMPLE = 5000
"""Rows on which expensive statistics are measured."""
QUANTILES = (0, 5, 25, 50, 75, 95, 100)
BINS = 40
SHOWN = 99
"""Percentile at which a histogram ends, so that a few very long responses do not flatten it."""
SHINGLE = 3
"""Words of a shingle; texts whose sets of shingles are nearly the same are near-duplicates."""
NEAR = 0.8
"""Jaccard similarity from which two different prompts are near-duplicates."""
BANDS, BAND = 16, 4
"""64 minhashes in 16 bands of 4: two prompts as similar as `NEAR` share a band with probability 0.9998."""


class Spread(NamedTuple):
    """How many values, their mean, and the quantiles of `QUANTILES`."""

    n: int
    mean: float
    quantiles: tuple[float, ...]


class Histogram(NamedTuple):
    """Counts [bins] by name over common `edges` [bins + 1]; `beyond` counts what lies outside them."""

    edges: tuple[float, ...]
    counts: dict[str, tuple[int, ...]]
    beyond: dict[str, int]


class NearDuplicates(NamedTuple):
    """Different prompts with nearly the same text, among `prompts` sampled ones."""

    prompts: int
    having_one: int
    pairs: tuple[tuple[str, str], ...]
    """Ids of a few."""


def responses_of(record: Record) -> list[tuple[str, Response]]:
    """Return the responses of a record, each under what the data says of it."""
    if isinstance(record, Preference):
        return [("chosen", record.chosen), ("rejected", record.rejected)]
    if isinstance(record, Candidates):
        return [("responses", response) for response in record.responses]
    return [("desirable" if record.label else "undesirable", record.response)]


class Profile:
    """Fills row by row with `add`; memory is a few numbers a row, and the sample."""

    def __init__(self, seed: int = 0) -> None:
        self.rows = 0
        self.turns: Counter[int] = Counter()
        self.with_system = 0
        self.with_hidden, self.hidden = 0, 0
        """Rows with characters that no reader sees (controls, bidi overrides, zero width), and how many these are."""
        self.conversation_ids: list[str] = []
        self.sample: list[Record] = []
        self._characters: dict[str, array[float]] = defaultdict(lambda: array("d"))
        self._margins = array("d")
        self._longer_wins = array("d")
        self._shared = array("d")
        self._draw = random.Random(seed)

    def add(self, record: Record) -> None:
        """Measure one row."""
        self.rows += 1
        self.turns[sum(message.role == "user" for message in record.prompt)] += 1
        self.with_system += any(message.role == "system" for message in record.prompt)
        responses = responses_of(record)
        hidden = sum(hidden_in(message.content) for message in record.prompt)
        hidden += sum(hidden_in(response.words) for _, response in responses)
        self.hidden, self.with_hidden = self.hidden + hidden, self.with_hidden + bool(hidden)
        for side, response in responses:
            self._characters[side].append(sum(map(len, response.said)))
        scores = [response.score for _, response in responses if response.score is not None]
        if isinstance(record, Preference):
            self._compare(record, scores)
        elif len(scores) > 1:
            self._margins.append(max(scores) - min(scores))
        self._keep_in_sample(record)

    def _compare(self, record: Preference, scores: Sequence[float]) -> None:
        chosen, rejected = record.chosen.words, record.rejected.words
        self._longer_wins.append((len(chosen) > len(rejected)) + 0.5 * (len(chosen) == len(rejected)))
        self._shared.append(_common(chosen, rejected))
        self.conversation_ids.append(record.conversation_id)
        if len(scores) == 2:
            self._margins.append(scores[0] - scores[1])

    def _keep_in_sample(self, record: Record) -> None:
        """Keep every row with the same probability, without knowing how many will come (reservoir sampling)."""
        if len(self.sample) < SAMPLE:
            self.sample.append(record)
            return
        place = self._draw.randrange(self.rows)
        if place < SAMPLE:
            self.sample[place] = record

    def characters(self) -> dict[str, Spread]:
        """Return the lengths of responses in characters, by side."""
        return {side: spread(lengths) for side, lengths in self._characters.items()}

    def tokens(self, count: Callable[[Sequence[str]], Iterable[int]]) -> dict[str, Spread]:
        """Return the lengths of sampled responses as `count` counts them, by side."""
        texts: dict[str, list[str]] = defaultdict(list)
        for record in self.sample:
            for side, response in responses_of(record):
                texts[side].append(response.words)
        return {side: spread(list(count(found))) for side, found in texts.items()}

    def length_histogram(self) -> Histogram:
        """Return how many responses are how long, in characters, by side."""
        return histogram({side: np.asarray(lengths) for side, lengths in self._characters.items()})

    def difference_histogram(self) -> Histogram:
        """Return by how many characters one response of pairs is longer, by which; equal lengths are in neither."""
        chosen, rejected = (np.asarray(self._characters[side]) for side in ("chosen", "rejected"))
        longer = chosen - rejected
        return histogram({"chosen": longer[longer > 0], "rejected": -longer[longer < 0]})

    def longer_wins(self) -> Estimate:
        """Return how often the longer response (in characters) is the chosen one; equal lengths count a half."""
        return mean(np.asarray(self._longer_wins), self.conversation_ids)

    def margins(self) -> Spread | None:
        """Return score of chosen minus score of rejected (best minus worst of candidates), where there are scores."""
        return spread(self._margins) if self._margins else None

    def shared_conversations(self) -> Spread | None:
        """Return how many characters the two responses of a pair begin with in common."""
        return spread(self._shared) if self._shared else None

    def sharing(self) -> float:
        """Return the share of pairs whose two responses begin with the same character or more."""
        return float(np.mean(np.asarray(self._shared) > 0)) if self._shared else 0.0

    def scripts(self) -> dict[str, float]:
        """Return the share of every script among the letters of the sample, the largest first."""
        characters: Counter[str] = Counter()
        for record in self.sample:
            for text in (*(message.content for message in record.prompt), *(r.words for _, r in responses_of(record))):
                characters.update(text)
        letters: Counter[str] = Counter()
        for character, count in characters.items():
            if character.isalpha():
                letters[script_of(character)] += count
        return {script: count / letters.total() for script, count in letters.most_common()}

    def shown(self, count: int) -> list[Record]:
        """Return some sampled rows, spread over the data."""
        picked = sorted(random.Random(1).sample(range(len(self.sample)), min(count, len(self.sample))))
        return [self.sample[place] for place in picked]

    def near_duplicates(self) -> NearDuplicates:
        """Find different prompts of the sample that say nearly the same."""
        prompts: dict[tuple[Message, ...], str] = {}
        for record in self.sample:
            prompts.setdefault(record.prompt, record.id)
        texts = {str(place): _asked(prompt) for place, prompt in enumerate(prompts)}
        found, names = near_duplicates(texts), list(prompts.values())  # by place: several prompts may bear one id
        return found._replace(pairs=tuple((names[int(one)], names[int(other)]) for one, other in found.pairs))


def _common(one: str, other: str) -> int:
    """Count the characters that two texts begin with in common."""
    shorter = min(len(one), len(other))
    return next((place for place in range(shorter) if one[place] != other[place]), shorter)


def spread(values: Sequence[float]) -> Spread:
    """Summarise some numbers."""
    numbers = np.asarray(values, dtype=np.float64)
    if not len(numbers):
        return Spread(0, float("nan"), (float("nan"),) * len(QUANTILES))
    return Spread(len(numbers), float(numbers.mean()), tuple(float(q) for q in np.percentile(numbers, QUANTILES)))


def histogram(values: Mapping[str, NDArray[np.float64]]) -> Histogram:
    """Count values, none of which is negative, in `BINS` bins from 0 to the percentile `SHOWN` of all."""
    pooled = np.concatenate([*values.values(), [1.0]])
    edges = np.linspace(0.0, max(1.0, float(np.percentile(pooled, SHOWN))), BINS + 1)
    counts = {name: np.histogram(found, edges)[0] for name, found in values.items()}
    return Histogram(
        tuple(map(float, edges)),
        {name: tuple(map(int, found)) for name, found in counts.items()},
        {name: len(values[name]) - int(found.sum()) for name, found in counts.items()},
    )


_SCRIPTS = {"CJK": "Han", "FULLWIDTH": "Latin", "HALFWIDTH": "Katakana", "MICRO": "Greek"}
_NO_SCRIPT = {"MODIFIER", "MATHEMATICAL", "SUPERSCRIPT", "SUBSCRIPT", "FEMININE", "MASCULINE", "DOUBLE-STRUCK"}


@functools.cache
def script_of(letter: str) -> str:
    """Name the script of a letter by the first word of its Unicode name, such as Latin, Han or Cyrillic."""
    word = unicodedata.name(letter, "OTHER").split()[0]
    return "other" if word in _NO_SCRIPT else _SCRIPTS.get(word, word.capitalize())


# --- near-duplicates ----------------------------------------------------------------------------------------------


def near_duplicates(texts: Mapping[str, str]) -> NearDuplicates:
    """Find texts (by id) that are nearly equal."""
    near = near_pairs(texts)
    return NearDuplicates(len(texts), len({name for pair in near for name in pair}), tuple(near[:5]))


def near_pairs(texts: Mapping[str, str]) -> list[tuple[str, str]]:
    """Find pairs of texts (by id) with nearly the same shingles, by MinHash; every pair is then compared exactly.

    Within a large group of similar texts, only pairs with one of them may be returned; the group stays connected.
    """
    shingles = {name: found for name, text in texts.items() if len(found := _shingles(text)) >= SHINGLE}
    buckets: dict[tuple[int, bytes], list[str]] = defaultdict(list)
    for name, hashes in shingles.items():
        for number, band in enumerate(_bands(hashes)):
            buckets[number, band].append(name)
    pairs = dict.fromkeys(pair for names in buckets.values() for pair in _pairs(names))
    return [pair for pair in pairs if _jaccard(shingles[pair[0]], shingles[pair[1]]) >= NEAR]


def _pairs(names: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield all pairs of a small bucket; of a large one (one prompt in a thousand variants) only those of the first."""
    if len(names) <= 50:
        yield from combinations(names, 2)
    else:
        yield from ((names[0], other) for other in names[1:])


def _asked(prompt: Iterable[Message]) -> str:
    return " ".join(message.shown for message in prompt)


def _shingles(text: str) -> NDArray[np.uint64]:
    words = text.casefold().split()
    grams = (" ".join(words[start : start + SHINGLE]) for start in range(max(len(words) - SHINGLE + 1, 0)))
    return np.fromiter({xxhash.xxh3_64_intdigest(gram.encode()) for gram in grams}, dtype=np.uint64)


_generator = np.random.default_rng(0)
_MULTIPLIERS = _generator.integers(0, 2**63, BANDS * BAND, dtype=np.uint64) * np.uint64(2) + np.uint64(1)
_ADDENDS = _generator.integers(0, 2**63, BANDS * BAND, dtype=np.uint64)


def _bands(hashes: NDArray[np.uint64]) -> Iterator[bytes]:
    """Yield the bands of a MinHash signature of `hashes` [shingles]."""
    signature = (hashes[:, None] * _MULTIPLIERS + _ADDENDS).min(axis=0)
    for start in range(0, BANDS * BAND, BAND):
        yield signature[start : start + BAND].tobytes()


def _jaccard(one: NDArray[Any], other: NDArray[Any]) -> float:
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)
