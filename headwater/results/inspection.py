"""Result of `inspect`: row counts, lengths, shortcuts, words and sample rows of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, NamedTuple

from headwater.data.profiling import Histogram, NearDuplicates
from headwater.data.terms import Term
from headwater.results.stored import StoredResult, stored_as
from headwater.statistics import Estimate


@dataclass(frozen=True)
class InspectedCounts:
    """Rows in = kept + quarantined + dropped, by reason."""

    rows_in: int
    kept: int
    quarantined: int
    dropped: Mapping[str, int]
    split: str | None = None
    """Which split of several was read."""
    not_read: tuple[str, ...] | None = None
    """Columns that hold something and were not read."""
    notes: Mapping[str, int] | None = None
    """Rows that were read in a way that a reader should know of, by the rule."""


class BadRows(NamedTuple):
    """Malformed rows by code, and place and message of the first one."""

    codes: Mapping[str, int]
    first: str | None


class HiddenCharacters(NamedTuple):
    """Control, bidirectional and zero-width characters, and the rows that hold one."""

    rows: int
    characters: int


class Quantiles(NamedTuple):
    """Number of values, their mean and percentiles."""

    n: int
    mean: float
    p0: float
    p5: float
    p25: float
    p50: float
    p75: float
    p95: float
    p100: float


class SharedBeginning(NamedTuple):
    """Pairs whose responses have the same first character, and how many characters such responses share."""

    share_of_pairs: float
    characters: Quantiles


class WordCount(NamedTuple):
    """A word and how often it occurs."""

    word: str
    n: int


@dataclass(frozen=True)
class TermContrast:
    """The words that tell chosen from rejected responses, the strongest first."""

    pairs: int
    words: tuple[int, int]
    """Number of words in chosen and in rejected responses."""
    prior_words: float
    """Weight of the prior, in words."""
    least_count: int
    """Count below which a word is not ranked."""
    chosen: tuple[Term, ...]
    rejected: tuple[Term, ...]
    frequent_chosen: tuple[WordCount, ...] = ()
    """The most frequent words of chosen responses, without those of any text; () in runs of older versions."""
    frequent_rejected: tuple[WordCount, ...] = ()


@dataclass(frozen=True)
class SampleResponse:
    """The beginning of a response."""

    kind: str = field(metadata=stored_as("is"))
    """chosen, rejected, desirable, undesirable, or responses."""
    text: str
    score: float | None


@dataclass(frozen=True)
class SampleRow:
    """A row, with the beginning of its texts."""

    id: str
    prompt: str
    responses: tuple[SampleResponse, ...]


@dataclass(frozen=True, kw_only=True)
class Inspection(StoredResult):
    """What a data set holds. Lengths are by side: chosen and rejected, desirable and undesirable, or responses."""

    FILE: ClassVar[str] = "inspection.json"

    data: str
    layout: str
    holds: str
    """preferences, candidates or unpaired."""
    row_counts: InspectedCounts = field(metadata=stored_as("account"))
    bad_rows: BadRows
    turns: Mapping[str, int]
    """Rows by their number of user turns."""
    with_system_turn: int
    hidden_characters: HiddenCharacters | None = None
    sampled_rows: int
    """Rows on which scripts, tokens and near-duplicates were measured."""
    scripts: Mapping[str, float]
    """Share of the letters, by script."""
    characters: Mapping[str, Quantiles]
    length_histogram: Histogram
    near_duplicate_prompts: NearDuplicates
    samples: tuple[SampleRow, ...]
    tokens: Mapping[str, Quantiles] | None = None
    score_margin: Quantiles | None = None
    longer_wins: Estimate | None = None
    """Share of pairs whose chosen response is the longer one; ties count ½."""
    difference_histogram: Histogram | None = None
    terms: TermContrast | None = None
    shared_beginning: SharedBeginning | None = field(default=None, metadata=stored_as("shared_opening"))
