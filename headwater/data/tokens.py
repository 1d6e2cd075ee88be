"""Tokenize rows: token ids of prompt and responses by the chat template, and end-of-turn tokens.

The text of prompt and response is rendered once by the model's chat template and encoded once, and the response is
located by character offsets: encoding prompt and response separately and joining them gives other tokens where the two
merge. A complete response ends with the template's end-of-turn token, which belongs to it; a truncated one does not,
because its author did not end there.

A token that spans the boundary belongs to the response: where the two encodings of a pair differ is not prompt. Special
tokens spelled in the data (`<|im_end|>` in a text) are encoded as text. Both are counted.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, NamedTuple, overload

import numpy as np
from numpy.typing import NDArray

from headwater.data.conversations import ADDED_SYSTEM, Chat, Conversation, Rendered, notes_of
from headwater.data.encoding import Span, encoder_of
from headwater.data.preference import NO_COLUMNS, Example, Message, Preference, Prompted, Response
from headwater.data.reading import RowCounts
from headwater.data.templates import RefusedError
from headwater.data.tokenizers import Tokenizer, vocabulary_of
from headwater.data.truncation import TokenEnds, Truncation
from headwater.data.turns import Closing, EndToken, Written, turn_end
from headwater.errors import ModelError, first_line

Ids = NDArray[np.int32]
Mask = NDArray[np.bool_]

MAX_LENGTH = 2048
"""Default limit of the tokens of prompt and response."""

TOKENS_PER_PASS = 8192
"""Default number of tokens of one forward pass: enough to keep a device busy."""

BATCH = 512
"""Texts a call to the tokenizer: enough to keep all its threads busy, few enough to keep memory flat."""


@dataclass(frozen=True, slots=True)
class EncodeOptions:
    """How a row becomes token ids: truncation, end token, maximum length."""

    truncation: Truncation
    end: EndToken
    max_length: int | None = None
    """Tokens of prompt and longer response; pairs above are dropped. None: `MAX_LENGTH`, or fewer where a model cannot
    read as many (`models.positions`).
    """

    @property
    def longest(self) -> int:
        """Tokens of prompt and longer response."""
        return MAX_LENGTH if self.max_length is None else self.max_length


class PairTokens(NamedTuple):
    """A row as token ids; a complete response ends with its end-of-turn token.

    A labelled response takes the place of the chosen or the rejected one; the other side is empty.
    """

    prompt: Ids
    chosen: Ids
    rejected: Ids
    id: str
    source: str
    conversation_id: str
    chosen_reference: NDArray[np.float32] | None = None
    """Log-probability of every chosen token under the reference model, [len(chosen)]."""
    rejected_reference: NDArray[np.float32] | None = None
    columns: Mapping[str, float] = NO_COLUMNS
    """Numbers of the pair by name, for the losses that name them in `needs` (`Example.loss_columns`)."""
    key: str = ""
    """`Prompted.key` of the row: seeds its random draws, and identifies it in other runs."""
    row: int = 0
    """Index of the row among the given ones: joins tokens and texts, independent of ids."""
    chosen_mask: Mask | None = None
    """Which chosen tokens the assistant generates, [len(chosen)], where turns of others stand between its own; None:
    all. Only these are scored: everything that is computed a response token has a value for each of them.
    """
    rejected_mask: Mask | None = None
    vocabulary: str = ""
    """Fingerprint of the tokenizer's vocabulary (`tokenizers.vocabulary_of`); "" for ids that come from none."""

    @property
    def length(self) -> int:
        """Tokens of the shared row: the prompt once and both responses."""
        return len(self.prompt) + len(self.chosen) + len(self.rejected)

    @property
    def masks(self) -> tuple[Mask | None, Mask | None]:
        """The masks of both responses."""
        return self.chosen_mask, self.rejected_mask

    @property
    def scored(self) -> tuple[int, int]:
        """Number of scored tokens of both responses."""
        chosen, rejected = self.masks
        return (
            len(self.chosen) if chosen is None else int(chosen.sum()),
            len(self.rejected) if rejected is None else int(rejected.sum()),
        )


