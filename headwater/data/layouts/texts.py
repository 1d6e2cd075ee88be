r"""The commonest layouts read from columns: many rows at once, by Arrow, and only those that surely are pairs.

A reader here says yes to a row, or nothing: `sure` is false for what is left to the layout's own reader, which can say
what is wrong. The two never differ on a row of which this one says yes (`tests/data/test_reading_columns.py`). Texts
stay bytes until somebody asks for a record, a prompt's turns among them (`prompts.py`).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pyarrow
import pyarrow.compute as pc
from numpy.typing import NDArray
from xxhash import xxh3_128_digest

from headwater.data.layouts.beside import TEXT, beside_of, column_of
from headwater.data.layouts.checks import check_texts
from headwater.data.layouts.dialogues import Dialogues
from headwater.data.layouts.fields import own_id
from headwater.data.layouts.layout import Broken, NoPreference
from headwater.data.layouts.pairs import SIDES, check_ratings, standing
from headwater.data.layouts.prompts import SEPARATOR, Places, bytes_of, joined, runs, wide
from headwater.data.preference import Message, Preference, Response, Role

_NOTHING: Mapping[str, Any] = {}
_ROLES: dict[bytes, Role] = {b"system": "system", b"user": "user", b"assistant": "assistant"}


class Texts(NamedTuple):
    """A row that surely is a pair."""

    prompt: bytes
    chosen: bytes
    rejected: bytes
    beside: Mapping[str, Any]
    """Its id, source, scores and the like, where it has them."""


class Pairs(NamedTuple):
    """Rows as columns."""

    prompt: Any
    chosen: Any
    rejected: Any
    sure: Any
    """Whether a row is a pair, as far as the layout can tell; null is no."""


FromColumns = Callable[[Any], Pairs | None]
"""From a `pyarrow.RecordBatch` to its pairs; None where its columns are of other types."""


@dataclass(frozen=True)
class Sure:
    """What is sure of some rows, as far as many can be looked at at once; iterating gives the texts of all of them."""

    pairs: Pairs
    alike: NDArray[np.bool_]
    """Whether two answers may be empty or the same."""
    beside: Any
    """What stands beside the texts, as a `pyarrow.RecordBatch`; None where there is nothing."""
    unchecked: bool
    """Whether that may be wrong."""

    def __iter__(self) -> Iterator[Texts]:
        """Yield the texts of every row, which mean nothing where a row is not sure."""
        columns = (_bytes(column).to_pylist() for column in self.pairs[:3])
        return map(Texts, *columns, itertools.repeat(_NOTHING) if self.beside is None else self.beside.to_pylist())

    def certain(self) -> NDArray[np.bool_]:
        """Say which rows are pairs, [rows]; what many at once do not tell is looked at row by row."""
        certain = _truth(self.pairs.sure)
        alike = np.flatnonzero(certain & self.alike)
        answers = (_bytes(side).take(pyarrow.array(alike)).to_pylist() for side in self.pairs[1:3])
        certain[alike] = list(map(_differ, *answers))
        if self.unchecked:
            certain[certain] = list(map(_is_right, self.beside.filter(pyarrow.array(certain)).to_pylist()))
        return certain

    def identities(self) -> tuple[list[bytes], list[bool]]:
        """Return what stands for the texts of every row, and which way its label points, as `identity_of` does."""
        prompt, chosen, rejected = map(wide, self.pairs[:3])
        label = pc.less(chosen, rejected)
        ordered = pc.if_else(label, chosen, rejected), pc.if_else(label, rejected, chosen)
        texts = pc.binary_join_element_wise(*ordered, prompt, wide(SEPARATOR), null_handling="replace")
        return list(map(xxh3_128_digest, texts.to_pylist())), label.to_pylist()


def identity_of(chosen: bytes, rejected: bytes, prompt: bytes) -> tuple[bytes, bool]:
    """Return 16 bytes that stand for the texts of a pair in UTF-8, and which way its label points."""
    label = chosen < rejected
    texts = (chosen, rejected) if label else (rejected, chosen)
    return xxh3_128_digest(SEPARATOR.join((*texts, prompt))), label


def _truth(column: Any) -> NDArray[np.bool_]:
    """Return a column of truth values as numbers; null is no."""
    values: NDArray[np.bool_] = np.array(pc.fill_null(column, False).to_numpy(zero_copy_only=False), np.bool_)
    return values


class Judged(NamedTuple):
    """What is sure of rows, looked at; one entry a row."""

    rows: Sure
    certain: NDArray[np.bool_]
    digests: list[bytes]
    """What stands for the texts of a row, and the way its label points: `identity_of`."""
    labels: list[bool]


def judge(read: FromColumns, batch: Any) -> Judged | None:
    """Return what is sure of the rows of `batch`; None where nothing is."""
    sure = _sure_of(read, batch)
    return None if sure is None else Judged(sure, sure.certain(), *sure.identities())


def _sure_of(read: FromColumns, batch: Any) -> Sure | None:
    pairs, beside = read(batch), beside_of(batch)
    if pairs is None or beside is None:
        return None
    return Sure(pairs, ~_surely_differ(pairs.chosen, pairs.rejected), *beside)


_EDGE = 4
"""Bytes at either end of two answers that are compared, many answers at once."""
_VISIBLE = np.array([0x20 < byte < 0x7F for byte in range(256)])
"""Letters and signs of ASCII."""


def _surely_differ(one: Any, other: Any) -> NDArray[np.bool_]:
    """Say whether two texts begin with a letter or sign, and their first or their last words are not the same."""
    texts = [bytes_of(side) for side in (one, other)]
    lengths = np.minimum(*(np.diff(offsets) for _, offsets in texts))
    steps = np.arange(_EDGE)
    first, other_first = (_at(data, offsets[:-1, None] + steps) for data, offsets in texts)
    last, other_last = (_at(data, offsets[1:, None] - 1 - steps) for data, offsets in texts)
    spoken: NDArray[np.bool_] = _VISIBLE[first[:, 0]] & _VISIBLE[other_first[:, 0]] & (lengths > 0)
    return spoken & (_words_differ(first, other_first, lengths) | _words_differ(last, other_last, lengths))


def _words_differ(one: NDArray[np.uint8], other: NDArray[np.uint8], lengths: Places) -> NDArray[np.bool_]:
    """Say whether words surely differ whose first bytes (or last, backwards) are given, [rows, _EDGE].

    They do where letters or signs are followed by two that are not the same, or by one and the end of a word.
    """
    place = (one != other).argmax(1)
    alike = (_VISIBLE[one] | (np.arange(_EDGE) >= place[:, None])).all(1)
    a, b = (np.take_along_axis(side, place[:, None], 1)[:, 0] for side in (one, other))
    told = np.where(place == 0, _VISIBLE[a] & _VISIBLE[b], (_VISIBLE[a] | _VISIBLE[b]) & (a < 0x80) & (b < 0x80))
    differ: NDArray[np.bool_] = (a != b) & alike & told & (lengths > place)
    return differ


def _at(data: NDArray[np.uint8], places: Places) -> NDArray[np.uint8]:
    """Return bytes at places, of which those outside of the data mean nothing."""
    if not len(data):
        return np.zeros(places.shape, np.uint8)
    return data[np.clip(places, 0, len(data) - 1)]


def _differ(chosen: bytes, rejected: bytes) -> bool:
    """Say whether two answers are neither empty nor the same but for white space."""
    try:
        if not _begin_differently(chosen, rejected):
            check_texts(chosen.decode(), rejected.decode())
    except NoPreference:
        return False
    return True


def _is_right(beside: Mapping[str, Any]) -> bool:
    """Say whether what stands beside the texts is of its kind, and prefers one."""
    try:
        check_ratings(beside)
        standing(beside, "chosen"), standing(beside, "rejected")
    except (Broken, NoPreference):
        return False
    return True


def _begin_differently(chosen: bytes, rejected: bytes) -> bool:
    """Say whether the first words of two texts differ; the last word of a beginning may be cut, and does not count."""
    words, others = (text[:100].decode(errors="ignore").split(None, 4)[:4] for text in (chosen, rejected))
    return len(words) == len(others) == 4 and words[:3] != others[:3]


def preference(texts: Texts, name: str, source: str) -> Preference:
    """Make the record; `name` and `source` are the row's where it brings none."""
    prompt, chosen, rejected, beside = texts
    turns = prompt.split(SEPARATOR)
    pairs = zip(turns[1::2], turns[2::2], strict=True)
    return Preference(
        prompt=tuple([Message(_ROLES[role], content.decode()) for role, content in pairs]),
        chosen=_response(chosen, beside, "chosen"),
        rejected=_response(rejected, beside, "rejected"),
        id=own_id(beside, name),
        source=str(beside.get("source") or source),
    )


