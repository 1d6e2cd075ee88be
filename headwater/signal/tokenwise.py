"""Preferences as the lens shows them: what one model, or two, say after every token of both responses."""

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
from headwater.data.tokens import EncodeOptions, EndToken, PairTokens, tokenize
from headwater.data.truncation import Keep, Truncation
from headwater.errors import DataError, NumericalError, UsageError
from headwater.report.lens.pieces import Pieces, at_pieces, by_characters, pieces_of
from headwater.report.lens.views import PAIR, Contents, Entry, Reading, Side, entry_of, scales
from headwater.results import runs
from headwater.signal.prefix_scorers import TokenRewards
from headwater.statistics import Floats


@dataclass(frozen=True)
class TokenReader:
    """What parts responses into tokens and, where it is a model, scores their every prefix."""

    tokenizer: Tokenizer
    encode_options: EncodeOptions
    reading: Reading | None = None
    read: Callable[[Sequence[PairTokens]], TokenRewards] | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


class Wanted(NamedTuple):
    """A model that is to read: a reward model, or a policy with its reference."""

    model: str
    reference: str | None = None
    """None: the one its training run names."""
    beta: float | None = None
    """Scale of the implicit reward; None: 0.1."""
    reward_head: int | None = None
    """Which output of a reward model with several is the reward."""
    end: EndToken | None = None
    """None: as the model was trained, or complete."""
    max_length: int | None = None
    """None: 2048, or the positions that the model has."""


def load(wanted: Wanted, max_tokens: int, seed: int) -> TokenReader:
    """Load a model; `max_tokens` is how many tokens it computes at once. Errors: `UsageError`, `ModelError`."""
    from headwater.models.turn_ends import end_rule
    from headwater.signal import passes

    model, name, trained = wanted.model, Path(wanted.model).name, runs.facts_of(Path(wanted.model))
    head = passes.head_of(model)
    encode_options = EncodeOptions(Truncation(), wanted.end or end_rule(model), wanted.max_length)
    facts = {"kind": trained.get("kind", "reward model" if head == "reward" else "policy"), "end": encode_options.end}
    if head == "reward":
        for flag in ("reference", "beta"):
            if getattr(wanted, flag) is not None:
                raise UsageError(f"--{flag}", f"{model} is a reward model", f"leave --{flag} out")
        reader = passes.reward_reader(model, max_tokens, seed, wanted.reward_head)
        facts["score"] = "reward"
        return TokenReader(
            reader.tokenizer, reader.fitted(encode_options), Reading("reward", False, name), reader.read, facts
        )
    passes.refuse_head(model, head, wanted.reward_head)
    beta, reference = wanted.beta or 0.1, wanted.reference or trained.get("reference")
    reader = passes.policy_reader(model, reference, beta, max_tokens, seed)
    facts |= {"score": "implicit reward", "beta": beta, "reference": reference}
    return TokenReader(
        reader.tokenizer, reader.fitted(encode_options), Reading("implicit reward", True, name), reader.read, facts
    )


class Shown(NamedTuple):
    """A preference, and how the lens shows it."""

    preference: Preference
    entry: Entry


def shown(
    preferences: Sequence[Preference], readers: Sequence[TokenReader], encoded: Sequence[Sequence[PairTokens]]
) -> tuple[list[Shown], RowCounts]:
    """Return the preferences that every reader can read, parted at the tokens of the first one.

    `encoded` holds each reader's tokens of those that it can read; their `row` is a place in `preferences`. Those that
    another one cannot read, and those whose tokens are not found in their text, are dropped and counted.
    Errors: `NumericalError` for scores that are not finite.
    """
    row_counts = RowCounts(len(encoded[0]))
    scored = [_Scored(reader, pairs) for reader, pairs in zip(readers, encoded, strict=True)]
    found = []
    for place in sorted(scored[0].places):
        if any(place not in other.places for other in scored):
            row_counts.dropped["not_read_by_both"] += 1
            continue
        parts = [one.pieces(preferences[place], place) for one in scored]
        if not all(parts):
            row_counts.dropped["tokens_not_in_text"] += 1
            continue
        found.append(Shown(preferences[place], _entry(preferences[place], place, scored, parts)))
    row_counts.kept = len(found)
    return found, row_counts