NOTES = {
    "boundary_merged": "a token spans prompt and response, and belongs to the response",
    "special_token_text": "the data spells a control token, which is encoded as text",
    "template_opens_response": "the template writes something between prompt and response, as the model has to",
    "head_of_generation": "the template writes another head before a past answer; that of generation is taken",
    "head_of_past_answer": "the template has no generation prompt; the head of a past answer is taken",
    "reasoning_kept": "the template would change the thoughts in the response, which is kept as it is",
    "system_in_user_turn": "the template takes no system turn, which is put before the first user turn",
    ADDED_SYSTEM: "the template adds a system prompt where the row has none; the text follows in brackets",
    "answer_begun_in_prompt": "the prompt ends in an assistant turn, which the response continues",
    "date_in_prompt": "the template writes the date into the prompt: today's",
}
"""Rules that may apply to a response, and their meaning."""
OF_PROMPTS = ("special_token_text", "system_in_user_turn", ADDED_SYSTEM, "answer_begun_in_prompt", "date_in_prompt")
"""Those that change what a model is asked, whatever it answers."""


class Ends(Sequence[int]):
    """Offsets at which the tokens of one text end, read from its encoding on demand: a cut needs few of them."""

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
        encoder = encoder_of(tokenizer)
        return [Ends(each) for batch in _batches(texts) for each in encoder.as_text(tokenizer, batch)]

    return ends


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    for start in range(0, len(texts), BATCH):
        yield list(texts[start : start + BATCH])


def render(row: Prompted, response: Response, tokenizer: Tokenizer, end_token: EndToken) -> Rendered:
    """Render prompt and response by the chat template, through the end of the response.

    Errors: `ModelError` when the tokenizer has no chat template, or one that refuses or rewrites the conversation.
    """
    try:
        return Conversation(Chat(tokenizer), row).answered(response, _closing(response, end_token))
    except RefusedError as error:
        raise ModelError(row.id, f"the chat template refuses the conversation: {first_line(error)}") from error


def _closing(response: Response, end_token: EndToken) -> Written:
    if end_token == "always":
        return "end"
    if end_token == "never" or not response.complete:
        return "nothing"
    return "template" if end_token == "template" else "end"


def closing_tokens(tokenizer: Tokenizer, end_token: EndToken) -> Closing:
    """Return the tokens that close a complete response. Errors: `ModelError` where nothing ends a turn."""
    if end_token != "template":
        return Closing(turn_end(tokenizer).ids)
    prompt = (Message("user", "…"),)
    row = Preference(prompt=prompt, chosen=Response("a"), rejected=Response("a", complete=False))
    whole, cut = encode([render(row, each, tokenizer, end_token) for each in row.responses], tokenizer)
    ids = tuple(whole.ids[len(cut.ids) :].tolist())
    last_end = next((place for place, token in enumerate(ids) if token == turn_end(tokenizer).token), 0)
    return Closing(ids, len(ids) - last_end)


class Tokenized(NamedTuple):
    """Result of `tokenize`: pairs, row counts, and how many responses met each rule."""

    pairs: list[PairTokens]
    row_counts: RowCounts
    notes: Counter[str]
    """Their names begin with those of `NOTES`."""


def tokenize(
    examples: Sequence[Example], tokenizer: Tokenizer, max_length: int, end_token: EndToken = "complete"
) -> Tokenized:
    """Turn rows into token ids; `row` of every pair says which of the examples it is.

    Rows with more than `max_length` tokens on one side, and those that the chat template refuses, are dropped and
    counted. Errors: `ModelError` when there is no chat template, or one that rewrites a response.
    """
    row_counts = RowCounts(rows_in=len(examples))
    pairs: list[PairTokens] = []
    notes: Counter[str] = Counter()
    chat, vocabulary = Chat(tokenizer), vocabulary_of(tokenizer)
    for start in range(0, len(examples), BATCH):
        taken: list[tuple[int, Example]] = []
        rendered: list[Rendered] = []
        for place, row in enumerate(examples[start : start + BATCH], start=start):
            try:
                conversation = Conversation(chat, row)
                rendered += [conversation.answered(each, _closing(each, end_token)) for each in row.responses]
                taken.append((place, row))
            except RefusedError as error:
                row_counts.drop("template_refuses", f"{row.id}: {first_line(error)}")
        encoded = encode(rendered, tokenizer)
        notes += notes_of(rendered)
        notes["boundary_merged"] += sum(e.merged for e in encoded)
        ahead = iter(encoded)
        for place, example in taken:
            pair = _pair(example, list(islice(ahead, len(example.responses))), place)
            pair = pair._replace(vocabulary=vocabulary)
            reason = _unusable(pair, len(example.responses), max_length)
            if reason:
                row_counts.drop(reason)
            else:
                pairs.append(pair)
    row_counts.kept = len(pairs)
    return Tokenized(pairs, row_counts, +notes)


