"""Truncate responses to their beginnings. ★ A newcomer adds a way to cut here.

The paper (arXiv:2505.17122, section 4.1) keeps the first t_k = ratio × length tokens of each response, by its own
length. Its released script cuts characters instead, and does nothing for `--truncate_ratio 50`. Here a cut falls at
a token's character offset, so that the kept text is an exact prefix of the response, and a ratio that could be
meant the other way is refused.

Controls beyond the paper: cutting both responses to one length (`equal` is POET, arXiv:2506.09457), and keeping a span
of the same size from elsewhere.
"""

from __future__ import annotations

import json
import random
import re
import unicodedata
from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from fractions import Fraction
from itertools import islice
from pathlib import Path
from typing import Generic, Literal, NamedTuple, TypeVar

from headwater.config.calls import fraction, shown
from headwater.data import segmentation
from headwater.data.layouts import NoPreference, check_responses
from headwater.data.preference import Example, Response, Unpaired
from headwater.data.truncation_effect import TruncationEffect
from headwater.errors import UsageError

TokenEnds = Callable[[Sequence[str]], Sequence[Sequence[int]]]
"""Maps texts to the character offsets at which their tokens end, in non-decreasing order."""

CutBy = Literal["own", "equal", "shared"]
Part = Literal["prefix", "suffix", "middle", "random-span"]
Boundary = Literal["token", "grapheme", "word", "sentence"]

UNITS: dict[str, segmentation.Unit | None] = {
    "ratio": None,
    "tok": None,
    "sent": "sentence",
    "words": "word",
    "chars": "grapheme",
}
"""Unit of an amount; None counts tokens."""

ExampleT = TypeVar("ExampleT", bound=Example)

BATCH = 256
"""Rows encoded at a time: enough to keep all threads of the tokenizer busy, few enough to keep memory flat."""
FACTS = "facts.json"
"""File of a run with results for later steps."""
EXAMPLES = "write 0.4, 40%, 128tok, 3sent, 50words or 200chars"


@dataclass(frozen=True, slots=True)
class Keep:
    """How much of a response is kept: a share of its tokens, or a number of units."""

    amount: Fraction
    unit: str = "ratio"

    def count(self, units: int) -> int:
        """Return how many of `units` are kept: ⌊share × units⌋ or the number, and at least 1 of any."""
        wanted = int(self.amount * units) if self.unit == "ratio" else int(self.amount)
        return min(units, max(1, wanted))


def parse_keep(text: str) -> Keep:
    """Read `--keep`: a ratio in (0, 1] (`0.4`), a percentage (`40%`), or a number of units (`128tok`, `3sent`, …).

    `auto:RUN` is what the `headwater signal` run in the directory RUN recommends. Errors: `UsageError`, with the right
    spelling where a percentage was meant.
    """
    flag = f"--keep {shown(text)}"
    if text.strip().startswith("auto"):
        text = _recommended(text.strip(), flag)
    match = re.fullmatch(r"(.*?)(%|tok|sent|words|chars)?", text.strip(), flags=re.DOTALL)
    number, unit = _number(match[1] if match else text, flag, EXAMPLES), match[2] if match else None
    if unit not in (None, "%"):
        if number < 1 or number.denominator != 1:
            raise UsageError(flag, "is not a whole number above 0", EXAMPLES)
        return Keep(number, str(unit))
    keep = number / 100 if unit else number
    if 0 < keep <= 1:
        return Keep(keep)
    if not unit and 1 < number <= 100:
        raise UsageError(flag, "is above 1", f"write --keep {text}% for a percentage")
    raise UsageError(flag, "is outside (0, 1]", EXAMPLES)


def _recommended(text: str, flag: str) -> str:
    """Return the ratio that the run named in `auto:RUN` recommends."""
    run = Path(text.removeprefix("auto:"))
    if run == Path(text) or not text.removeprefix("auto:"):
        raise UsageError(flag, "names no run", "write --keep auto:RUN, with a run of headwater signal")
    try:
        facts = json.loads((run / FACTS).read_text(encoding="utf-8"))
    except OSError as error:
        raise UsageError(flag, f"{run} is no finished run", "write headwater signal DATA --output RUN first") from error
    if "recommended_keep" not in facts:
        raise UsageError(flag, f"{run} is not a run of headwater signal", "name one")
    if facts["recommended_keep"] is None:
        raise UsageError(flag, f"{run} came to no conclusion", "read what it says, and choose: --keep 50%")
    return str(facts["recommended_keep"])


def parse_percentage(text: str) -> Keep:
    """Read `--truncate-percentage`: the percentage that is kept, in [1, 100]. Errors: `UsageError`."""
    flag = f"--truncate-percentage {shown(text)}"
    number = _number(text.strip().removesuffix("%"), flag, "write the percentage to keep, such as 40")
    if 1 <= number <= 100:
        return Keep(number / 100)
    if 0 < number < 1:
        raise UsageError(flag, "is below 1", f"write --truncate-percentage {float(number * 100):g} or --keep {text}")
    raise UsageError(flag, "is outside [1, 100]", "write the percentage to keep, such as 40")


