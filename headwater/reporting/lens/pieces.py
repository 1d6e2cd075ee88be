"""Split a response into the pieces of text that its tokens represent."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import accumulate, groupby
from typing import NamedTuple

import numpy as np

from headwater.data.conversations import Rendered
from headwater.data.preference import Preference, Response
from headwater.data.tokenizers import Tokenizer
from headwater.data.tokens import Encoded, Ids, encode, mask_from, render
from headwater.data.turns import EndToken
from headwater.statistics import Floats


class Piece(NamedTuple):
    """Tokens that share characters, such as the bytes of an emoji, and their text; mostly one token.

    No tokens: a text that is read and not scored, such as a user's turn within a response.
    """

    text: str
    tokens: int


class Pieces(NamedTuple):
    """A response as a model reads it: `before`, the texts of `text` and `after` join to exactly the response.

    Of a response of several turns, they join to what the template writes behind the header of its first one.
    """

    before: str
    """What of the response the chat template strips, mostly white space, at the beginning …"""
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
    begin, limit = row.body
    (encoded,) = encode([row], tokenizer)
    first = len(encoded.ids) - len(ids)
    if first < 0 or encoded.ids[first:].tolist() != ids.tolist():
        return None
    if row.turns:
        return _of_turns(row, encoded, first)
    ends = [stop for _, stop in encoded.offsets[first:]]
    starts = [start for start, _ in encoded.offsets[first:]]
    split = next((i for i, start in enumerate(starts) if start >= limit and ends[i] > limit), len(ids))
    if not split:
        return None
    # What the template writes before the response is a piece without text.
    opening = sum(stop <= begin for stop in ends[:split]) if begin > row.start else 0
    text = [*([Piece("", opening)] if opening else []), *parts(row.text, begin, limit, ends[opening:split])]
    whole = response.text
    after = whole[row.skipped + limit - begin :]
    return Pieces(whole[: row.skipped], text, list(parts(row.text, limit, len(row.text), ends[split:])), after)


def _of_turns(row: Rendered, encoded: Encoded, first: int) -> Pieces:
    """Part a response of several turns that begins at token `first`: turns of others are pieces without tokens."""
    limit, place = row.body[1], row.start
    text: list[Piece] = []
    closing: list[Piece] = []
    tokens = zip(mask_from(encoded, first), encoded.offsets[first:], strict=True)
    for scored, run in groupby(tokens, key=lambda token: bool(token[0])):
        ends = [end for _, (_, end) in run]
        if not scored:
            text.append(Piece(row.text[place : ends[-1]], 0))
        else:
            said = [end for end in ends if end <= limit]
            text += parts(row.text, place, limit if len(said) < len(ends) else ends[-1], said)
            closing = list(parts(row.text, limit if said else place, len(row.text), ends[len(said) :]))
        place = ends[-1]
    return Pieces("", text, closing, "")


def pieces_of_row(row: Rendered, tokenizer: Tokenizer, prompt: int) -> tuple[list[Piece], list[Piece]]:
    """Part a rendered row at the ends of its tokens: the first `prompt` tokens, and those of the response.

    The pieces join to the text that was encoded.
    """
    (encoded,) = encode([row], tokenizer)
    ends = [end for _, end in encoded.offsets]
    place = ends[prompt - 1] if prompt else 0
    return list(parts(row.text, 0, place, ends[:prompt])), list(parts(row.text, place, len(row.text), ends[prompt:]))


def parts(text: str, start: int, limit: int, ends: Sequence[int]) -> Iterator[Piece]:
    """Part the characters from `start` to `limit` at `ends`; tokens that end together are one piece."""
    marks = Counter(min(max(end, start), limit) for end in ends)
    if marks and limit not in marks:
        marks[limit] = marks.pop(max(marks))
    for mark in sorted(marks):
        yield Piece(text[start:mark], marks[mark])
        start = mark


def at_pieces(by_token: Floats, pieces: Pieces) -> Floats:
    """Return the value at the last token of every piece, [pieces], from values [tokens]."""
    ends = np.cumsum([piece.tokens for piece in pieces.every])
    assert ends[-1] == len(by_token), "every token has a value"
    values: Floats = by_token[ends - 1]
    return values


def by_characters(scores: Floats, theirs: Pieces, ours: Pieces, empty: float) -> Floats:
    """Carry scores [pieces] from the pieces of one tokenizer to those of another, [pieces].

    The score at the end of one of `ours` is that of the last of `theirs` that ends by then, and `empty` before the
    first; at the last piece it is the score of the whole.
    """
    places = np.searchsorted(theirs.ends, ours.ends, side="right") - 1
    found = np.full(len(ours.every), scores[-1])
    found[: len(places)] = np.where(places >= 0, scores[np.maximum(places, 0)], empty)
    found[-1] = scores[-1]
    return found
