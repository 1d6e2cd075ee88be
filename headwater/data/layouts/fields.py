"""From the fields of a row to values of a known type. Whatever else stands there is `Broken`, and named."""

from __future__ import annotations

import reprlib
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple, TypeVar

from headwater.data.layouts.json_text import parsed
from headwater.data.layouts.layout import Broken, Cells, Fields
from headwater.data.layouts.unread import TOOL_ROLES, check_keys, code_of_part
from headwater.data.preference import Message, Role

T = TypeVar("T")


def kind(value: Any) -> str:
    """Name the type of a value, for a message."""
    return "null" if value is None else f"a {type(value).__name__}"


def own_id(fields: Fields, name: str) -> str:
    """Return what the data calls a row, or `name` where it does not say. Several rows may be called alike."""
    given = fields.get("id")
    return name if given is None or given == "" else str(given)


def text(fields: Fields, column: str) -> str:
    """Return a text. Errors: `Broken` for anything else."""
    value = fields.get(column)
    if not isinstance(value, str):
        raise Broken(f"{column} is {kind(value)}", "expected a text")
    return value


def optional_text(fields: Fields, column: str) -> str:
    """Return a text, or "" where the column is absent or null."""
    return "" if fields.get(column) is None else text(fields, column)


def number(fields: Fields, column: str) -> float | None:
    """Return a finite number, or None where the column is absent or null (a cell: empty)."""
    value = fields.get(column)
    if isinstance(value, str) and isinstance(fields, Cells):
        value = _number_of(value)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Broken(f"{column} is {kind(value)}", "expected a number")
    # Also false for nan, and for a whole number that no float can hold.
    if not abs(value) <= sys.float_info.max:
        raise Broken(f"{column} is {reprlib.repr(value)}", "expected a finite number, or null", code="SCORE")
    return float(value)  # 9 and 9.0 are one number, whatever file they come from


def _number_of(value: str) -> Any:
    """Return the number that a text is, None for an empty one, or the text."""
    if not value.strip():
        return None
    try:
        return float(value) if "_" not in value else value
    except ValueError:
        return value


def boolean(fields: Fields, column: str) -> bool:
    """Return true or false, of a cell also as pandas writes it (`True`); 1 and 0 are neither."""
    value = fields.get(column)
    if isinstance(value, str) and isinstance(fields, Cells):
        value = _TRUTH.get(value.strip().lower(), value)
    if not isinstance(value, bool):
        raise Broken(f"{column} is {kind(value)}", "expected true or false")
    return value


_TRUTH = {"true": True, "false": False}


def label(fields: Fields, column: str) -> bool:
    """Return whether a response is a desirable one: true or false, or 1 or 0."""
    value = fields.get(column)
    if isinstance(value, str) and isinstance(fields, Cells):
        value = _number_of(value)
    if value in (0, 1):
        return bool(value)
    return boolean(fields, column)


def complete(fields: Fields, column: str) -> bool:
    """Say whether a response is whole: it is where the column is absent or null (a cell: empty)."""
    nothing = (None, "") if isinstance(fields, Cells) else (None,)
    return fields.get(column) in nothing or boolean(fields, column)


def choice(fields: Fields, column: str, *choices: T) -> T:
    """Return the one of `choices` that stands in a column, as itself or as its text (2 or "2")."""
    value = fields.get(column)
    for known in choices:
        if not isinstance(value, bool) and (value in (known, str(known)) or _is_number(value, known)):
            return known
    found = "null" if value is None else reprlib.repr(value)
    raise Broken(f"{column} is {found}", f"expected {' or '.join(map(str, choices))}")


def listed(fields: Fields, column: str) -> Any:
    """Return what stands in a column that holds a list, which may be written as text (JSON)."""
    value = fields.get(column)
    return parsed(value) if isinstance(value, str) and parsed(value) is not None else value


def _is_number(value: Any, known: Any) -> bool:
    """Say whether a text is a whole number as pandas may write it: `1.0`."""
    return isinstance(value, str) and isinstance(known, int) and _number_of(value) == known


def items(fields: Fields, column: str) -> list[dict[str, Any]]:
    """Return a list of objects."""
    value = listed(fields, column)
    if not isinstance(value, list):
        raise Broken(f"{column} is {kind(value)}", "expected a list of objects")
    for item in value:
        if not isinstance(item, dict):
            raise Broken(f"{column} holds {kind(item)}", "expected a list of objects")
    return value


# --- conversations as lists of messages ---------------------------------------------------------------------------


class Tags(NamedTuple):
    """How messages are spelled: the keys of speaker and text, and what the speakers are called."""

    role: str
    content: str
    roles: Mapping[str, Role]


