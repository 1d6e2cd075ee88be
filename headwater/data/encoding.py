"""Encode rendered text into token ids, so that control tokens spelled in the data are ordinary text.

A tokenizer splits a text at its control tokens first: `</s>` in the data and `</s>` of the template get the same id.
Encoding the pieces between them separately gives other ids than the whole text: many SentencePiece tokenizers put a
space in front of a text, and nowhere else.

Here a second tokenizer, built from the first one only where the data spells a control token, knows the control tokens
by random names only, under the same ids. The template's own control tokens are written with those names, those of the
data as they are, and the text stays in one piece.
"""

from __future__ import annotations

import re
import secrets
from bisect import bisect_right
from collections.abc import Sequence
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import orjson

from headwater.data.tokenizers import Tokenizer
from headwater.data.turns import special_tokens

PRIVATE = 0xF0000
"""First of 65,534 private-use characters, used in the random names."""
NAMES = 0xFFFE

Span = tuple[int, int]
"""First character and the one behind the last."""


class Encoded(NamedTuple):
    """A text as tokens."""

    ids: Sequence[int]
    offsets: Sequence[Span]
    """The characters that each token stands for."""


class ControlTokens:
    """The control tokens of a tokenizer, and a random name for each of them."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Collect the tokens that the tokenizer splits a text at."""
        added = {token.content for token in tokenizer.added_tokens_decoder.values()}
        spelled = sorted((token for token in special_tokens(tokenizer) if token in added), key=len, reverse=True)
        # Data cannot spell such a name: it is drawn by every process. Ids do not depend on it.
        key = "".join(chr(PRIVATE + secrets.randbelow(NAMES)) for _ in range(3))
        self.names = {token: f"{key}{chr(PRIVATE + place % NAMES)}" for place, token in enumerate(spelled)}
        self._spelled = {name: token for token, name in self.names.items()}
        self._tokens = _any_of(self.names)
        self._secret = _any_of(self._spelled)
        self._both = _any_of([*self.names, *self._spelled])

    def spelled_in(self, text: str) -> bool:
        """Return whether a text spells a control token."""
        return self._tokens.search(text) is not None

    def hide(self, text: str) -> str:
        """Replace control tokens by their random names."""
        return self._tokens.sub(lambda match: self.names[match[0]], text)

    def show(self, text: str) -> str:
        """Replace random names by their control tokens."""
        return self._secret.sub(lambda match: self._spelled[match[0]], text)

    def last_in(self, text: str) -> tuple[int, str]:
        """Return where the last control token of a text begins, and the token; (0, "") where there is none."""
        return max(((match.start(), match[0]) for match in self._tokens.finditer(text)), default=(0, ""))

    def spans(self, text: str) -> tuple[Span, ...]:
        """Return the positions of tokens that a text spells itself, after `show` has been applied to it."""
        found, longer = [], 0
        for match in self._both.finditer(text):
            spelled = self._spelled.get(match[0])
            if spelled is None:
                found.append((match.start() + longer, match.end() + longer))
            else:
                longer += len(spelled) - len(match[0])
        return tuple(found)


def _any_of(texts: Sequence[str] | dict[str, str]) -> re.Pattern[str]:
    # The pattern of nothing matches nowhere.
    return re.compile("|".join(map(re.escape, texts)) or r"(?!)")