class _Scored:
    """What one reader says of the preferences that it can read."""

    def __init__(self, reader: TokenReader, pairs: Sequence[PairTokens]) -> None:
        self._reader, self._pairs = reader, pairs
        self.places = {tokens.row: pair for pair, tokens in enumerate(pairs)}
        self.reading = reader.reading
        self._rewards = reader.read(pairs) if reader.read else None
        if self._rewards is not None:
            if not np.isfinite(self._rewards.rewards).all():
                name = self.reading.model if self.reading else ""
                raise NumericalError(name, "gives scores that are not finite", "use another checkpoint")
            self._margins = margins(self._rewards)

    def pieces(self, preference: Preference, place: int) -> list[Pieces] | None:
        """Return both responses in pieces; None where their tokens are not found in the text."""
        tokens, encode_options = self._pairs[self.places[place]], self._reader.encode_options
        sides = ((preference.chosen, tokens.chosen), (preference.rejected, tokens.rejected))
        parts = [pieces_of(preference, one, ids, self._reader.tokenizer, encode_options.end) for one, ids in sides]
        return [part for part in parts if part] if all(parts) else None

    def scores(self, place: int, side: int, theirs: Pieces, ours: Pieces) -> Floats:
        """Return the score at every one of `ours`, [pieces], where this reader's own are `theirs`."""
        rewards, pair = self._rewards, self.places[place]
        assert rewards is not None
        start = rewards.starts[pair, side]
        own = at_pieces(rewards.rewards[start : start + rewards.whole[pair, side]], theirs)
        return own if theirs == ours else by_characters(own, theirs, ours, 0.0 if rewards.sums else np.nan)

    def margins(self, place: int) -> Floats:
        """Return the margins at 1 %, 2 %, … 100 % of either response, [100]."""
        column: Floats = self._margins[:, self.places[place]]
        return column


def _entry(preference: Preference, place: int, scored: Sequence[_Scored], parts: Sequence[Any]) -> Entry:
    models = [(one, theirs) for one, theirs in zip(scored, parts, strict=True) if one.reading]
    sides = {}
    for side, name in enumerate(PAIR):
        ours = parts[0][side]
        sides[name] = Side(ours, tuple(one.scores(place, side, theirs[side], ours) for one, theirs in models))
    by_percent = [one.margins(place) for one, _ in models]
    return Entry(
        preference.id,
        preference.prompt,
        sides,
        margins=tuple(float(margins[-1]) for margins in by_percent),
        depths=tuple(settled(margins) for margins in by_percent),
    )


def margins(rewards: TokenRewards) -> Floats:
    """Return the margins at 1 %, 2 %, … 100 % of either response, [100, pairs]."""
    labels = np.ones(len(rewards.lengths))
    keeps = (Keep(Fraction(percent, 100)) for percent in range(1, 101))
    return np.stack([rewards.margins(Truncation(keep), labels) for keep in keeps])


def settled(margins: Floats) -> int | None:
    """Return the percentage from which on `margins` [100] keep the sign that the last one has; None where it is 0."""
    signs = np.sign(margins)
    if signs[-1] == 0:
        return None
    others = np.flatnonzero(signs != signs[-1])
    return int(others[-1]) + 2 if len(others) else 1


class Typed:
    """Reads pairs that somebody types, one at a time; keeps none, on disk or in memory."""

    def __init__(self, readers: Sequence[TokenReader]) -> None:
        self._readers = readers
        self._one_at_a_time = threading.Lock()

    def try_out(self) -> None:
        """Read a pair of some length: what a model cannot do is known before anybody types.

        It also settles how rows are laid out, which short texts would tell less about.
        """
        words = max(1, min(one.encode_options.longest for one in self._readers) // 32)
        self({"prompt": "Why?", "chosen": "one two " * words, "rejected": "six five " * words})

    def __call__(self, asked: Any) -> Contents:
        """Return the pair as the page shows it. Errors: `DataError`, `ModelError`, `NumericalError`."""
        texts = asked if isinstance(asked, dict) else {}
        for name in ("prompt", *PAIR):
            if not isinstance(texts.get(name), str) or not texts[name].strip():
                raise DataError(name, "is empty", "type a text")
            if texts[name].encode("utf-8", "replace").decode() != texts[name]:
                raise DataError(name, "holds half a character", "type it anew")
        chosen, rejected = (Response(texts[name]) for name in PAIR)
        prompt = (Message("user", texts["prompt"]),)
        preference = Preference(prompt=prompt, chosen=chosen, rejected=rejected, id="typed")
        with self._one_at_a_time:
            found, row_counts = shown([preference], self._readers, [_encoded(preference, one) for one in self._readers])
        if not found:
            raise DataError("this pair", ", ".join(row_counts.dropped).replace("_", " "), "type another")
        readings = [one.reading for one in self._readers if one.reading]
        (entry,) = (one.entry for one in found)
        return {"entry": entry_of(entry, entry.id), "scales": scales(entry, readings)}


def _encoded(preference: Preference, reader: TokenReader) -> list[PairTokens]:
    encode_options = reader.encode_options
    pairs, row_counts, _ = tokenize([preference], reader.tokenizer, encode_options.longest, encode_options.end)
    if not pairs:
        reasons = {
            "too_long": f"has more than {encode_options.longest} tokens",
            "no_tokens": "has a text without tokens",
        }
        raise DataError("this pair", *(reasons[reason] for reason in row_counts.dropped))
    return pairs