CHAT = Tags("role", "content", {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"})
SHAREGPT = Tags("from", "value", {"system": "system", "human": "user", "gpt": "assistant"})


def message(item: Any, column: str, tags: Tags = CHAT) -> Message:
    """Read one message. Errors: `Broken`, also for what changes its meaning beside role and content (`unread.py`)."""
    if isinstance(item, dict):
        role, content = item.get(tags.role), item.get(tags.content)
        if len(item) > 2 or content is None:
            check_keys(item, column)
        if isinstance(content, list):
            content = _text_of_parts(content, column)
        if isinstance(content, str) and isinstance(role, str) and role in tags.roles:
            return Message(tags.roles[role], content)
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
        role = item.get(tags.role)
        found = f"{column} has the role {reprlib.repr(role)}"
        code = "TOOLS" if isinstance(role, str) and role in TOOL_ROLES else "ROLE"
        return Broken(found, f"expected {' or '.join(tags.roles)}", code=code)
    form = f'{{"{tags.role}": "{next(iter(tags.roles))}", "{tags.content}": "…"}}'
    return Broken(f"{column} holds {kind(item)}", f"expected messages like {form}")


def messages(fields: Fields, column: str, tags: Tags = CHAT) -> tuple[Message, ...]:
    """Read a list of at least one message."""
    value = listed(fields, column)
    if not isinstance(value, list):
        raise Broken(f"{column} is {kind(value)}", "expected a list of messages")
    if not value:
        raise Broken(f"{column} is an empty list", "expected a list of messages")
    return tuple([message(item, column, tags) for item in value])


def conversation(fields: Fields, column: str, tags: Tags = CHAT) -> tuple[tuple[Message, ...], str]:
    """Split a conversation at its last turn, which must be the assistant's: (what came before, the answer)."""
    *before, last = messages(fields, column, tags)
    if last.role != "assistant":
        raise _without_an_answer(column, "expected the answer last")
    return tuple(before), last.content


def _without_an_answer(column: str, expected: str) -> Broken:
    return Broken(f"{column} does not end in an assistant turn", expected, code="NO_ASSISTANT_TURN")


def prompt(fields: Fields, column: str) -> tuple[Message, ...]:
    """Read a prompt, a text or a list of messages, after the text of the `system` column where there is one."""
    return with_system(fields, _asked(fields, column))


def _asked(fields: Fields, column: str) -> tuple[Message, ...]:
    value = fields.get(column)
    if not isinstance(value, str):
        return _turns_of(fields, column)
    return dialogue_turns_of_prompt(value, column) if begins_a_dialogue(value) else (Message("user", value),)


def answer(fields: Fields, column: str) -> str:
    """Read an answer: a text, or a list of one assistant message."""
    value = fields.get(column)
    if isinstance(value, str):
        return value
    turns = (message(value, column),) if isinstance(value, dict) else _turns_of(fields, column)
    if len(turns) != 1 or turns[0].role != "assistant":
        raise Broken(
            f"{column} has {len(turns)} turns ending in {turns[-1].role}", "expected one assistant turn", code="ROLE"
        )
    return turns[0].content


def _turns_of(fields: Fields, column: str) -> tuple[Message, ...]:
    value = fields.get(column)
    if not isinstance(value, list):
        raise Broken(f"{column} is {kind(value)}", "expected a text or a list of messages")
    return messages(fields, column)


def instructed(fields: Fields) -> tuple[Message, ...]:
    r"""Read an alpaca prompt: system, the [question, answer] pairs of `history`, instruction `\n` input."""
    asked = _asked(fields, "instruction")
    given = optional_text(fields, "input")
    if given:
        if len(asked) != 1:
            raise Broken(
                "input beside an instruction of several turns", "expected a text in instruction", code="CONTEXT"
            )
        asked = (Message("user", "\n".join(part for part in (asked[0].content, given) if part)),)
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
    """Put the text of the `system` column, where there is one, before the turns."""
    if fields.get("system") is None:
        return turns
    system = text(fields, "system")
    if not system or turns[:1] == (Message("system", system),):
        return turns
    if any(turn.role == "system" for turn in turns):
        raise Broken("a system column and another system turn", "expected one system prompt", code="ROLE")
    return (Message("system", system), *turns)


def is_whole_conversation(value: Any) -> bool:
    """Say whether a value is a list of messages that holds the question, not the answer alone."""
    return isinstance(value, list) and any(isinstance(item, dict) and item.get("role") == "user" for item in value)


# --- conversations as one text (HH-RLHF, Nectar) ------------------------------------------------------------------

_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
DIALOGUE = r"expected \n\nHuman: … \n\nAssistant: …"


def dialogue(fields: Fields, column: str) -> tuple[str, str]:
    r"""Split a text of `\n\nHuman:` and `\n\nAssistant:` turns at its last: (what came before, the answer)."""
    before, marker, answer = text(fields, column).rpartition(_ASSISTANT)
    if not marker or _HUMAN in answer:
        raise _without_an_answer(column, DIALOGUE)
    return before, answer.strip()


def dialogue_turns(dialogue: str, column: str) -> tuple[Message, ...]:
    r"""Read the turns of a text with `\n\nHuman:` and `\n\nAssistant:`; nothing may stand before the first."""
    start, *parts = dialogue.split(_HUMAN)
    start, *answers = start.split(_ASSISTANT)
    if start.strip():
        raise Broken(f"{column} has text before its first turn", DIALOGUE)
    turns = [Message("assistant", answer.strip()) for answer in answers]
    for part in parts:
        question, *answers = part.split(_ASSISTANT)
        turns.append(Message("user", question.strip()))
        for answer in answers:
            turns.append(Message("assistant", answer.strip()))
    return tuple(turns)


def begins_a_dialogue(value: Any) -> bool:
    r"""Say whether a prompt is a text with the markers of HH-RLHF, from its beginning on."""
    if not isinstance(value, str) or not value.lstrip().startswith("Human:"):
        return False
    return value.startswith(_HUMAN) or _ASSISTANT in value


def dialogue_turns_of_prompt(value: str, column: str) -> tuple[Message, ...]:
    r"""Read the turns of a prompt with `\n\nHuman:` and `\n\nAssistant:`; the marker of the answer may end it."""
    turns = dialogue_turns("\n\n" + value.lstrip(), column)
    return turns[:-1] if turns[-1] == Message("assistant", "") else turns


def is_dialogue(value: Any) -> bool:
    """Say whether a value is a text with the markers of HH-RLHF."""
    return isinstance(value, str) and "\n\nHuman:" in value
