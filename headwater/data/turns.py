"""The special tokens of a tokenizer and the end of an assistant turn: one definition for everything that needs them.

Training, truncation, saving, generation and the position at which a reward is read all ask here.
"""

from __future__ import annotations

from typing import NamedTuple

from jinja2 import TemplateError

from headwater.data.tokenizers import Tokenizer
from headwater.errors import ModelError, first_line

SENTINEL = "headwater sentinel 7f3a9c"
"""Stands for a response while a template is examined; plain enough that no template changes it."""


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

    Errors: `ModelError` where there is neither.
    """
    ends = [rest.find(token) + len(token) for token in special_tokens(tokenizer) if token in rest]
    if ends:
        return rest[: min(ends)]
    if tokenizer.eos_token is None:
        raise ModelError("tokenizer", "has neither an end-of-turn token in its template nor an EOS token")
    return str(tokenizer.eos_token)


def _after_response(tokenizer: Tokenizer) -> str:
    """Return what the template writes after the last response of a conversation."""
    messages = [{"role": "user", "content": "…"}, {"role": "assistant", "content": SENTINEL}]
    try:
        whole = tokenizer.apply_chat_template(messages, tokenize=False)
    except TemplateError as error:
        raise ModelError("tokenizer", f"the chat template refuses a conversation: {first_line(error)}") from error
    return str(whole.rpartition(SENTINEL)[2])
