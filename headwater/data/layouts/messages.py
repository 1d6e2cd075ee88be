"""From the fields of a row to its turns: lists of messages, prompts and answers, and the columns of Alpaca rows."""

from __future__ import annotations

import reprlib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from headwater.data.layouts import tools
from headwater.data.layouts.dialogues import begins_a_dialogue, dialogue_turns_of_prompt
from headwater.data.layouts.fields import kind, listed, optional_text, without_an_answer
from headwater.data.layouts.layout import Broken, Fields
from headwater.data.layouts.unread import SYSTEM_COLUMNS, check_keys, code_of_part
from headwater.data.preference import Message, Response, Role


class Tags(NamedTuple):
    """How a format spells messages: the keys of role and text, and its names for the roles."""

    role: str
    content: str
    roles: Mapping[str, Role]


CHAT = Tags("role", "content", {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"})
SHAREGPT = Tags(
    "from",
    "value",
    {"system": "system", "human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant"},
)


def message(item: Any, column: str) -> Message:
    """Return one message, `{"role", "content"}` or `{"from", "value"}`.

    Errors: `Broken`, also for a further key that changes its meaning (`unread.py`).
    """
    tags, extra = CHAT, ""
    if isinstance(item, dict):
        tags = SHAREGPT if "from" in item and "role" not in item else CHAT
        role, content = item.get(tags.role), item.get(tags.content)
        if len(item) > 2 or content is None:
            check_keys(item, column, tools.keys_of(role))
            extra = tools.extra(item, role, column)
            content = "" if content is None and "tool_calls" in extra else content
        if isinstance(content, list):
            content = _text_of_parts(content, column)
        if isinstance(content, str) and isinstance(role, str):
            if role in tags.roles:
                return Message(tags.roles[role], content, extra)
            if role in tools.CALLS:
                return tools.call(content, column)
            if role in tools.RESULTS:
                return Message("tool", content, extra)
    raise _no_message(item, column, tags)


def _text_of_parts(parts: list[Any], column: str) -> str:
    """Join the texts of `[{"type": "text", "text": …}]`, as chat templates do. Errors: `Broken` for other parts."""
    texts = []
    for part in parts:
        if isinstance(part, dict):
            check_keys(part, column)
        kind_of_part, content = (part.get("type"), part.get("text")) if isinstance(part, dict) else (None, part)
        if kind_of_part not in (None, "text", "input_text", "output_text") or not isinstance(content, str):
            found = kind(part) if kind_of_part is None else f"of the type {reprlib.repr(kind_of_part)}"
            raise Broken(
                f"{column} holds a part of a message that is {found}", "expected texts", code=code_of_part(kind_of_part)
            )
        texts.append(content)
    return "".join(texts)


def _no_message(item: Any, column: str, tags: Tags) -> Broken:
    if isinstance(item, dict) and isinstance(item.get(tags.content), str):
        found = f"{column} has the role {reprlib.repr(item.get(tags.role))}"
        return Broken(found, f"expected {' or '.join(tags.roles)}", code="ROLE")
    form = f'{{"{tags.role}": "{next(iter(tags.roles))}", "{tags.content}": "…"}}'
    return Broken(f"{column} holds {kind(item)}", f"expected messages like {form}")


def messages(fields: Fields, column: str) -> tuple[Message, ...]:
    """Return the messages of a column, at least one. Errors: `Broken`."""
    value = listed(fields, column)
    if not isinstance(value, list):
        raise Broken(f"{column} is {kind(value)}", "expected a list of messages")
    if not value:
        raise Broken(f"{column} is an empty list", "expected a list of messages")
    return tuple([message(item, column) for item in value])


def whole(fields: Fields, column: str) -> tuple[Message, ...]:
    """Return a conversation that ends in an answer. Errors: `Broken` for another last turn."""
    turns = messages(fields, column)
    if turns[-1].role != "assistant":
        raise without_an_answer(column, "expected the answer last")
    return turns


def conversation(fields: Fields, column: str) -> tuple[tuple[Message, ...], Response]:
    """Split a conversation before its last turn: (prompt, answer). Errors: `Broken` for another last turn."""
    *before, last = whole(fields, column)
    return tuple(before), Response(last.content, extra=last.extra)


def prompt(fields: Fields, column: str) -> tuple[Message, ...]:
    """Return a prompt, a text or a list of messages, with the text of the `system` column first. Errors: `Broken`."""
    return with_system(fields, _asked(fields, column))


def _asked(fields: Fields, column: str) -> tuple[Message, ...]:
    value = fields.get(column)
    if not isinstance(value, str):
        return _turns_of(fields, column)
    return dialogue_turns_of_prompt(value, column) if begins_a_dialogue(value) else (Message("user", value),)


def answer(fields: Fields, column: str) -> Response:
    """Return an answer: a text, or a list of one assistant message. Errors: `Broken`."""
    found = continued(fields, column)
    if found.before:
        raise _not_an_answer(column, found.before, "expected one assistant turn")
    return found


def text_of(fields: Fields, column: str) -> str:
    """Return the text of an answer that can be nothing else. Errors: `Broken`, also for a call of a tool."""
    return tools.check_text(answer(fields, column), column).text


def continued(fields: Fields, column: str) -> Response:
    """Return an answer with the turns of its continuation before it, mostly none.

    An answer is a text, a message, or a list of messages that begins and ends with an assistant turn. A continuation
    may begin with the result of a call that ends the prompt. Errors: `Broken`.
    """
    value = fields.get(column)
    if isinstance(value, str):
        return Response(value)
    *before, last = (message(value, column),) if isinstance(value, dict) else _turns_of(fields, column)
    begins, ends = ("assistant", "tool"), before[-1].role != "assistant" if before else True
    if last.role != "assistant" or not ends or (before and before[0].role not in begins):
        raise _not_an_answer(column, (*before, last), "expected one assistant turn, or turns from an answer to another")
    return Response(last.content, before=tuple(before), extra=last.extra)


def _not_an_answer(column: str, turns: Sequence[Message], expected: str) -> Broken:
    return Broken(f"{column} has {len(turns)} turns ending in {turns[-1].role}", expected, code="ROLE")


def _turns_of(fields: Fields, column: str) -> tuple[Message, ...]:
    value = fields.get(column)
    if not isinstance(value, list):
        raise Broken(f"{column} is {kind(value)}", "expected a text or a list of messages")
    return messages(fields, column)


def instructed(fields: Fields, question: str = "instruction") -> tuple[Message, ...]:
    r"""Return an Alpaca prompt: system, the [question, answer] pairs of `history`, instruction `\n` input."""
    asked = _asked(fields, question)
    given = optional_text(fields, "input")
    if given:
        if len(asked) != 1:
            raise Broken(f"input beside {question} of several turns", f"expected a text in {question}", code="CONTEXT")
        asked = (replace(asked[0], content="\n".join(part for part in (asked[0].content, given) if part)),)
    return with_system(fields, (*_history(fields), *asked))


def _history(fields: Fields) -> list[Message]:
    history = listed(fields, "history") or []
    if not isinstance(history, list):
        raise Broken(f"history is {kind(history)}", "expected [question, answer] pairs")
    turns: list[Message] = []
    for pair in history:
        if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(turn, str) for turn in pair):
            raise Broken(f"history holds {kind(pair)}", "expected [question, answer] pairs of texts")
        turns += (Message("user", pair[0]), Message("assistant", pair[1]))
    return turns


def with_system(fields: Fields, turns: tuple[Message, ...]) -> tuple[Message, ...]:
    """Return the turns behind the text of the `SYSTEM_COLUMNS`, where there is one.

    Errors: `Broken` for two system prompts.
    """
    system = _system(fields)
    if not system or turns[:1] == (Message("system", system),):
        return turns
    if any(turn.role == "system" for turn in turns):
        raise Broken("a system column and another system turn", "expected one system prompt", code="ROLE")
    return (Message("system", system), *turns)


def _system(fields: Fields) -> str:
    if fields.keys().isdisjoint(SYSTEM_COLUMNS):
        return ""
    given = dict.fromkeys(filter(None, (optional_text(fields, column) for column in SYSTEM_COLUMNS)))
    if len(given) > 1:
        named = " and ".join(column for column in SYSTEM_COLUMNS if fields.get(column))
        raise Broken(f"{named} hold different texts", "expected one system prompt", code="ROLE")
    return next(iter(given), "")


def is_whole_conversation(value: Any) -> bool:
    """Return whether a value is a list of messages that begins with a user turn, after a system turn or none.

    Any other list is an answer, or a continuation that begins with one.
    """
    roles = (item.get("role", item.get("from")) for item in value if isinstance(item, dict)) if _is_list(value) else ()
    first = next((role for role in roles if role not in ("system", "developer")), None)
    return first in ("user", "human")


def _is_list(value: Any) -> bool:
    return isinstance(value, list)
