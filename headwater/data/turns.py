"""The special tokens of a tokenizer and the end of an assistant turn: one definition for everything that needs them.

Training, truncation, saving, generation and the position at which a reward is read all ask here.
"""

from __future__ import annotations

from typing import NamedTuple

from headwater.data.templates import FLAG, ChatTemplate
from headwater.data.tokenizers import Tokenizer
from headwater.errors import ModelError


class TurnEnd(NamedTuple):
    """How the chat template of a tokenizer ends a complete assistant turn."""

    text: str
    """What the template writes after the response, through the end token."""
    token: int
    """Id of the end token: the last token of `text`."""
    stop_ids: tuple[int, ...]
    """Ids that end a response when they are generated, in rising order: the end token and the tokenizer's EOS token."""


def special_tokens(tokenizer: Tokenizer) -> tuple[str, ...]:
    """Return the texts of all control tokens, also of those that only `added_tokens_decoder` names."""
    added = (token.content for token in tokenizer.added_tokens_decoder.values() if token.special)
    return tuple(dict.fromkeys((*tokenizer.all_special_tokens, *added)))


def turn_end(tokenizer: Tokenizer) -> TurnEnd:
    """Return how a complete assistant turn ends by the tokenizer's chat template.

    Errors: `ModelError` where neither the template nor the tokenizer names an end.
    """
    text = end_text(_after_response(tokenizer), tokenizer)
    ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    stop = {ids[-1], tokenizer.eos_token_id} - {None}
    return TurnEnd(text, ids[-1], tuple(sorted(stop)))


def end_text(rest: str, tokenizer: Tokenizer) -> str:
    """Return what of `rest`, the text after a response, ends the turn: through its first control token; else EOS.

    Control tokens that follow at once belong to it where EOS is among them (`<|END_RESPONSE|><|END_OF_TURN_TOKEN|>`).
    Errors: `ModelError` where there is neither.
    """
    special = special_tokens(tokenizer)
    ends = [rest.find(token) + len(token) for token in special if token in rest]
    if ends:
        end = min(ends)
        first = end
        while token := next((token for token in special if rest.startswith(token, end)), None):
            end += len(token)
            if token == tokenizer.eos_token:
                return rest[:end]
        return rest[:first]
    if tokenizer.eos_token is None:
        raise ModelError("tokenizer", "has neither an end-of-turn token in its template nor an EOS token")
    return str(tokenizer.eos_token)


def _after_response(tokenizer: Tokenizer) -> str:
    """Return what the template writes after the last response of a conversation."""
    after = ChatTemplate(tokenizer).closing
    if after is None:
        raise ModelError("tokenizer", "the chat template refuses a plain conversation", f"give another: {FLAG}")
    return after
