"""Chat template: a row to token ids; where a response starts, and who gets an end token.

The text of prompt and response is rendered once by the model's chat template and encoded once, and the response is
found by character offsets: encoding prompt and response apart and joining them gives other tokens where the two
merge. A response that is complete ends with the template's end-of-turn token, which is part of it; one that was cut
does not, because nobody ended there.

A token that spans the boundary belongs to the response: what the two encodings of a pair do not share is not prompt.
Special tokens that the data spells out (`<|im_end|>` in a text) are encoded as text. Both are counted.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, NamedTuple, overload

import numpy as np
from jinja2 import TemplateError
from numpy.typing import NDArray

from headwater.data.preference import Example, Prompted, Response
from headwater.data.reading import Account
from headwater.data.tokenizers import Tokenizer
from headwater.data.truncation import TokenEnds, Truncation
from headwater.data.turns import end_text, special_tokens
from headwater.errors import ModelError, first_line

Ids = NDArray[np.int32]

BATCH = 512
"""Texts a call to the tokenizer: enough to keep all its threads busy, few enough to keep memory flat."""


EndToken = Literal["complete", "always", "never"]
"""Who gets an end-of-turn token: complete responses, all (as the published runs did), or none."""


@dataclass(frozen=True, slots=True)
class View:
    """What of a row a model sees."""

    truncation: Truncation
    end: EndToken
    max_length: int
    """Tokens of prompt and longer response; pairs above are dropped."""


class PairTokens(NamedTuple):
    """A row as token ids; a complete response ends with its end-of-turn token.

    A labelled response stands where a pair has its chosen or its rejected one; its other side is empty.
    """

    prompt: Ids
    chosen: Ids
    rejected: Ids
    id: str
    source: str
    opening: str
    chosen_reference: NDArray[np.float32] | None = None
    """Log-probability of every chosen token under the reference model, [len(chosen)]."""
    rejected_reference: NDArray[np.float32] | None = None
    score_gap: float | None = None
    """Score of the chosen response less that of the rejected one; None where the data does not score both."""

    @property
    def length(self) -> int:
        """Tokens of the shared row: the prompt once and both responses."""
        return len(self.prompt) + len(self.chosen) + len(self.rejected)


class Ends(Sequence[int]):
    """Where the tokens of one text end, asked of its encoding one by one: a cut wants few of them."""

    __slots__ = ("_encoding",)

    def __init__(self, encoding: Any) -> None:
        self._encoding = encoding

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self._encoding)

    @overload
    def __getitem__(self, index: int) -> int: ...

    @overload
    def __getitem__(self, index: slice) -> list[int]: ...

    def __getitem__(self, index: int | slice) -> int | list[int]:
        """Return the character offset at which token `index` ends."""
        if isinstance(index, slice):
            return [end for _, end in self._encoding.offsets[index]]
        size = len(self)
        if not -size <= index < size:
            raise IndexError(index)
        return int(self._encoding.token_to_chars(index % size)[1])


def token_ends(tokenizer: Tokenizer) -> TokenEnds:
    """Return a function from texts to the character offsets at which their tokens end; it uses all cores."""

    def ends(texts: Sequence[str]) -> list[Ends]:
        backend = tokenizer.backend_tokenizer
        return [Ends(e) for batch in _batches(texts) for e in backend.encode_batch(batch, add_special_tokens=False)]

    return ends


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(texts), BATCH):
        yield list(texts[start : start + BATCH])


class Rendered(NamedTuple):
    """One response in its conversation: the text to encode, and where things stand in it, in characters."""

    text: str
    start: int
    """Where the response starts."""
    quoted: tuple[str, ...] = ()
    """Texts of the data that hold a special token's spelling, in their order; empty for nearly every row."""


def render(row: Prompted, response: Response, tokenizer: Tokenizer, end_token: EndToken) -> Rendered:
    """Render prompt and response by the chat template, through the end of the response.

    Errors: `ModelError` when the tokenizer has no chat template, or one that refuses or rewrites the conversation.
    """
    if not tokenizer.chat_template:
        raise ModelError(
            getattr(tokenizer, "name_or_path", "tokenizer"), "has no chat template", "use an instruction-tuned model"
        )
    messages = [{"role": message.role, "content": message.content} for message in row.conversation]
    answer = {"role": "assistant", "content": response.text}
    try:
        before = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        whole = tokenizer.apply_chat_template([*messages, answer], tokenize=False)
    except TemplateError as error:
        raise ModelError(row.id, f"the chat template refuses the conversation: {first_line(error)}") from error
    written = response.text
    for text in (written, written.lstrip(), written.rstrip(), written.strip()):
        if whole.startswith(before + text):
            end = len(before) + len(text)
            ends = end_token == "always" or (end_token == "complete" and response.complete)
            closing = end_text(whole[end:], tokenizer) if ends else ""
            return Rendered(whole[:end] + closing, len(before), _quoted(row, response, tokenizer))
    raise ModelError(row.id, "the chat template rewrites the response", "use a template that keeps it as it is")


def _quoted(row: Prompted, response: Response, tokenizer: Tokenizer) -> tuple[str, ...]:
    texts = (*(message.content for message in row.conversation), response.text)
    special = special_tokens(tokenizer)
    return texts if any(token in text for text in texts for token in special) else ()