def _response(text: bytes, beside: Mapping[str, Any], side: str) -> Response:
    return Response(text.decode(), *standing(beside, side)) if beside else Response(text.decode())


# --- layouts ------------------------------------------------------------------------------------------------------


def explicit(batch: Any) -> Pairs | None:
    """Read what `pairs.explicit` reads: a prompt and two answers, texts or messages."""
    prompt, sides = _prompt(column_of(batch, "prompt")), [_answer(column_of(batch, side)) for side in SIDES]
    if prompt is None or None in sides:
        return None
    (turns, asks), (chosen, first), (rejected, second) = prompt, *filter(None, sides)
    return Pairs(turns, chosen, rejected, pc.and_(asks, pc.and_(first, second)))


def implicit(batch: Any) -> Pairs | None:
    """Read what `pairs.implicit` reads: two whole conversations of messages."""
    conversations = [_Conversations.of(column_of(batch, side)) for side in SIDES]
    if None in conversations:
        return None
    (prompt, chosen, first), (other, rejected, second) = (each.split() for each in filter(None, conversations))
    return Pairs(prompt, chosen, rejected, pc.and_(pc.equal(prompt, other), pc.and_(first, second)))


def prompt_and_conversations(batch: Any) -> Pairs | None:
    """Read what `pairs.prompt_and_conversations` reads, where the prompt is the text of one question."""
    pairs, asked = implicit(batch), column_of(batch, "prompt")
    if pairs is None or not _is_text(asked):
        return None
    prompt = joined(b"user", _bytes(asked))
    return pairs._replace(sure=pc.and_(pc.and_(pairs.sure, _plain(asked, "Human:")), pc.equal(prompt, pairs.prompt)))