class Encoder:
    """Encodes texts of one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Look at what the tokenizer takes for control tokens."""
        self.tokens = ControlTokens(tokenizer)
        self._neutral: _Neutral | None = None

    def encode(self, tokenizer: Tokenizer, texts: Sequence[str], control: Sequence[tuple[Span, ...] | None]) -> Any:
        """Encode rendered texts; `control` holds the positions of their control tokens, None: wherever spelled."""
        plain = tokenizer(
            list(texts), add_special_tokens=False, return_offsets_mapping=True, split_special_tokens=False
        )
        every = map(Encoded, plain["input_ids"], plain["offset_mapping"])
        return [
            each if spans is None else self.neutral(tokenizer).encode(text, spans)
            for each, text, spans in zip(every, texts, control, strict=True)
        ]

    def as_text(self, tokenizer: Tokenizer, texts: Sequence[str]) -> list[Any]:
        """Encode texts of the data, each by itself, into encodings of the backend."""
        quoting = [self.tokens.spelled_in(text) for text in texts]
        found = tokenizer.backend_tokenizer.encode_batch(list(texts), add_special_tokens=False)
        return [
            self.neutral(tokenizer).backend.encode(text, add_special_tokens=False) if quotes else each
            for text, quotes, each in zip(texts, quoting, found, strict=True)
        ]

    def neutral(self, tokenizer: Tokenizer) -> _Neutral:
        """Return the tokenizer with renamed control tokens; it is built when first needed."""
        if self._neutral is None:
            self._neutral = _Neutral(tokenizer, self.tokens.names)
        return self._neutral


class _Neutral:
    """A tokenizer that treats spelled control tokens as text."""

    def __init__(self, tokenizer: Tokenizer, names: dict[str, str]) -> None:
        from tokenizers import Tokenizer as Backend

        self.backend = Backend.from_str(_renamed(tokenizer.backend_tokenizer.to_str(), names))
        self._names = names
        # Tokens outside of the vocabulary get their ids by order, which is the same where no number is left out.
        ids = {
            self.backend.token_to_id(names.get(token.content, token.content)): number
            for number, token in tokenizer.added_tokens_decoder.items()
        }
        self._ids = {mine: theirs for mine, theirs in ids.items() if mine != theirs}

    def encode(self, text: str, control: Sequence[Span]) -> Encoded:
        """Encode a text with control tokens at some places only."""
        parts, starts, shifts = [], [0], [0]
        position = length = 0
        for start, end in control:
            name = self._names[text[start:end]]
            parts += [text[position:start], name]
            length += start - position + len(name)
            position = end
            starts.append(length)
            shifts.append(end - length)
        found = self.backend.encode("".join([*parts, text[position:]]), add_special_tokens=False)
        # A name is one token, from where the token starts to where it ends; what follows moves by what it is shorter.
        offsets = [(_moved(start, starts, shifts), _moved(end, starts, shifts)) for start, end in found.offsets]
        return Encoded([self._ids.get(each, each) for each in found.ids], offsets)


def _moved(place: int, starts: Sequence[int], shifts: Sequence[int]) -> int:
    return place + shifts[bisect_right(starts, place) - 1]


def _renamed(tokenizer: str, names: dict[str, str]) -> str:
    """Rename control tokens in a tokenizer's file, in its vocabulary too: a text must not come to them by any way."""
    data = orjson.loads(tokenizer)
    data |= {"post_processor": None, "truncation": None, "padding": None}
    for token in data["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    model = data["model"]
    if isinstance(model["vocab"], dict):
        model["vocab"] = {names.get(token, token): number for token, number in model["vocab"].items()}
    else:
        model["vocab"] = [[names.get(token, token), score] for token, score in model["vocab"]]
    if "merges" in model:
        model["merges"] = [pair for pair in model["merges"] if not _makes_one_of(pair, names)]
    if model.get("unk_token") in names:
        model["unk_token"] = names[model["unk_token"]]
    return orjson.dumps(data).decode()


def _makes_one_of(pair: Sequence[str], names: dict[str, str]) -> bool:
    left, right = pair.split(" ") if isinstance(pair, str) else pair
    return left in names or right in names or left + right in names


_encoders: WeakKeyDictionary[Any, tuple[tuple[object, ...], Encoder]] = WeakKeyDictionary()


def encoder_of(tokenizer: Tokenizer) -> Encoder:
    """Return the encoder of a tokenizer, which is made again where tokens were added in the meantime."""
    state = (len(tokenizer), special_tokens(tokenizer))
    known = _encoders.get(tokenizer)
    if known is None or known[0] != state:
        known = _encoders[tokenizer] = (state, Encoder(tokenizer))
    return known[1]
