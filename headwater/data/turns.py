"""The special tokens of a tokenizer and the end of an assistant turn, defined once for all modules.

Used by training, truncation, saving, generation, and to find the token at which a reward is read.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headwater.data.templates import FLAG, SENTINEL, ChatTemplate, assistant
from headwater.data.tokenizers import Tokenizer
from headwater.errors import ModelError

EndToken = Literal["complete", "template", "always", "never"]
"""What closes a response: the end of the turn a complete one; all that the template writes behind one, such as a line
break behind the end token, a complete one; the end of the turn all (as the published runs did); or nothing."""
Written = Literal["nothing", "end", "template"]
"""What is written behind one response: nothing, the end of the turn, or all that the template writes."""


class TurnEnd(NamedTuple):
    """How the chat template of a tokenizer ends a complete assistant turn."""

    text: str
    """The text after the response, through the end token."""
    token: int
    """Id of the end token: the last token of `text`."""
    stop_ids: tuple[int, ...]
    """Ids that end a response when they are generated, in rising order: the end token and the tokenizer's EOS token."""
    ids: tuple[int, ...]
    """All tokens of `text`; mostly the end token alone."""
    rest: str
    """Everything that the template writes after the last response, such as a line end behind the end token."""


class Closing(NamedTuple):
    """The tokens that close a complete response."""

    ids: tuple[int, ...]
    least: int = 1
    """How many of the last of them show that a response is closed; the others may merge with its text."""


def closing_of(response: NDArray[np.int32], closing: Closing) -> int:
    """Count the tokens at the end of a response that close it; 0 where it is cut."""
    last = response.tolist()
    counts = range(len(closing.ids), closing.least - 1, -1)
    return next((n for n in counts if last[-n:] == list(closing.ids[-n:])), 0)


def special_tokens(tokenizer: Tokenizer) -> tuple[str, ...]:
    """Return the texts of all control tokens, also of those that only `added_tokens_decoder` names."""
    added = (token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    return tuple(dict.fromkeys((*tokenizer.all_special_tokens, *added)))


def turn_end(tokenizer: Tokenizer) -> TurnEnd:
    """Return how a complete assistant turn ends in the tokenizer's chat template.

    Errors: `ModelError` without a template, and where neither the template nor the tokenizer has an end token.
    """
    rest = _after_response(tokenizer)
    text = end_text(rest, tokenizer)
    ids = tuple(tokenizer(text, add_special_tokens=False)["input_ids"])
    stop = {ids[-1], tokenizer.eos_token_id} - {None}
    return TurnEnd(text, ids[-1], tuple(sorted(stop)), ids, rest)


def end_text(rest: str, tokenizer: Tokenizer) -> str:
    """Return what of `rest`, the text after a response, ends the turn: through its first control token; else EOS.

    Control tokens that follow at once belong to it where EOS is among them (`<|END_RESPONSE|><|END_OF_TURN_TOKEN|>`).
    Without a control token, a token that the tokenizer was given beside its vocabulary ends it. Errors: `ModelError`
    where there is neither.
    """
    special = special_tokens(tokenizer)
    first = _through_first(special, rest)
    if first is not None:
        end = first
        while token := next((token for token in special if rest.startswith(token, end)), None):
            end += len(token)
            if token == tokenizer.eos_token:
                return rest[:end]
        return rest[:first]
    added = [token.content for token in tokenizer.added_tokens_decoder.values() if token.content.strip()]
    first = _through_first(added, rest)
    if first is not None:
        return rest[:first]
    if tokenizer.eos_token is None:
        raise ModelError("tokenizer", "has neither an end-of-turn token in its template nor an EOS token")
    return str(tokenizer.eos_token)


def _through_first(tokens: Sequence[str], rest: str) -> int | None:
    """Return where the first of `tokens` in `rest` ends; None where there is none."""
    return min((rest.find(token) + len(token) for token in tokens if token in rest), default=None)


def padding_token(tokenizer: Tokenizer) -> str | None:
    """Return the token to pad with: its own where that ends no turn, else a control token that no text contains.

    None where there is no such token.
    """
    end = turn_end(tokenizer)
    if tokenizer.pad_token_id not in (None, end.token):
        return str(tokenizer.pad_token)
    rendered = ChatTemplate(tokenizer).render([{"role": "user", "content": "…"}, assistant(SENTINEL)])
    written = f"{tokenizer.chat_template}{rendered}{end.text}{tokenizer.bos_token}"
    unused = [token for token in special_tokens(tokenizer) if token not in written]
    for fits in (_means_padding, lambda token: token == tokenizer.eos_token, _ends_text, _is_reserved):
        found = next((token for token in unused if fits(token)), None)
        if found is not None:
            return found
    unknown = tokenizer.unk_token
    # Any character may stand in a text: a byte-level vocabulary, or one with bytes to fall back to, has them all.
    spelled = tokenizer("\U0001fae8\u0f3a\u2fd5\U00012000", add_special_tokens=False)["input_ids"]
    return str(unknown) if unknown in unused and tokenizer.unk_token_id not in spelled else None


def _means_padding(token: str) -> bool:
    """Return whether a token is made for padding text: not for that of images or sound."""
    return re.fullmatch(r"\W*(finetune_right_)?pad(ding)?(_id|_token)?\W*", token, re.IGNORECASE) is not None


def _ends_text(token: str) -> bool:
    return re.fullmatch(r"\W*end.?of.?(text|document)\W*|\W*eo[ds]\W*|</s>", token, re.IGNORECASE) is not None


def _is_reserved(token: str) -> bool:
    return re.search(r"reserved|unused|extra", token, re.IGNORECASE) is not None


def _after_response(tokenizer: Tokenizer) -> str:
    """Return what the template writes after the last response of a conversation."""
    after = ChatTemplate(tokenizer).closing
    if after is None:
        raise ModelError("tokenizer", "the chat template refuses a plain conversation", f"give another: {FLAG}")
    return after