def _number(text: str, flag: str, fix: str) -> Fraction:
    # A Fraction holds 0.1 exactly: 0.1 × 30 tokens is 3, not 3.0000000000000004.
    try:
        return fraction(text)
    except ValueError as error:
        raise UsageError(flag, "is not a number", fix) from error


@dataclass(frozen=True, slots=True)
class Truncation:
    """Which part of the responses of a row is kept."""

    keep: Keep = Keep(Fraction(1))
    cut: CutBy = "own"
    """own: by each response's length (the paper). equal: by the shorter one's. shared: by the longer one's."""
    part: Part = "prefix"
    """Which part is kept; all but `prefix` are controls."""
    boundary: Boundary = "grapheme"
    """Unit that is never split. grapheme: one visible character; token: exact token counts, as in the published runs;
    word and sentence: longer units.
    """
    seed: int = 0
    """Seeds random spans, together with the texts of the row."""

    @property
    def changes_nothing(self) -> bool:
        """Whether every response is kept whole, whatever its length."""
        return self.keep == Keep(Fraction(1)) and self.cut != "equal"

    def check_rows(self, rows: Example) -> None:
        """Refuse options without meaning for rows like one of them. Errors: `UsageError`."""
        if self.cut != "own" and isinstance(rows, Unpaired):
            raise UsageError(f"--cut {self.cut}", "labelled rows have one response, no other to cut by", "leave it out")

    def counts(self, *units: int) -> tuple[int, ...]:
        """Return how many units are kept of the responses of a row, which have so many."""
        if self.cut == "own":
            return tuple(map(self.keep.count, units))
        kept = self.keep.count(min(units) if self.cut == "equal" else max(units))
        return tuple(min(kept, own) for own in units)

    def first(self, units: int, kept: int, key: str) -> int:
        """Return the index of the first unit that is kept; `key` names the response, for random spans."""
        max_tokens = units - kept
        if self.part == "random-span":
            return random.Random(f"{self.seed}:{key}").randint(0, max_tokens)
        return {"prefix": 0, "suffix": max_tokens, "middle": max_tokens // 2}[self.part]


def span(text: str, ends: Sequence[int], first: int, count: int, boundary: Boundary = "token") -> tuple[int, int]:
    """Return the characters, start and end, of `count` units of `text` from the `first` on.

    `ends` [n] are the offsets at which its n units end. A cut moves to the last `boundary` before it, or to the first
    one after it where nothing would be left.
    """
    if count == len(ends):
        return 0, len(text)
    # Tokens that share one character (byte-level pieces of an emoji) all end where it ends, so no half is left.
    start = _whole(text, ends[first - 1]) if first else 0
    end = _whole(text, ends[first + count - 1])
    if boundary == "token" or (boundary == "grapheme" and _between_graphemes(text, start, end)):
        return (start, end) if start < end else _snapped([0, *ends], start, end)
    return _snapped([0, *segmentation.ends(text, boundary)], start, end)


def _between_graphemes(text: str, start: int, end: int) -> bool:
    """Return whether a span of tokens divides no grapheme, as nearly all do; such a span need not be moved."""
    return start < end and all(segmentation.is_grapheme_end(text, offset) for offset in (start, end))


def cut(response: Response, start: int, end: int, turn: int | None = None) -> Response:
    """Keep the characters from `start` to `end`; a response that lost its end is no longer `complete`.

    They are those of the assistant's turn number `turn`, None: of the last one; the turns before it are kept. A call of
    a tool is kept with the whole text before it, or not at all.
    """
    if turn is None or turn == len(response.said) - 1:
        complete, extra, before = response.complete, response.extra, response.before
        text = response.text
    else:
        place = [number for number, each in enumerate(response.before) if each.role == "assistant"][turn]
        last, before, complete = response.before[place], response.before[:place], True
        text, extra = last.content, last.extra
    whole = end == len(text)
    return replace(
        response,
        text=text[start:end],
        complete=complete and whole,
        before=before,
        extra=extra if whole else "",
    )


def _whole(text: str, offset: int) -> int:
    """Move an offset behind the marks of its letter; a normaliser that joins the two reports none for them."""
    while 0 < offset < len(text) and _continues(text[offset]):
        offset += 1
    return offset


def _continues(character: str) -> bool:
    """Return whether a character belongs to the one before: a mark on a letter, a later part of a Korean syllable."""
    return unicodedata.category(character).startswith("M") or "\u1160" <= character <= "\u11ff"


def _snapped(marks: Sequence[int], start: int, end: int) -> tuple[int, int]:
    """Shrink a span to marks; where no two lie in it, take the piece between marks that holds its end."""
    first = next((mark for mark in marks if mark >= start), start)
    last = max((mark for mark in marks if mark <= end), default=end)
    if first < last:
        return first, last
    last = next((mark for mark in marks if mark >= end), end)
    return max((mark for mark in marks if mark < last), default=start), last


@dataclass
class Truncated(TruncationEffect, Generic[ExampleT]):
    """Result of `truncate`: the effect of a cut, and the rows that still hold a preference."""

    preferences: list[ExampleT] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    """Where each of them stood among the rows that came in."""


def truncate(examples: Iterable[ExampleT], truncation: Truncation, token_ends: TokenEnds) -> Truncated[ExampleT]:
    """Cut the responses of every row, in memory; see `shortened`."""
    result = Truncated[ExampleT]()
    for example in shortened(examples, truncation, token_ends, result):
        result.preferences.append(example)
        result.places.append(result.row_counts.rows_in - 1)
    return result


def shortened(
    examples: Iterable[ExampleT], truncation: Truncation, token_ends: TokenEnds, effect: TruncationEffect
) -> Iterator[ExampleT]:
    """Cut the responses of every row of a stream; prompts stay as they are.

    A row that keeps an empty response, or two that are the same, is dropped and counted.
    """
    if truncation.changes_nothing:
        for example in examples:
            effect.row_counts.rows_in += 1
            effect.row_counts.kept += 1
            yield example
        return
    for example, ends in _with_ends(examples, token_ends):
        effect.row_counts.rows_in += 1
        spans = _spans(example, truncation, ends)
        responses = [
            cut(each, span.start, span.end, span.turn) for each, span in zip(example.responses, spans, strict=True)
        ]
        try:
            check_responses(*responses)
        except NoPreference as reason:
            effect.drop(example, str(reason))
            continue
        effect.keep(example, [sum(map(len, turns)) for turns in ends], [span.tokens for span in spans])
        yield example.answered(responses)


TurnEnds = list[Sequence[int]]
"""Where the tokens of the texts of a response end, turn by turn."""


def _with_ends(examples: Iterable[ExampleT], token_ends: TokenEnds) -> Iterator[tuple[ExampleT, list[TurnEnds]]]:
    """Yield every row with the token ends of its responses; a batch is encoded while the last one is used."""
    stream = iter(examples)
    ahead: deque[tuple[list[ExampleT], Future[Sequence[Sequence[int]]]]] = deque()
    with ThreadPoolExecutor(1) as encoder:
        for batch in iter(lambda: list(islice(stream, BATCH)), []):
            texts = [text for example in batch for response in example.responses for text in response.said]
            ahead.append((batch, encoder.submit(token_ends, texts)))
            if len(ahead) > 1:
                yield from _joined(*ahead.popleft())
        for waiting in ahead:
            yield from _joined(*waiting)


def _joined(
    batch: Sequence[ExampleT], encoded: Future[Sequence[Sequence[int]]]
) -> Iterator[tuple[ExampleT, list[TurnEnds]]]:
    ends = iter(encoded.result())
    for example in batch:
        yield example, [list(islice(ends, len(response.said))) for response in example.responses]


class Span(NamedTuple):
    """The kept part of a response: the characters of its last kept turn from `start` to `end`, and all its tokens."""

    start: int
    end: int
    tokens: int
    turn: int = 0
    """Number of the last kept turn of the assistant, from 0."""


def _spans(example: Example, truncation: Truncation, by_token: Sequence[TurnEnds]) -> list[Span]:
    """Return what is kept of the responses of a row; `by_token` says where their tokens end.

    Amounts that do not count tokens count their own unit in the texts. Errors: `UsageError` for a part of a response of
    several turns that is no beginning.
    """
    unit = UNITS[truncation.keep.unit]
    texts = [response.said for response in example.responses]
    units: Sequence[TurnEnds] = by_token
    if unit:
        units = [[segmentation.ends(text, unit) for text in said] for said in texts]
    counts = truncation.counts(*(sum(map(len, turns)) for turns in units))
    if truncation.part != "prefix" and any(response.before for response in example.responses):
        fix = "compare last turns (--turns last), or keep the beginning"
        raise UsageError(f"--part {truncation.part}", "a response of several turns is cut to its beginning", fix)
    key = example.key if truncation.part == "random-span" else ""
    spans = []
    for place, side in enumerate(example.sides):
        said, tokens, turns = texts[place], by_token[place], units[place]
        turn, count = _in_turn(turns, counts[place])
        text, ends = said[turn], turns[turn]
        first = truncation.first(len(ends), count, f"{key}:{side}")
        start, end = span(text, ends, first, count, truncation.boundary)
        exact = unit is None and (start, end) == span(text, ends, first, count)
        kept = count if exact else _tokens_in(tokens[turn], start, end)
        spans.append(Span(start, end, sum(map(len, tokens[:turn])) + kept, turn))
    return spans


def _in_turn(turns: Sequence[Sequence[int]], count: int) -> tuple[int, int]:
    """Return the turn in which the first `count` units of a response end, and how many of them are its own."""
    if count == sum(map(len, turns)):
        return len(turns) - 1, len(turns[-1])
    for number, ends in enumerate(turns):
        if count <= len(ends):
            return number, count
        count -= len(ends)
    raise AssertionError("more units than there are")


def _tokens_in(ends: Sequence[int], start: int, end: int) -> int:
    """Count the tokens that end within a span."""
    return bisect_right(ends, end) - bisect_right(ends, start)
