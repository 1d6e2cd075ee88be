"""Layouts of pairs that other training services and libraries define: OpenAI, ms-swift, axolotl, LLaMA-Factory."""

from __future__ import annotations

from headwater.data.layouts.fields import choice, kind, text
from headwater.data.layouts.layout import Broken, Draft, Fields, NoPreference
from headwater.data.layouts.messages import (
    answer,
    conversation,
    instructed,
    is_whole_conversation,
    messages,
    prompt,
    with_system,
)
from headwater.data.layouts.pairs import ALPACA, SIDES, answered, before_last, explicit, implicit, pair
from headwater.data.layouts.tools import with_tools
from headwater.data.preference import Message, Response

QUESTIONS = ("prompt", "question", "instruction", "query")
"""Columns that hold a prompt, in layouts where it has no fixed name."""


def openai(fields: Fields) -> Draft:
    """OpenAI preference fine-tuning: `input` with `messages` and `tools`, and lists of a message in the two outputs."""
    given = fields.get("input")
    if not isinstance(given, dict):
        raise Broken(f"input is {kind(given)}", 'expected an object, {"messages": […]}')
    asked = with_tools(with_system(fields, messages(given, "messages")), {"tools": given.get("tools")})
    return answered(fields, asked, ("preferred_output", "non_preferred_output"))


def swift(fields: Fields) -> Draft:
    """ms-swift: `messages` that end in the preferred answer, and `rejected_response` in its place."""
    before, chosen = conversation(fields, "messages")
    return pair(fields, with_system(fields, before), chosen, answer(fields, "rejected_response"))


def swift_messages(fields: Fields) -> Draft:
    """ms-swift: `messages` and `rejected_messages`, two whole conversations."""
    return implicit(fields, ("messages", "rejected_messages"))


def swift_query(fields: Fields) -> Draft:
    """ms-swift, query and response: `query`, `response`, `rejected_response`, and `system`, `history` where given."""
    chosen, rejected = (Response(text(fields, column)) for column in ("response", "rejected_response"))
    return pair(fields, instructed(fields, "query"), chosen, rejected)


def messages_prompt(fields: Fields) -> Draft:
    """Axolotl (chat_template.default), LLaMA-Factory (openai): `messages` up to the answer, and two answers.

    An answer is a message, a text, or a list that ends in it: of this message alone, or the whole conversation.
    """
    if all(is_whole_conversation(fields.get(side)) for side in SIDES):
        draft = implicit(fields)
        if before_last(draft) != prompt(fields, "messages"):
            raise NoPreference("prompts_differ")
        return draft
    return explicit(fields, "messages")


def chosen_messages(fields: Fields) -> Draft:
    """`chosen_messages` and `rejected_messages`: whole conversations, or answers behind a prompt of its own column."""
    sides = ("chosen_messages", "rejected_messages")
    question = question_of(fields, (*QUESTIONS, "messages", "conversations"))
    if not all(is_whole_conversation(fields.get(side)) for side in sides):
        if question is None:
            return implicit(fields, sides)
        return answered(fields, prompt(fields, question), sides)
    draft = implicit(fields, sides)
    if question is not None and not _ends_in(before_last(draft), prompt(fields, question)):
        raise NoPreference("prompts_differ")
    return draft


def accepted_rejected(fields: Fields) -> Draft:
    """`accepted` and `rejected`: answers behind a prompt of its own column, or whole conversations."""
    sides = ("accepted", "rejected")
    question = question_of(fields)
    if question is not None:
        return answered(fields, instructed(fields, question), sides)
    beside = [column for column in ALPACA if fields.get(column)]
    if beside:
        raise Broken(
            f"{beside[0]} without a column of the prompt", f"expected {' or '.join(QUESTIONS)}", code="CONTEXT"
        )
    return implicit(fields, sides)


def llamafactory_alpaca(fields: Fields) -> Draft:
    """LLaMA-Factory ranking, alpaca form: `instruction`, and `input`, `system`, `history` where they are given."""
    return answered(fields, instructed(fields))


def llamafactory_sharegpt(fields: Fields) -> Draft:
    """LLaMA-Factory ranking, sharegpt form: `conversations`, and one message each in `chosen` and `rejected`."""
    return answered(fields, prompt(fields, "conversations"))


def orca(fields: Fields) -> Draft:
    """Intel's orca_dpo_pairs, axolotl (chatml.intel, llama3.intel): `question`, and `system` where it is given."""
    return explicit(fields, "question")


_STATUS = ("unchanged", "swapped", "tie", None)


def distilabel_orca(fields: Fields) -> Draft:
    """Distilabel's Orca pairs, axolotl (chatml.icr): `input`, `chosen`, `rejected`; `status` may say that they tie."""
    if choice(fields, "status", *_STATUS) == "tie":
        raise NoPreference("tie")
    return explicit(fields, "input")


def question_of(fields: Fields, columns: tuple[str, ...] = QUESTIONS) -> str | None:
    """Return the column that holds the prompt. Errors: `Broken` where two of them do."""
    held = [column for column in columns if fields.get(column) not in (None, "", [])]
    if len(held) > 1:
        raise Broken(f"{' and '.join(held)} are both columns of a prompt", "expected one", code="CONTEXT")
    return next(iter(held), None)


def _ends_in(turns: tuple[Message, ...], asked: tuple[Message, ...]) -> bool:
    """Return whether a prompt is the whole of a conversation before its answer, or its last question."""
    return turns == asked or (len(asked) == 1 and turns[-1].content.split() == asked[0].content.split())
