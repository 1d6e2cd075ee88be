r"""Dialogues of HH-RLHF, split in the bytes of their column: searched once, and no turn is copied but into its prompt.

Splitting and joining texts costs several copies of each; where the markers of turns stand says as much. An Arrow array
of texts is its bytes and the places where each text ends, so that parts of texts that follow each other are an array
of the same bytes with more such places.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pyarrow
import pyarrow.compute as pc
from numpy.typing import NDArray

from headwater.data.layouts.prompts import SEPARATOR, Places, between, bytes_of, joined, runs

_USER, _REPLY = (SEPARATOR + role + SEPARATOR for role in (b"user", b"assistant"))
"""What stands before a turn in a prompt."""
_BREAK = ord("\n")
_HUMAN, _ASSISTANT = b"\n\nHuman:", b"\n\nAssistant:"
_WORD = 8
"""Bytes that are compared at once; the longer marker is two such words that overlap."""
_HUMAN_WORD, _ASSISTANT_WORD, _ASSISTANT_END = (
    int.from_bytes(word, "little") for word in (_HUMAN, _ASSISTANT[:_WORD], _ASSISTANT[-_WORD:])
)
_SPACE = 1
_KIND = np.array([2 if byte >= 0x80 else _SPACE if chr(byte).isspace() else 0 for byte in range(256)], np.uint8)
"""Of every byte: whether it is white space of ASCII, and whether it is a part of a longer character."""
_WIDE_SPACES = {
    size: {int.from_bytes(space.encode(), "big") for space in spaces}
    for size, spaces in (
        (2, "\x85\xa0"),
        (3, "\u1680\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u2028\u2029\u202f\u205f\u3000"),
    )
}
"""White space beyond ASCII, by how many bytes it takes in UTF-8."""
_PLACE_VALUES = np.array([1 << 16, 1 << 8, 1])
_SPACES = 4
"""Spaces at either end of a turn that are looked for here; Arrow finds more."""


class Dialogues(NamedTuple):
    """A column of dialogues, each split at its last answer."""

    data: NDArray[np.uint8]
    offsets: Places
    """Where every row begins, and the last one ends."""
    starts: Places
    """Where every marker begins, in all rows."""
    ends: Places
    human: NDArray[np.bool_]
    """Whether a marker begins a turn of the user."""
    first: Places
    """Number of markers before every row, and of all."""
    sure: NDArray[np.bool_]
    """Whether a row begins with a marker, has a turn of the user, and ends with an answer."""

    @classmethod
    def of(cls, column: Any) -> Dialogues:
        """Find the turns of a column of texts."""
        data, offsets = bytes_of(column)
        starts, human = _markers(data, int(offsets[0]), int(offsets[-1]))
        ends = starts + np.where(human, len(_HUMAN), len(_ASSISTANT))
        first = np.searchsorted(starts, offsets)
        sure = _is_there(column) & (np.diff(first) > 1)
        rows = np.flatnonzero(sure)
        begin, last = first[rows], first[rows + 1] - 1
        asked = np.concatenate(([0], np.cumsum(human)))
        # A marker that lies across the end of a row is the row's last, and none.
        sure[rows] = (
            (starts[begin] == offsets[rows])
            & ~human[last]
            & (ends[last] <= offsets[rows + 1])
            & (asked[last] > asked[begin])
        )
        return cls(data, offsets, starts, ends, human, first, sure)

    def answers(self) -> Any:
        """Return what every row ends with, trimmed."""
        return _trimmed(self.data, self.offsets[:-1] + self._cuts(), self.offsets[1:])

    def answers_of(self, column: Any) -> tuple[Any, NDArray[np.bool_]]:
        """Return what the rows of another column end with, and which of them surely are the same up to there."""
        data, offsets = bytes_of(column)
        cuts = self._cuts()
        places = np.minimum(offsets[:-1] + cuts, offsets[1:])
        one = between(self.data, _halved(self.offsets, self.offsets[:-1] + cuts))
        other = between(data, _halved(offsets, places))
        same = pc.equal(one, other).to_numpy(zero_copy_only=False)[::2] & self.sure
        # Elsewhere the place may lie inside of a character.
        halves = between(data, _halved(offsets, np.where(same, places, offsets[1:])))
        rest, ends = bytes_of(halves.take(pyarrow.array(np.arange(len(column)) * 2 + 1)))
        further, _ = _markers(rest, 0, int(ends[-1]))
        last = np.diff(np.searchsorted(further, ends)) == 0
        return _trimmed(rest, ends[:-1], ends[1:]), same & last & _is_there(column)

    def prompts(self) -> Any:
        """Return what came before the answers as prompts (`prompts.py`); empty where a row is not sure."""
        counts = np.where(self.sure, np.diff(self.first) - 1, 0)
        turns = np.repeat(self.first[:-1] - np.cumsum(counts) + counts, counts) + np.arange(counts.sum())
        begins, ends, more = _without_spaces(self.data, self.ends[turns], self.starts[turns + 1])
        if more:
            roles = pc.if_else(pyarrow.array(self.human[turns]), b"user", b"assistant")
            return runs(joined(roles, _trimmed(self.data, begins, ends)), counts)
        # The turns and both roles are pieces of the same bytes, of which a prompt takes one after another.
        end = len(self.data)
        data = np.concatenate([self.data, np.frombuffer(_USER + _REPLY, np.uint8)])
        bounds = np.append(_bounds(begins, ends), [end, end + len(_USER), len(data)])
        roles = np.where(self.human[turns], len(bounds) - 3, len(bounds) - 2)
        pieces = np.stack([roles, np.arange(len(turns)) * 2], axis=1).ravel()
        return runs(between(data, bounds).take(pyarrow.array(pieces)), 2 * counts)

    def _cuts(self) -> Places:
        """Return how far into every row its answer begins; 0 where a row is not sure."""
        if not len(self.ends):
            return np.zeros(len(self.sure), np.int64)
        return np.where(self.sure, self.ends[np.maximum(self.first[1:] - 1, 0)] - self.offsets[:-1], 0)


def _is_there(column: Any) -> NDArray[np.bool_]:
    valid: NDArray[np.bool_] = column.is_valid().to_numpy(zero_copy_only=False)
    return valid


def _halved(offsets: Places, cuts: Places) -> Places:
    """Return where the halves of rows begin, and the last one ends: two a row."""
    return np.append(np.stack([offsets[:-1], cuts], axis=1).ravel(), offsets[-1])


def _trimmed(data: NDArray[np.uint8], begins: Places, ends: Places) -> Any:
    """Return texts that lie between places, in their order, without the white space around them."""
    begins, ends, more = _without_spaces(data, begins, ends)
    if not len(begins):
        return pyarrow.array([], pyarrow.large_string())
    texts = between(data, _bounds(begins, ends)).take(pyarrow.array(np.arange(len(begins)) * 2))
    texts = texts.view(pyarrow.large_string())
    return pc.utf8_trim_whitespace(texts) if more else texts


def _markers(data: NDArray[np.uint8], begin: int, end: int) -> tuple[Places, NDArray[np.bool_]]:
    """Return where markers begin between two places of the bytes, and which of them are the user's."""
    breaks = data[begin:end] == _BREAK
    at = np.flatnonzero(breaks[:-1] & breaks[1:]) + begin
    at = at[at <= end - _WORD]
    if not len(at):
        return at, np.zeros(0, np.bool_)
    words = np.ndarray((len(data) - _WORD + 1,), "<u8", data, strides=(1,))  # one beginning at every byte
    word = words[at]
    human = word == _HUMAN_WORD
    rest = np.minimum(at + len(_ASSISTANT) - _WORD, len(words) - 1)
    assistant = (word == _ASSISTANT_WORD) & (words[rest] == _ASSISTANT_END) & (at <= end - len(_ASSISTANT))
    found = human | assistant
    return at[found], human[found]