def hh(batch: Any) -> Pairs | None:
    """Read what `pairs.hh` reads: two dialogues as texts."""
    columns = [column_of(batch, side) for side in SIDES]
    if not all(map(_is_text, columns)):
        return None
    dialogues = Dialogues.of(columns[0])
    rejected, sure = dialogues.answers_of(columns[1])
    return Pairs(dialogues.prompts(), dialogues.answers(), rejected, pyarrow.array(sure))


# --- columns ------------------------------------------------------------------------------------------------------


class _Conversations(NamedTuple):
    """A column of lists of messages: their roles and contents, and where every list begins and ends among them."""

    roles: Any
    contents: Any
    begins: Any
    ends: Any
    sure: Any
    """Whether a row is a list of one message or more, all of known roles."""

    @classmethod
    def of(cls, column: Any) -> _Conversations | None:
        if column is None or not _are_messages(column.type):
            return None
        roles, contents = (_bytes(pc.struct_field(column.values, key)) for key in ("role", "content"))
        offsets = column.offsets.to_numpy()
        begins, ends = offsets[:-1].astype(np.int64), offsets[1:].astype(np.int64)
        known = pc.and_(pc.is_in(roles, pyarrow.array(list(_ROLES), roles.type)), pc.is_valid(contents))
        bad = np.concatenate(([0], np.cumsum(~known.to_numpy(zero_copy_only=False))))
        sure = (ends > begins) & (bad[ends] == bad[begins]) & column.is_valid().to_numpy(zero_copy_only=False)
        return cls(roles, contents, begins, ends, sure)

    def joined(self, ends: Any) -> tuple[Any, Any]:
        """Return the messages of every row up to `ends` as prompts, and whether the user has a turn in them."""
        lengths = np.where(self.sure, ends - self.begins, 0)
        places = np.arange(lengths.sum()) + np.repeat(self.begins - np.cumsum(lengths) + lengths, lengths)
        taken = pyarrow.array(places)
        prompt = runs(joined(self.roles.take(taken), self.contents.take(taken)), lengths)
        users = np.concatenate(([0], np.cumsum(pc.equal(self.roles, b"user").to_numpy(zero_copy_only=False) == True)))  # noqa: E712 - null is no
        return prompt, self.sure & (users[np.maximum(ends, 0)] > users[self.begins])

    def split(self) -> tuple[Any, Any, Any]:
        """Return what came before the last turn as prompts, that turn, and whether it is an answer to a question."""
        last = np.maximum(self.ends - 1, 0)
        prompt, asks = self.joined(self.ends - 1)
        return prompt, *self._answers(last, asks)

    def alone(self) -> tuple[Any, Any]:
        """Return the only turn of every row, and whether it is an answer."""
        return self._answers(self.begins, self.sure & (self.ends == self.begins + 1))

    def _answers(self, places: Any, sure: Any) -> tuple[Any, Any]:
        held = pyarrow.array(np.where(sure, places, -1), mask=~sure)
        answers, roles = self.contents.take(held), self.roles.take(held)
        return pc.cast(answers, pyarrow.large_string() if _is_large(answers) else pyarrow.string()), pc.equal(
            roles, b"assistant"
        )


def _prompt(column: Any) -> tuple[Any, Any] | None:
    if _is_text(column):
        return joined(b"user", _bytes(column)), _plain(column, "Human:")
    conversations = _Conversations.of(column)
    if conversations is None:
        return None
    prompt, asks = conversations.joined(conversations.ends)
    return prompt, pyarrow.array(asks)


def _answer(column: Any) -> tuple[Any, Any] | None:
    if _is_text(column):
        return column, _plain(column, "\n\nHuman:")
    conversations = _Conversations.of(column)
    return conversations and conversations.alone()


def _plain(column: Any, marker: str) -> Any:
    """Say which texts are there, begin like no list or object (which may be messages), and hold no marker of turns."""
    special = pc.or_(pc.match_substring_regex(column, r"^[ \t\r\n]*[\[{]"), pc.match_substring(column, marker))
    return pc.fill_null(pc.invert(special), False)


def _is_text(column: Any) -> bool:
    return column is not None and column.type in TEXT


def _is_large(column: Any) -> bool:
    return column.type in (pyarrow.large_string(), pyarrow.large_binary())


def _are_messages(kind: Any) -> bool:
    return (
        pyarrow.types.is_list(kind)
        and isinstance(kind.value_type, pyarrow.StructType)
        and all(
            kind.value_type.get_field_index(key) >= 0 and kind.value_type.field(key).type in TEXT
            for key in ("role", "content")
        )
    )


def _bytes(column: Any) -> Any:
    """Return texts as bytes, which costs nothing."""
    return pc.cast(column, pyarrow.large_binary() if _is_large(column) else pyarrow.binary())
