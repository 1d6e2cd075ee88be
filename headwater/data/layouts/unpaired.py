"""Layouts with one response a row and a label, true for a desirable response; KTO trains on them."""

from __future__ import annotations

from dataclasses import replace

from headwater.data.layouts.fields import complete, label, number, text
from headwater.data.layouts.layout import Fields, UnpairedDraft
from headwater.data.layouts.messages import continued, conversation, instructed, prompt, with_system
from headwater.data.preference import Response


def unpaired(fields: Fields) -> UnpairedDraft:
    """TRL, unpaired preference: `prompt` and `completion`, texts or messages, and `label`.

    headwater writes this form too, with the response's `score`, and `complete` for whether it is complete.
    """
    given = continued(fields, "completion")
    response = replace(given, score=number(fields, "score"), complete=complete(fields, "complete"))
    return UnpairedDraft(prompt(fields, "prompt"), response, label(fields, "label"))


def llamafactory_kto(fields: Fields) -> UnpairedDraft:
    """LLaMA-Factory KTO, chat messages: `messages` that end in the answer, and `label`."""
    before, last = conversation(fields, "messages")
    return UnpairedDraft(with_system(fields, before), last, label(fields, "label"))


def llamafactory_kto_sharegpt(fields: Fields) -> UnpairedDraft:
    """LLaMA-Factory KTO, sharegpt form: `conversations` that end in the answer, and `kto_tag`."""
    before, last = conversation(fields, "conversations")
    return UnpairedDraft(with_system(fields, before), last, label(fields, "kto_tag"))


def llamafactory_kto_alpaca(fields: Fields) -> UnpairedDraft:
    """LLaMA-Factory KTO, alpaca form: `instruction` (and `input`, `system`, `history`), `output`, `kto_tag`."""
    return UnpairedDraft(instructed(fields), Response(text(fields, "output")), label(fields, "kto_tag"))


def beavertails(fields: Fields) -> UnpairedDraft:
    """BeaverTails (PKU): `prompt`, `response`, and `is_safe`, which is the label."""
    return UnpairedDraft(prompt(fields, "prompt"), Response(text(fields, "response")), label(fields, "is_safe"))