def _bounds(begins: Places, ends: Places) -> Places:
    """Return where texts begin and end, in one: every other of what lies between is a text."""
    return np.stack([begins, ends], axis=1).ravel()


def _without_spaces(data: NDArray[np.uint8], begins: Places, ends: Places) -> tuple[Places, Places, bool]:
    """Move begins and ends past white space of ASCII, some; say whether there may be more, of any kind."""
    begins, ends = begins.copy(), ends.copy()
    for side, step in ((begins, 1), (ends, -1)):
        moving = np.flatnonzero(begins < ends)
        for _ in range(_SPACES):
            moving = moving[_KIND[data[side[moving] - (step < 0)]] == _SPACE]
            if not len(moving):
                break
            side[moving] += step
            moving = moving[begins[moving] < ends[moving]]
    held = np.flatnonzero(begins < ends)
    first, last = begins[held], ends[held] - 1
    kinds = [_KIND[data[places]] for places in (first, last)]
    more = any((kind == _SPACE).any() for kind in kinds)
    return begins, ends, more or _wide_space(data, first[kinds[0] > _SPACE], last[kinds[1] > _SPACE])


def _wide_space(data: NDArray[np.uint8], first: Places, last: Places) -> bool:
    """Say whether white space that is not ASCII begins or ends at one of its first and last bytes."""
    for size, spaces in _WIDE_SPACES.items():
        for begin in (first, last - size + 1):
            places = np.clip(begin[:, None] + np.arange(size), 0, len(data) - 1)
            if not spaces.isdisjoint((data[places] @ _PLACE_VALUES[-size:]).tolist()):
                return True
    return False
