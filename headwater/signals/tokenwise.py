"""Scores of preferences token by token, as the lens shows them: one model, or two side by side."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from headwater.data.preference import Message, Preference, Response
from headwater.data.reading import RowCounts
from headwater.data.tokenizers import Tokenizer
from headwater.data.tokens import EncodeOptions, PairTokens, tokenize
from headwater.data.truncation import Keep, Truncation
from headwater.errors import DataError, NumericalError
from headwater.reporting.lens.pieces import Pieces, at_pieces, by_characters, pieces_of
from headwater.reporting.lens.views import PAIR, Contents, Entry, Reading, Side, entry_of, scales
from headwater.results import runs
from headwater.results.facts import Facts
from headwater.signals.options import ScorerOptions
from headwater.signals.prefix_scorers import TokenRewards
from headwater.statistics import Floats


@dataclass(frozen=True)
class TokenReader:
    """Splits responses into tokens and, where it is a model, scores their every prefix."""

    tokenizer: Tokenizer
    encode_options: EncodeOptions
    reading: Reading | None = None
    """What the scores are; None without a model."""
    score: Callable[[Sequence[PairTokens]], TokenRewards] | None = None
    facts: Facts = field(default_factory=Facts)


def load(model: str, options: ScorerOptions, seed: int) -> TokenReader:
    """Load a reward model, or a policy with its reference. Errors: `UsageError`, `ModelError`."""
    from headwater.signals import passes

    trained, head = runs.facts_of(Path(model)), passes.head_of(model)
    scorer = passes.load_prefix_model(model, options, seed)
    facts: Facts = {
        "kind": trained.get("kind", "reward model" if head == "reward" else "policy"),
        "end": scorer.encode_options.end,
        "score": "reward" if head == "reward" else "implicit reward",
    }
    if head == "policy":
        facts |= {"beta": options.beta or passes.BETA, "reference": options.reference or trained.get("reference")}
    reading = Reading(facts["score"], sums=head == "policy", model=Path(model).name)
    return TokenReader(scorer.tokenizer, scorer.encode_options, reading, scorer.score, facts)


class ScoredPair(NamedTuple):
    """A preference, and its entry in the lens."""

    preference: Preference
    entry: Entry

    def record(self) -> dict[str, Any]:
        """Return lengths, rewards and margins as one row of the run's records; a second model's are `against_…`."""
        preference, prefixes = self.preference, ("", "against_")
        row: dict[str, Any] = {"id": preference.id, "source": preference.source}
        row["opening"] = preference.conversation_id
        for name, side in self.entry.sides.items():
            row[f"{name}_tokens"] = side.pieces.tokens
            for prefix, scores in zip(prefixes, side.scores, strict=False):
                row[f"{name}_{prefix}reward"] = float(scores[-1])
        for prefix, margin, depth in zip(prefixes, self.entry.margins, self.entry.depths, strict=False):
            row |= {f"{prefix}margin": margin, f"{prefix}settled_at": depth}
        return row


def score_pairs(
    preferences: Sequence[Preference], readers: Sequence[TokenReader], encoded: Sequence[Sequence[PairTokens]]
) -> tuple[list[ScoredPair], RowCounts]:
    """Return the preferences that every reader can read, split at the tokens of the first one.

    `encoded` holds each reader's tokens of the preferences that it can read; their `row` is an index into
    `preferences`. Those that another reader cannot read, and those whose tokens are not found in their text, are
    dropped and counted. Errors: `NumericalError` for scores that are not finite.
    """
    row_counts = RowCounts(len(encoded[0]))
    scored = [_Scored(reader, pairs) for reader, pairs in zip(readers, encoded, strict=True)]
    found = []
    for index in sorted(scored[0].places):
        if any(index not in other.places for other in scored):
            row_counts.dropped["not_read_by_both"] += 1
            continue
        parts = [one.pieces(preferences[index], index) for one in scored]
        if not all(parts):
            row_counts.dropped["tokens_not_in_text"] += 1
            continue
        found.append(ScoredPair(preferences[index], _entry(preferences[index], index, scored, parts)))
    row_counts.kept = len(found)
    return found, row_counts


class _Scored:
    """The tokens and scores of one reader, for the preferences that it can read."""

    def __init__(self, reader: TokenReader, pairs: Sequence[PairTokens]) -> None:
        self._reader, self._pairs = reader, pairs
        self.places = {tokens.row: pair for pair, tokens in enumerate(pairs)}
        """From the index of a preference to that of its tokens."""
        self.reading = reader.reading
        self._rewards = reader.score(pairs) if reader.score else None
        if self._rewards is not None:
            if not np.isfinite(self._rewards.rewards).all():
                name = self.reading.model if self.reading else ""
                raise NumericalError(name, "gives scores that are not finite", "use another checkpoint")
            self._margins = margins(self._rewards)

    def pieces(self, preference: Preference, index: int) -> list[Pieces] | None:
        """Return both responses in pieces; None where their tokens are not found in the text."""
        tokens, encode_options = self._pairs[self.places[index]], self._reader.encode_options
        sides = ((preference.chosen, tokens.chosen), (preference.rejected, tokens.rejected))
        parts = [pieces_of(preference, one, ids, self._reader.tokenizer, encode_options.end) for one, ids in sides]
        return [part for part in parts if part] if all(parts) else None

    def scores(self, index: int, side: int, theirs: Pieces, ours: Pieces) -> Floats:
        """Return the score at the end of each of `ours`, [pieces]; this reader's own pieces are `theirs`.

        Two tokenizers split a response at different characters: scores are carried to the pieces that are shown.
        """
        rewards, pair = self._rewards, self.places[index]
        assert rewards is not None
        start = rewards.starts[pair, side]
        own = at_pieces(rewards.rewards[start : start + rewards.whole[pair, side]], theirs)
        return own if theirs == ours else by_characters(own, theirs, ours, 0.0 if rewards.sums else np.nan)

    def margins(self, index: int) -> Floats:
        """Return the margins at 1 %, 2 %, … 100 % of both responses, [100]."""
        column: Floats = self._margins[:, self.places[index]]
        return column


def _entry(preference: Preference, index: int, scored: Sequence[_Scored], parts: Sequence[Any]) -> Entry:
    models = [(one, theirs) for one, theirs in zip(scored, parts, strict=True) if one.reading]
    sides = {}
    for side, name in enumerate(PAIR):
        ours = parts[0][side]
        sides[name] = Side(ours, tuple(one.scores(index, side, theirs[side], ours) for one, theirs in models))
    by_percent = [one.margins(index) for one, _ in models]
    return Entry(
        preference.id,
        preference.prompt,
        sides,
        margins=tuple(float(margins[-1]) for margins in by_percent),
        depths=tuple(settled(margins) for margins in by_percent),
    )


def margins(rewards: TokenRewards) -> Floats:
    """Return the margins at 1 %, 2 %, … 100 % of both responses, [100, pairs]."""
    labels = np.ones(len(rewards.lengths))
    keeps = (Keep(Fraction(percent, 100)) for percent in range(1, 101))
    return np.stack([rewards.margins(Truncation(keep), labels) for keep in keeps])


def settled(margins: Floats) -> int | None:
    """Return the percentage from which on `margins` [100] keep the sign of the last one; None where that is 0."""
    signs = np.sign(margins)
    if signs[-1] == 0:
        return None
    others = np.flatnonzero(signs != signs[-1])
    return int(others[-1]) + 2 if len(others) else 1


class TypedPairs:
    """Scores pairs that are typed into a live page, one at a time; stores none of them."""

    def __init__(self, readers: Sequence[TokenReader]) -> None:
        self._readers = readers
        self._lock = threading.Lock()  # the page server answers requests in threads of their own

    def try_out(self) -> None:
        """Score a pair of some length, so that errors of the model come before the page is served.

        It also decides the row format, for which short texts are too few tokens.
        """
        words = max(1, min(one.encode_options.longest for one in self._readers) // 32)
        self({"prompt": "Why?", "chosen": "one two " * words, "rejected": "six five " * words})

    def __call__(self, asked: Any) -> Contents:
        """Return the pair as the page shows it. Errors: `DataError`, `ModelError`, `NumericalError`."""
        preference = _typed_preference(asked if isinstance(asked, dict) else {})
        with self._lock:
            encoded = [_encode(preference, one) for one in self._readers]
            found, row_counts = score_pairs([preference], self._readers, encoded)
        if not found:
            raise DataError("this pair", ", ".join(row_counts.dropped).replace("_", " "), "type another")
        readings = [one.reading for one in self._readers if one.reading]
        (entry,) = (one.entry for one in found)
        return {"entry": entry_of(entry, entry.id), "scales": scales(entry, readings)}


def _typed_preference(texts: Mapping[str, Any]) -> Preference:
    """Return the preference of a form. Errors: `DataError` for a text that is missing or no Unicode."""
    for name in ("prompt", *PAIR):
        if not isinstance(texts.get(name), str) or not texts[name].strip():
            raise DataError(name, "is empty", "type a text")
        if texts[name].encode("utf-8", "replace").decode() != texts[name]:
            raise DataError(name, "holds half a character", "type it anew")
    chosen, rejected = (Response(texts[name]) for name in PAIR)
    return Preference(prompt=(Message("user", texts["prompt"]),), chosen=chosen, rejected=rejected, id="typed")


def _encode(preference: Preference, reader: TokenReader) -> list[PairTokens]:
    """Return the tokens of one pair. Errors: `DataError` where it is too long or empty."""
    encode_options = reader.encode_options
    pairs, row_counts, _ = tokenize([preference], reader.tokenizer, encode_options.longest, encode_options.end)
    if not pairs:
        reasons = {
            "too_long": f"has more than {encode_options.longest} tokens",
            "no_tokens": "has a text without tokens",
        }
        raise DataError("this pair", *(reasons[reason] for reason in row_counts.dropped))
    return pairs