class Encoded(NamedTuple):
    """Token ids of a conversation, and the index of the first token that is not wholly prompt."""

    ids: Ids
    offsets: Sequence[Span]
    """The characters that each token stands for."""
    start: int
    merged: bool
    """Whether that token holds some prompt too."""
    mask: Mask | None = None
    """Which tokens are the assistant's, [tokens], where the response has several turns."""


def encode(rendered: Sequence[Rendered], tokenizer: Tokenizer) -> list[Encoded]:
    """Encode conversations: the control tokens of their template as such, those that the data spells as text."""
    texts, control = [row.text for row in rendered], [row.control for row in rendered]
    encoded = encoder_of(tokenizer).encode(tokenizer, texts, control) if rendered else []
    return [_placed(row, *each) for row, each in zip(rendered, encoded, strict=True)]


def _placed(row: Rendered, ids: Sequence[int], offsets: Sequence[Span]) -> Encoded:
    first = next((i for i, (_, end) in enumerate(offsets) if end > row.start), len(ids))
    merged = first < len(ids) and offsets[first][0] < row.start
    return Encoded(np.asarray(ids, dtype=np.int32), offsets, first, merged, _mask(row.turns, offsets))


def _mask(turns: Sequence[Span], offsets: Sequence[Span]) -> Mask | None:
    """Return which tokens hold characters of `turns`; a token that holds others too counts, as at a response's start.

    A token without characters, such as a space that a normaliser removes, counts where it stands within a turn.
    """
    if len(turns) < 2:
        return None
    starts, ends = (np.array(column) for column in zip(*offsets, strict=True))
    mask = np.zeros(len(offsets), dtype=bool)
    for start, end in turns:
        mask |= (ends > start) & (starts < end)
    return mask


def _pair(example: Example, encoded: Sequence[Encoded], row: int) -> PairTokens:
    first, last = encoded[0], encoded[-1]  # the same where there is one response
    shared = min(first.start, last.start)
    differs = np.flatnonzero(first.ids[:shared] != last.ids[:shared])
    shared = int(differs[0]) if len(differs) else shared
    responses: dict[str, Ids] = {side: each.ids[shared:] for side, each in zip(example.sides, encoded, strict=True)}
    masks = {side: _scored_from(each, shared) for side, each in zip(example.sides, encoded, strict=True)}
    none = first.ids[:0]
    return PairTokens(
        prompt=first.ids[:shared],
        chosen=responses.get("chosen", none),
        rejected=responses.get("rejected", none),
        id=example.id,
        source=example.source,
        conversation_id=example.conversation_id,
        columns=example.loss_columns,
        key=example.key,
        row=row,
        chosen_mask=masks.get("chosen"),
        rejected_mask=masks.get("rejected"),
    )


def _scored_from(encoded: Encoded, shared: int) -> Mask | None:
    return None if encoded.mask is None else mask_from(encoded, shared)


def mask_from(encoded: Encoded, first: int) -> Mask:
    """Return which tokens from the first of a response on are the assistant's, [tokens].

    It begins at its own start, or before it, where another response to its prompt begins.
    """
    if encoded.mask is None:
        return np.ones(len(encoded.ids) - first, dtype=bool)
    mask = encoded.mask[first:].copy()
    mask[: encoded.start - first] = True
    return mask


def _unusable(pair: PairTokens, responses: int, max_length: int) -> str:
    if len(pair.prompt) + max(len(pair.chosen), len(pair.rejected)) > max_length:
        return "too_long"
    said = sum(map(bool, pair.scored))
    return "" if len(pair.prompt) and said == responses else "no_tokens"
