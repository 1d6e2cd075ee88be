"""Texts of generated tokens: the text that, as the answer to the prompt, is encoded into these tokens again.

Tokenizers decode a fragment otherwise than a text: SentencePiece drops the space in front of the first word, although
`▁the` behind a prompt is ` the`. Tokens are therefore decoded behind the last tokens of their prompt. Some tokenizers
also write a space of their own behind a control token, which is then no part of the text. Encoding decides: of the
texts that the tokens may stand for, it is the one that gives them back.

A model may generate tokens that no text is encoded into (`Hel` `lo` where `Hello` is a token). Such texts are counted.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from headwater.data.conversations import Chat, Conversation
from headwater.data.preference import Message, Prompted, Response
from headwater.data.templates import RefusedError
from headwater.data.tokenizers import Tokenizer
from headwater.data.tokens import encode
from headwater.data.turns import special_tokens
from headwater.errors import ModelError

HALF = "\ufffd"
"""What stands for bytes that are no character."""
CONTEXT = 8
"""Tokens of the prompt behind which a response is decoded: more than a character or a word has in common with it."""


class GeneratedText(NamedTuple):
    """The text of generated tokens."""

    text: str
    same_tokens: bool
    """Whether the text, as the answer to the prompt, is encoded into these tokens again."""


class ResponseTexts:
    """Texts of the responses that a model generates with one tokenizer."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        """Take the tokenizer and its template. Errors: `ModelError` without a template."""
        self._tokenizer, self._chat = tokenizer, Chat(tokenizer)
        ids = tokenizer.convert_tokens_to_ids(list(special_tokens(tokenizer)))
        self._special = frozenset(ids if isinstance(ids, list) else [ids])
        self._conversation: tuple[tuple[Message, ...], Conversation] | None = None

    def of(self, turns: tuple[Message, ...], prompt: Sequence[int], tokens: Sequence[int]) -> GeneratedText:
        """Return the text of `tokens`, which were generated behind `prompt`, the token ids of these turns.

        `tokens` are without the end token. Control tokens are no text, and neither is what the template writes between
        prompt and response, if the model generated that first: it is written again where the response is read.
        """
        begun = self._begun(prompt, tokens)
        candidates = dict.fromkeys(self._candidates([*prompt, *tokens[:begun]], tokens[begun:]))
        if not any(candidates):
            return GeneratedText("", begun == len(tokens))
        ids = [*prompt, *tokens]
        shared = {text: self._shared(turns, ids, text) for text in candidates}
        # Of texts with the same tokens the shorter one: a tokenizer that drops a space would not give it back.
        best = max(shared, key=lambda text: (shared[text], -len(text)))
        return GeneratedText(best, shared[best] > len(ids))

    def ends(self, text: str, prompt: Sequence[int], tokens: Sequence[int]) -> list[int]:
        """Return the character offset at which each token ends in `text`, which `of` returned of them.

        Tokens that share a character end together. A token is decoded behind the last tokens that formed complete text:
        its text can depend on them, but not on earlier ones.
        """
        begun = self._begun(prompt, tokens)
        ends = [0] * begun
        first = read = begun
        behind = [*prompt, *tokens[:begun]]
        reached = len(text) - len(self._behind(behind, tokens[begun:]))
        for place in range(begun + 1, len(tokens) + 1):
            before, now = (self._behind(behind if first == begun else [], tokens[first:end]) for end in (read, place))
            if now.endswith(HALF) and place < len(tokens):  # bytes of a character that is not complete
                continue
            reached = len(text) if place == len(tokens) else min(len(text), reached + max(0, len(now) - len(before)))
            ends += [max(0, reached)] * (place - len(ends))
            first, read = read, place
        return ends

    def _behind(self, context: Sequence[int], tokens: Sequence[int]) -> str:
        """Return the text of tokens behind others, without control tokens."""
        words = [token for token in tokens if token not in self._special]
        before, whole = self._decoded(context, words)
        return whole[len(before) :] if whole.startswith(before) else str(self._tokenizer.decode(words))

    def _decoded(self, context: Sequence[int], tokens: Sequence[int]) -> tuple[str, str]:
        """Return the text of the end of a context, and of that with tokens behind it."""
        end = list(context[-CONTEXT:])
        return str(self._tokenizer.decode(end)), str(self._tokenizer.decode([*end, *tokens]))

    def _begun(self, prompt: Sequence[int], tokens: Sequence[int]) -> int:
        """Return how many of the first tokens are the opening that the template writes before a response."""
        opening = self._chat.opening
        for place in range(1, min(len(tokens), len(opening)) + 1) if opening.strip() else ():
            before, whole = self._decoded(prompt, tokens[:place])
            if whole == before + opening:
                return place
            if not (before + opening).startswith(whole.rstrip(HALF)):
                break
        return 0

    def _candidates(self, context: Sequence[int], tokens: Sequence[int]) -> Iterator[str]:
        """Yield the texts that tokens may stand for, the likeliest first."""
        opening, whole = self._chat.opening, self._behind(context, tokens)
        if opening and opening.isspace():
            yield whole.removeprefix(opening)
        yield whole
        yield whole.removeprefix(" ")
        yield self._behind((), tokens)

    def _shared(self, turns: tuple[Message, ...], ids: Sequence[int], text: str) -> int:
        """Return how many of the first tokens of prompt and answer are also those of this text; one more for all."""
        try:
            row = self._prompt(turns).answered(Response(text, complete=False), "nothing")
        except (RefusedError, ModelError):  # the template leaves out, or rewrites, such an answer
            return 0
        (encoded,) = encode([row], self._tokenizer)
        given = encoded.ids.tolist()
        if given == list(ids):
            return len(given) + 1
        return next((place for place, pair in enumerate(zip(given, ids, strict=False)) if pair[0] != pair[1]), 0)

    def _prompt(self, turns: tuple[Message, ...]) -> Conversation:
        """Return the rendered prompt, which is kept for the next draw."""
        if self._conversation is None or self._conversation[0] != turns:
            self._conversation = turns, Conversation(self._chat, Prompted(prompt=turns))
        return self._conversation[1]


def differences(found: Sequence[bool | None]) -> str:
    """Return the sentence that says how many texts are encoded into other tokens; empty where none is.

    `found` says of every response whether its text gives its tokens back, None where they are not known.
    """
    others, known = sum(same is False for same in found), sum(same is not None for same in found)
    if not others:
        return ""
    return f"{others:,} of {known:,} texts are encoded into other tokens than the model generated"