class Tokenized(NamedTuple):
    """What `tokenize` returns: pairs, the account, and how many responses met a rule that a reader should know of."""

    pairs: list[PairTokens]
    account: Account
    notes: Counter[str]
    """`boundary_merged`: a token spans prompt and response. `special_token_text`: encoded as text, not as control."""


def tokenize(
    examples: Sequence[Example], tokenizer: Tokenizer, max_length: int, end_token: EndToken = "complete"
) -> Tokenized:
    """Turn rows into token ids; those with more than `max_length` tokens on one side are dropped and counted."""
    account = Account(rows_in=len(examples))
    pairs: list[PairTokens] = []
    notes: Counter[str] = Counter()
    for start in range(0, len(examples), BATCH):
        batch = examples[start : start + BATCH]
        rendered = [render(row, response, tokenizer, end_token) for row in batch for response in row.responses]
        encoded = _encode(rendered, tokenizer)
        notes["boundary_merged"] += sum(e.merged for e in encoded)
        notes["special_token_text"] += sum(bool(r.quoted) for r in rendered)
        ahead = iter(encoded)
        for example in batch:
            pair = _pair(example, list(islice(ahead, len(example.responses))))
            reason = _unusable(pair, len(example.responses), max_length)
            if reason:
                account.dropped[reason] += 1
            else:
                pairs.append(pair)
    account.kept = len(pairs)
    return Tokenized(pairs, account, +notes)


class Encoded(NamedTuple):
    """Token ids of a conversation, and the index of the first token that is not wholly prompt."""

    ids: Ids
    start: int
    merged: bool
    """Whether that token holds some prompt too."""


def _encode(rendered: Sequence[Rendered], tokenizer: Tokenizer) -> list[Encoded]:
    encoded = tokenizer([r.text for r in rendered], add_special_tokens=False, return_offsets_mapping=True)
    columns = zip(rendered, encoded["input_ids"], encoded["offset_mapping"], strict=True)
    return [
        _located(row, *(_encode_quoting(row, tokenizer) if row.quoted else (ids, offsets)))
        for row, ids, offsets in columns
    ]


def _located(row: Rendered, ids: Sequence[int], offsets: Sequence[tuple[int, int]]) -> Encoded:
    first = next((i for i, (_, end) in enumerate(offsets) if end > row.start), len(ids))
    merged = first < len(ids) and offsets[first][0] < row.start
    return Encoded(np.asarray(ids, dtype=np.int32), first, merged)


def _encode_quoting(row: Rendered, tokenizer: Tokenizer) -> tuple[list[int], list[tuple[int, int]]]:
    """Encode a row whose data spells special tokens: the template's are control tokens, the data's are text.

    Between the template's special tokens, which no token spans, each stretch is encoded with special tokens as text.
    """
    ids: list[int] = []
    offsets: list[tuple[int, int]] = []
    for start, end, token in _stretches(row, special_tokens(tokenizer)):
        if token:
            ids.append(tokenizer.convert_tokens_to_ids(token))
            offsets.append((start, end))
        elif end > start:
            plain = tokenizer(
                row.text[start:end],
                add_special_tokens=False,
                return_offsets_mapping=True,
                split_special_tokens=True,
            )
            ids += plain["input_ids"]
            offsets += [(start + s, start + e) for s, e in plain["offset_mapping"]]
    return ids, offsets


def _stretches(row: Rendered, special: Sequence[str]) -> Iterator[tuple[int, int, str | None]]:
    """Cut a row at the special tokens of its template: (start, end, the token or None)."""
    pattern = re.compile("|".join(re.escape(token) for token in sorted(special, key=len, reverse=True)))
    data = _data_spans(row)
    position = 0
    for match in pattern.finditer(row.text):
        if any(start <= match.start() < end for start, end in data):
            continue
        yield position, match.start(), None
        yield match.start(), match.end(), match[0]
        position = match.end()
    yield position, len(row.text), None


def _data_spans(row: Rendered) -> list[tuple[int, int]]:
    """Find the texts of the data in a row, in their order; a template may strip them."""
    spans: list[tuple[int, int]] = []
    position = 0
    for text in row.quoted:
        start = row.text.find(text.strip(), position)
        if start >= 0:
            position = start + len(text.strip())
            spans.append((start, position))
    return spans


def _pair(example: Example, encoded: Sequence[Encoded]) -> PairTokens:
    first, last = encoded[0], encoded[-1]  # the same where there is one response
    shared = min(first.start, last.start)
    differs = np.flatnonzero(first.ids[:shared] != last.ids[:shared])
    shared = int(differs[0]) if len(differs) else shared
    responses: dict[str, Ids] = {side: each.ids[shared:] for side, each in zip(example.sides, encoded, strict=True)}
    none = first.ids[:0]
    return PairTokens(
        prompt=first.ids[:shared],
        chosen=responses.get("chosen", none),
        rejected=responses.get("rejected", none),
        id=example.id,
        source=example.source,
        opening=example.opening,
        score_gap=example.score_gap,
    )


def _unusable(pair: PairTokens, responses: int, max_length: int) -> str:
    if len(pair.prompt) + max(len(pair.chosen), len(pair.rejected)) > max_length:
        return "too_long"
    said = bool(len(pair.chosen)) + bool(len(pair.rejected))
    return "" if len(pair.prompt) and said == responses else "no_tokens"
