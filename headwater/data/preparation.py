"""Rows to pairs of token ids under a view: cut, encode, and account for it; from the cache where it can."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from headwater.data import token_cache, truncation
from headwater.data.preference import Example
from headwater.data.reading import Account
from headwater.data.token_cache import Entry
from headwater.data.tokenizers import Tokenizer
from headwater.data.tokens import PairTokens, View, token_ends, tokenize
from headwater.data.truncation import truncate
from headwater.errors import DataError


@dataclass
class Ledger:
    """What happened to rows on their way: accounts by stage, and counts of rules that were applied."""

    stages: dict[str, Account] = field(default_factory=dict)
    notes: Counter[str] = field(default_factory=Counter)
    kept: dict[str, float] = field(default_factory=dict)
    """Share of the response tokens that the cut kept, by part of the data."""


def prepare(
    part: str, examples: Sequence[Example], view: View, tokenizer: Tokenizer, ledger: Ledger
) -> list[PairTokens]:
    """Cut and tokenise rows, and write it into the ledger; `row` of every pair says which of the examples it is.

    Errors: `DataError` when no row is left.
    """
    name = token_cache.key(examples, view, tokenizer)
    entry = token_cache.load(name, examples)
    if entry is None:
        entry = _made(examples, view, tokenizer)
        if entry.pairs:
            token_cache.save(name, entry)
    ledger.stages |= {f"{stage}, {part}": account for stage, account in entry.accounts.items()}
    ledger.notes += entry.notes
    ledger.kept[part] = entry.kept
    if not entry.pairs:
        dropped = sum((account.dropped for account in entry.accounts.values()), Counter())
        first = {reason: text for account in entry.accounts.values() for reason, text in account.first.items()}
        told = (f"{reason} {count}{_first(first.get(reason))}" for reason, count in dropped.items())
        reasons = ", ".join(told) or "none came in"
        raise DataError(part, f"no row is left ({reasons})", "raise --max-length, keep more, or use other data")
    return entry.pairs


def _first(message: str | None) -> str:
    return "" if message is None else f", the first {message}"


def _made(examples: Sequence[Example], view: View, tokenizer: Tokenizer) -> Entry:
    shortened = truncate(examples, view.truncation, token_ends(tokenizer))
    pairs, account, notes = tokenize(shortened.preferences, tokenizer, view.longest, view.end)
    pairs = [pair._replace(row=shortened.places[pair.row]) for pair in pairs]
    accounts = {} if view.truncation.changes_nothing else {"truncate": shortened.account}
    return Entry(pairs, accounts | {"tokenize": account}, notes, shortened.kept)


def flops_saved(pairs: Sequence[PairTokens], kept: float) -> float:
    """Estimate the share of training FLOPs saved by a cut that left these pairs and that share of response tokens."""
    prompt = sum(len(pair.prompt) for pair in pairs)
    responses = sum(len(pair.chosen) + len(pair.rejected) for pair in pairs)
    return truncation.flops_saved(prompt, responses, responses / kept)
