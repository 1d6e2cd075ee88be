"""A response parted into the pieces of text that its tokens stand for."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate
from typing import NamedTuple

import numpy as np

from headwater.data.preference import Preference, Response
from headwater.data.tokenizers import Tokenizer
from headwater.data.tokens import EndToken, Ids, Rendered, render
from headwater.statistics import Floats

Span = tuple[int, int]
"""First character and the one behind the last."""


class Piece(NamedTuple):
    """Tokens that share characters, such as the bytes of an emoji, and their text; mostly one token."""

    text: str
    tokens: int


class Pieces(NamedTuple):
    """A response as a model reads it: `before`, the texts of `text` and `after` join to exactly the response."""

    before: str
    """White space that the chat template strips, at the beginning …"""
    text: list[Piece]
    closing: list[Piece]
    """What closes the turn; no part of the response."""
    after: str
    """… and at the end."""

    @property
    def every(self) -> list[Piece]:
        """The pieces that a model reads, with what closes the turn."""
        return [*self.text, *self.closing]

    @property
    def tokens(self) -> int:
        """Tokens of them all."""
        return sum(piece.tokens for piece in self.every)

    @property
    def ends(self) -> list[int]:
        """Where each of `text` ends in the response, in characters."""
        return list(accumulate((len(piece.text) for piece in self.text), initial=len(self.before)))[1:]


def pieces_of(
    preference: Preference, response: Response, ids: Ids, tokenizer: Tokenizer, end: EndToken
) -> Pieces | None:
    """Part a response at the ends of its tokens `ids`; None where that gives other tokens, or none at all.

    Pieces reach from end to end, and so join to the response where a tokenizer reports white space for no token.
    """
    row = render(preference, response, tokenizer, end)
    whole = response.text
    # A template writes the response as it is, or without the white space at either end.
    texts = (whole, whole.lstrip(), whole.rstrip(), whole.strip())
    written = next(text for text in texts if row.text.startswith(text, row.start))
    limit = row.start + len(written)
    spans = _spans(row, limit, ids, tokenizer)
    if spans is None:
        return None
    split = next((i for i, (start, end) in enumerate(spans) if start >= limit and end > limit), len(spans))
    ends = [end for _, end in spans]
    if not split:
        return None
    before, _, after = whole.partition(written)
    text = list(parts(row.text, row.start, limit, ends[:split]))
    return Pieces(before, text, list(parts(row.text, limit, len(row.text), ends[split:])), after)


def _spans(row: Rendered, limit: int, ids: Ids, tokenizer: Tokenizer) -> list[Span] | None:
    """Return where the tokens `ids`, with which a row ends, stand in it; its response ends at `limit`."""
    if not row.quoted:
        found = _encoded(row.text, 0, tokenizer)
    else:
        # Special tokens that the data spells are text; those of the template stand before the response and behind it.
        before = row.text[: row.start]
        begin = max(len(before.rpartition(t)[0] + t) if t in before else 0 for t in tokenizer.all_special_tokens)
        found = _encoded(row.text[begin:limit], begin, tokenizer, split_special_tokens=True)
        found += _encoded(row.text[limit:], limit, tokenizer)
    tail = found[-len(ids) :]
    return [span for _, span in tail] if [token for token, _ in tail] == ids.tolist() else None


def _encoded(text: str, start: int, tokenizer: Tokenizer, **how: bool) -> list[tuple[int, Span]]:
    """Encode a text that stands at `start`: every token's id, and where it stands."""
    found = tokenizer(text, add_special_tokens=False, return_offsets_mapping=True, **how)
    spans = [(start + first, start + end) for first, end in found["offset_mapping"]]
    return list(zip(found["input_ids"], spans, strict=True))


def parts(text: str, start: int, limit: int, ends: Sequence[int]) -> Iterator[Piece]:
    """Part the characters from `start` to `limit` at `ends`; tokens that end together are one piece."""
    marks = Counter(min(max(end, start), limit) for end in ends)
    if marks and limit not in marks:
        marks[limit] = marks.pop(max(marks))
    for mark in sorted(marks):
        yield Piece(text[start:mark], marks[mark])
        start = mark


def at_pieces(by_token: Floats, pieces: Pieces) -> Floats:
    """Return what stands at the last token of every piece, [pieces], of values [tokens]."""
    ends = np.cumsum([piece.tokens for piece in pieces.every])
    assert ends[-1] == len(by_token), "every token has a value"
    values: Floats = by_token[ends - 1]
    return values


def by_characters(scores: Floats, theirs: Pieces, ours: Pieces, empty: float) -> Floats:
    """Carry scores [pieces] from the pieces of one tokenizer to those of another, [pieces].

    At the end of one of `ours` stands the score of the last of `theirs` that ends by then, and `empty` before the
    first; at the last piece stands the score of the whole.
    """
    places = np.searchsorted(theirs.ends, ours.ends, side="right") - 1
    found = np.full(len(ours.every), scores[-1])
    found[: len(places)] = np.where(places >= 0, scores[np.maximum(places, 0)], empty)
    found[-1] = scores[-1]
    return found
