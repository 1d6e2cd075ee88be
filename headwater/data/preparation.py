"""Truncate and tokenize rows into pairs of token ids, with row counts; from the cache where possible."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from headwater.data import token_cache, truncation_effect
from headwater.data.preference import Example
from headwater.data.reading import RowCounts
from headwater.data.token_cache import Entry
from headwater.data.tokenizers import Tokenizer
from headwater.data.tokens import EncodeOptions, PairTokens, token_ends, tokenize
from headwater.data.truncation import truncate
from headwater.errors import DataError


@dataclass
class PrepLog:
    """Row counts by stage, and counts of applied rules."""

    stages: dict[str, RowCounts] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)
    kept: dict[str, float] = field(default_factory=dict)
    """Share of the response tokens that the cut kept, by part of the data."""


def prepare(
    part: str, examples: Sequence[Example], encode_options: EncodeOptions, tokenizer: Tokenizer, prep_log: PrepLog
) -> list[PairTokens]:
    """Truncate and tokenize rows, and record the counts; `row` of every pair is the index of its example.

    Errors: `DataError` when no row is left.
    """
    name = token_cache.key(examples, encode_options, tokenizer)
    entry = token_cache.load(name, examples)
    if entry is None:
        entry = _made(examples, encode_options, tokenizer)
        if entry.pairs:
            token_cache.save(name, entry)
    prep_log.stages |= {f"{stage}, {part}": row_counts for stage, row_counts in entry.row_counts_by_stage.items()}
    prep_log.notes += entry.notes
    prep_log.kept[part] = entry.kept
    if not entry.pairs:
        dropped = sum((row_counts.dropped for row_counts in entry.row_counts_by_stage.values()), Counter())
        first = {
            reason: text
            for row_counts in entry.row_counts_by_stage.values()
            for reason, text in row_counts.first.items()
        }
        told = (f"{reason} {count}{_first(first.get(reason))}" for reason, count in dropped.items())
        reasons = ", ".join(told) or "none came in"
        raise DataError(part, f"no row is left ({reasons})", "raise --max-length, keep more, or use other data")
    return entry.pairs


def _first(message: str | None) -> str:
    return "" if message is None else f", the first {message}"


def _made(examples: Sequence[Example], encode_options: EncodeOptions, tokenizer: Tokenizer) -> Entry:
    shortened = truncate(examples, encode_options.truncation, token_ends(tokenizer))
    pairs, row_counts, notes = tokenize(shortened.preferences, tokenizer, encode_options.longest, encode_options.end)
    pairs = [pair._replace(row=shortened.places[pair.row]) for pair in pairs]
    row_counts_by_stage = {} if encode_options.truncation.changes_nothing else {"truncate": shortened.row_counts}
    return Entry(pairs, row_counts_by_stage | {"tokenize": row_counts}, notes, shortened.kept)


def flops_saved(pairs: Sequence[PairTokens], kept: float) -> float:
    """Estimate the share of training FLOPs saved by a cut that left these pairs and that share of response tokens."""
    prompt = sum(len(pair.prompt) for pair in pairs)
    responses = sum(len(pair.chosen) + len(pair.rejected) for pair in pairs)
    return truncation_effect.flops_saved(prompt, responses, responses / kept)
