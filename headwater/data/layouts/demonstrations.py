"""Layouts with one response a row and no label: demonstrations, on which `train-sft` trains.

They are read as desirable responses.
"""

from __future__ import annotations

from headwater.data.layouts.continuations import from_first_answer
from headwater.data.layouts.fields import complete, text
from headwater.data.layouts.layout import Fields, UnpairedDraft
from headwater.data.layouts.messages import continued, instructed, prompt, whole, with_system
from headwater.data.preference import Message, Response


def messages(fields: Fields) -> UnpairedDraft:
    """Chat messages that end in the answer (OpenAI, ms-swift, axolotl, UltraChat): `messages`."""
    return _shown(*_before(fields, "messages"))


def conversations(fields: Fields) -> UnpairedDraft:
    """ShareGPT: `conversations` that end in the answer."""
    return _shown(*_before(fields, "conversations"))


def _before(fields: Fields, column: str) -> tuple[tuple[Message, ...], Response]:
    before, response = from_first_answer(whole(fields, column))
    return with_system(fields, before), response


def alpaca(fields: Fields) -> UnpairedDraft:
    """Alpaca: `instruction` (and `input`, `system`, `history`) and `output`."""
    return UnpairedDraft(instructed(fields), Response(text(fields, "output"), None, complete(fields, "complete")), True)


def query_response(fields: Fields) -> UnpairedDraft:
    """ms-swift: `query` (and `system`, `history`) and `response`."""
    return _shown(instructed(fields, "query"), Response(text(fields, "response")))


def prompt_completion(fields: Fields) -> UnpairedDraft:
    """TRL, prompt and completion: texts or messages."""
    return _continued(fields, "completion")


def prompt_response(fields: Fields) -> UnpairedDraft:
    """`prompt` and `response`: texts or messages."""
    return _continued(fields, "response")


def _continued(fields: Fields, column: str) -> UnpairedDraft:
    return _shown(prompt(fields, "prompt"), continued(fields, column))


def _shown(asked: tuple[Message, ...], response: Response) -> UnpairedDraft:
    return UnpairedDraft(asked, response, True)
