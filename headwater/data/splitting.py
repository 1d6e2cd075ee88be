"""Splits by conversation, so that nothing leaks, and the overlap of two data sets."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple, TypeVar

from headwater.data.preference import Prompted, held_out
from headwater.data.reading import RowCounts
from headwater.errors import DataError

Row = TypeVar("Row", bound=Prompted)


def split(preferences: Sequence[Row], fraction: float, seed: int) -> tuple[list[Row], list[Row]]:
    """Return (training, held out). A hash of the conversation decides, so cut and full data split the same way.

    Errors: `DataError` when either side would be empty.
    """
    aside = {p.conversation_id: held_out(p.conversation_id, fraction, seed) for p in preferences}
    train = [p for p in preferences if not aside[p.conversation_id]]
    rest = [p for p in preferences if aside[p.conversation_id]]
    if not train or (fraction and not rest):
        side = "held-out" if train else "training"
        raise DataError(
            f"{len(preferences)} rows with {len(aside)} conversations",
            f"leave the {side} part empty at --eval-fraction {fraction:g}",
            "change the fraction, or use more data",
        )
    return train, rest


def unseen(preferences: Sequence[Row], seen: Collection[str]) -> tuple[list[Row], RowCounts]:
    """Drop, and count, preferences whose conversation is among those trained on."""
    kept = [p for p in preferences if p.conversation_id not in seen]
    row_counts = RowCounts(rows_in=len(preferences), kept=len(kept))
    if len(kept) < len(preferences):
        row_counts.dropped["seen_in_training"] = len(preferences) - len(kept)
    return kept, row_counts


GRAM = 13
"""Words of the n-gram by which contamination is known since GPT-3 (arXiv:2005.14165, appendix C)."""


class Match(NamedTuple):
    """An evaluation row whose prompt is also in the training data."""

    kind: str
    """How it is the same: `exact`, `normalised` (case, punctuation and white space aside), `opening` (both have the
    same first user turn, see `conversation_id_of`), or `13-gram`."""
    id: str
    train_id: str


@dataclass(frozen=True)
class Overlap:
    """Rows of an evaluation set that training data share: every row once, under the strictest kind that applies."""

    rows: int
    """Number of evaluation rows examined."""
    matches: tuple[Match, ...]

    def ids(self, kind: str) -> list[str]:
        """Return the ids of the evaluation rows that match in one way."""
        return [match.id for match in self.matches if match.kind == kind]

    @property
    def leaks(self) -> Overlap:
        """The part that is leakage: the same prompt or conversation. Templates and quotations share n-grams too."""
        return Overlap(self.rows, tuple(match for match in self.matches if match.kind in LEAKS))

    def summary(self) -> str:
        """Return one line: `5 of 200 evaluation prompts overlap with training data: exact 3, 13-gram 2`."""
        counts = ", ".join(f"{kind} {len(self.ids(kind))}" for kind in KINDS if self.ids(kind))
        found = f"{len(self.matches)} of {self.rows} evaluation prompts overlap with training data"
        return f"{found}: {counts}" if counts else found

    def examples(self, count: int = 3) -> str:
        """Name a few: `such as test:7 (training row train:12)`; nothing where there are none."""
        named = ", ".join(f"{match.id} (training row {match.train_id})" for match in self.matches[:count])
        return f"such as {named}" if named else ""


def overlap(train: Iterable[Prompted], evaluation: Sequence[Prompted]) -> Overlap:
    """Find the prompts of `evaluation` in `train`, which may be a stream: only the evaluation side is held.

    Only n-grams within one turn of the user count. Hashes of 64 bits stand for prompts and n-grams.
    """
    index: dict[tuple[str, int], list[int]] = defaultdict(list)
    for place, preference in enumerate(evaluation):
        for hashed in _keys(preference):
            index[hashed].append(place)
    found: dict[int, Match] = {}
    for preference in train:
        for hashed in _keys(preference):
            kind, _ = hashed
            for place in index.get(hashed, ()):
                if place not in found or _STRICTER[kind] < _STRICTER[found[place].kind]:
                    found[place] = Match(kind, evaluation[place].id, preference.id)
    return Overlap(len(evaluation), tuple(found[place] for place in sorted(found)))


def _keys(preference: Prompted, kinds: Iterable[str] | None = None) -> set[tuple[str, int]]:
    return {(kind, hash(key)) for kind in kinds or KINDS for key in KINDS[kind](preference)}


Leakage = Literal["refuse", "drop", "allow"]
"""What to do where training and evaluation share prompts: stop, leave those training rows out, or train on them."""


def without_leakage(
    train: Sequence[Row], evaluation: Sequence[Prompted], leakage: Leakage
) -> tuple[list[Row], RowCounts, Overlap]:
    """Return the training rows to use, their row counts, and what they still share with the evaluation rows.

    Errors: `DataError` where prompts are shared and `leakage` is refuse, or drop leaves no training row.
    """
    kept = list(train)
    if leakage == "drop":
        leaked = {key for preference in evaluation for key in _keys(preference, LEAKS)}
        kept = [preference for preference in train if leaked.isdisjoint(_keys(preference, LEAKS))]
    row_counts = RowCounts(rows_in=len(train), kept=len(kept))
    if len(kept) < len(train):
        row_counts.dropped["seen_in_evaluation"] = len(train) - len(kept)
    if not kept:
        raise DataError(f"{len(train)} training rows", "all share a prompt with --eval-data", "name other data")
    found = overlap(kept, evaluation)
    if found.leaks.matches and leakage == "refuse":
        ways = "--leakage drop leaves those training rows out, --leakage allow trains on them"
        raise DataError("--eval-data", found.leaks.summary(), found.leaks.examples(), ways)
    return kept, row_counts, found


_PUNCTUATION = re.compile(r"[^\w]+")


def _words(text: str) -> tuple[str, ...]:
    return tuple(_PUNCTUATION.sub(" ", text.casefold()).split())


def _exact(preference: Prompted) -> Iterator[Hashable]:
    yield preference.prompt


def _normalised(preference: Prompted) -> Iterator[Hashable]:
    words = tuple((message.role, _words(message.shown)) for message in preference.prompt)
    if any(turn for _, turn in words):  # a prompt of punctuation alone would be the same as every other such
        yield words


def _opening(preference: Prompted) -> Iterator[Hashable]:
    yield preference.conversation_id


def _grams(preference: Prompted) -> Iterator[Hashable]:
    for message in preference.prompt:
        if message.role == "user":
            words = _words(message.content)
            yield from (words[start : start + GRAM] for start in range(len(words) - GRAM + 1))


KINDS: dict[str, Callable[[Prompted], Iterator[Hashable]]] = {
    "exact": _exact,
    "normalised": _normalised,
    "opening": _opening,
    f"{GRAM}-gram": _grams,
}
"""How prompts can be the same, the strictest first."""
LEAKS = ("exact", "normalised", "opening")
"""The kinds that are leakage; `evaluate` leaves out rows of the same conversation, among them exact copies."""
_STRICTER = {kind: rank for rank, kind in enumerate(KINDS)}
