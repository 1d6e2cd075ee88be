"""From the fields of a row to values of a known type; a value of any other type is `Broken`, and named."""

from __future__ import annotations

import re
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
    """Return the type of a value, for a message."""
    return "null" if value is None else f"a {type(value).__name__}"


def own_id(fields: Fields, name: str) -> str:
    """Return the id that the data gives a row, else `name`. The ids of data need not be unique."""
    given = fields.get("id")
    return name if given is None or given == "" else str(given)


def text(fields: Fields, column: str) -> str:
    """Return the text of a column. Errors: `Broken` for anything else."""
    value = fields.get(column)
    if not isinstance(value, str):
        raise Broken(f"{column} is {kind(value)}", "expected a text")
    return value


def optional_text(fields: Fields, column: str) -> str:
    """Return the text of a column, "" where it is absent or null. Errors: `Broken`."""
    return "" if fields.get(column) is None else text(fields, column)


def number(fields: Fields, column: str) -> float | None:
    """Return the finite number of a column, None where it is absent or null (in CSV: empty). Errors: `Broken`."""
    value = fields.get(column)
    if isinstance(value, str) and isinstance(fields, Cells):
        value = _number_of(value)
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Broken(f"{column} is {kind(value)}", "expected a number")
    # The comparison is false for nan too, and for an integer that no float can hold.
    if not abs(value) <= sys.float_info.max:
        raise Broken(f"{column} is {reprlib.repr(value)}", "expected a finite number, or null", code="SCORE")
    return float(value)  # so that 9 and 9.0 give the same record


def _number_of(value: str) -> Any:
    """Return the number that a text spells, None for an empty one, else the text."""
    if not value.strip():
        return None
    try:
        return float(value) if "_" not in value else value
    except ValueError:
        return value


def boolean(fields: Fields, column: str) -> bool:
    """Return true or false, in CSV also as pandas writes it (`True`). Errors: `Broken`, also for 1 and 0."""
    value = fields.get(column)
    if isinstance(value, str) and isinstance(fields, Cells):
        value = _TRUTH.get(value.strip().lower(), value)
    if not isinstance(value, bool):
        raise Broken(f"{column} is {kind(value)}", "expected true or false")
    return value


_TRUTH = {"true": True, "false": False}


def label(fields: Fields, column: str) -> bool:
    """Return whether a response is desirable: true or false, or 1 or 0. Errors: `Broken`."""
    value = fields.get(column)
    if isinstance(value, str) and isinstance(fields, Cells):
        value = _number_of(value)
    if value in (0, 1):
        return bool(value)
    return boolean(fields, column)


def complete(fields: Fields, column: str) -> bool:
    """Return whether a response is complete, which it is where the column is absent or null (in CSV: empty)."""
    nothing = (None, "") if isinstance(fields, Cells) else (None,)
    return fields.get(column) in nothing or boolean(fields, column)


def choice(fields: Fields, column: str, *choices: T) -> T:
    """Return the one of `choices` that a column holds, as itself or as its text (2 or "2"). Errors: `Broken`."""
    value = fields.get(column)
    for known in choices:
        if not isinstance(value, bool) and (value in (known, str(known)) or _is_number(value, known)):
            return known
    found = "null" if value is None else reprlib.repr(value)
    raise Broken(f"{column} is {found}", f"expected {' or '.join(map(str, choices))}")


def listed(fields: Fields, column: str) -> Any:
    """Return the value of a column that should hold a list; a list written as text (JSON) is parsed."""
    value = fields.get(column)
    found = parsed(value) if isinstance(value, str) else None
    return value if found is None else found


def _is_number(value: Any, known: Any) -> bool:
    """Return whether a text is a certain integer as pandas may write it: `1.0`."""
    return isinstance(value, str) and isinstance(known, int) and _number_of(value) == known


def items(fields: Fields, column: str) -> list[dict[str, Any]]:
    """Return the list of objects of a column. Errors: `Broken`."""
    value = listed(fields, column)
    if not isinstance(value, list):
        raise Broken(f"{column} is {kind(value)}", "expected a list of objects")
    for item in value:
        if not isinstance(item, dict):
            raise Broken(f"{column} holds {kind(item)}", "expected a list of objects")
    return value


# --- conversations as lists of messages ---------------------------------------------------------------------------


class Tags(NamedTuple):
    """How a format spells messages: the keys of role and text, and its names for the roles."""

    role: str
    content: str
    roles: Mapping[str, Role]


CHAT = Tags("role", "content", {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"})
SHAREGPT = Tags("from", "value", {"system": "system", "human": "user", "gpt": "assistant"})


def message(item: Any, column: str, tags: Tags = CHAT) -> Message:
    """Return one message. Errors: `Broken`, also for a further key that changes its meaning (`unread.py`)."""
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
    """Return the messages of a column, at least one. Errors: `Broken`."""
    value = listed(fields, column)
    if not isinstance(value, list):
        raise Broken(f"{column} is {kind(value)}", "expected a list of messages")
    if not value:
        raise Broken(f"{column} is an empty list", "expected a list of messages")
    return tuple([message(item, column, tags) for item in value])


def conversation(fields: Fields, column: str, tags: Tags = CHAT) -> tuple[tuple[Message, ...], str]:
    """Split a conversation before its last turn: (prompt, answer). Errors: `Broken` for another last turn."""
    turns = messages(fields, column, tags)
    if turns[-1].role != "assistant":
        raise _without_an_answer(column, "expected the answer last")
    return turns[:-1], turns[-1].content


def _without_an_answer(column: str, expected: str) -> Broken:
    return Broken(f"{column} does not end in an assistant turn", expected, code="NO_ASSISTANT_TURN")


def prompt(fields: Fields, column: str) -> tuple[Message, ...]:
    """Return a prompt, a text or a list of messages, with the text of the `system` column first. Errors: `Broken`."""
    return with_system(fields, _asked(fields, column))


def _asked(fields: Fields, column: str) -> tuple[Message, ...]:
    value = fields.get(column)
    if not isinstance(value, str):
        return _turns_of(fields, column)
    return dialogue_turns_of_prompt(value, column) if begins_a_dialogue(value) else (Message("user", value),)


def answer(fields: Fields, column: str) -> str:
    """Return an answer: a text, or a list of one assistant message. Errors: `Broken`."""
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
    r"""Return an Alpaca prompt: system, the [question, answer] pairs of `history`, instruction `\n` input."""
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
    """Return the turns behind the text of the `system` column, where there is one. Errors: `Broken` for two of them."""
    if fields.get("system") is None:
        return turns
    system = text(fields, "system")
    if not system or turns[:1] == (Message("system", system),):
        return turns
    if any(turn.role == "system" for turn in turns):
        raise Broken("a system column and another system turn", "expected one system prompt", code="ROLE")
    return (Message("system", system), *turns)


def is_whole_conversation(value: Any) -> bool:
    """Return whether a value is a list of messages with a user turn, not an answer alone."""
    return isinstance(value, list) and any(isinstance(item, dict) and item.get("role") == "user" for item in value)


# --- conversations as one text (HH-RLHF, Nectar) ------------------------------------------------------------------

_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_TURN = re.compile(r"\n\n(Human|Assistant):")
_SPEAKERS: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}
DIALOGUE = r"expected \n\nHuman: … \n\nAssistant: …"


def dialogue(fields: Fields, column: str) -> tuple[str, str]:
    r"""Split a text of `\n\nHuman:` and `\n\nAssistant:` turns at its last: (prompt, answer). Errors: `Broken`."""
    before, marker, answer = text(fields, column).rpartition(_ASSISTANT)
    if not marker or _HUMAN in answer:
        raise _without_an_answer(column, DIALOGUE)
    return before, answer.strip()


def dialogue_turns(dialogue: str, column: str) -> tuple[Message, ...]:
    r"""Return the turns of a text with `\n\nHuman:` and `\n\nAssistant:`. Errors: `Broken` for text before them."""
    start, *parts = _TURN.split(dialogue)
    if start.strip():
        raise Broken(f"{column} has text before its first turn", DIALOGUE)
    turns = zip(parts[::2], parts[1::2], strict=True)
    return tuple([Message(_SPEAKERS[speaker], content.strip()) for speaker, content in turns])


def begins_a_dialogue(value: Any) -> bool:
    r"""Return whether a prompt is a text with the markers of HH-RLHF, from its start on."""
    if not isinstance(value, str) or not value.lstrip().startswith("Human:"):
        return False
    return value.startswith(_HUMAN) or _ASSISTANT in value


def dialogue_turns_of_prompt(value: str, column: str) -> tuple[Message, ...]:
    r"""Return the turns of a prompt with `\n\nHuman:` and `\n\nAssistant:`; the marker of the answer may end it."""
    turns = dialogue_turns("\n\n" + value.lstrip(), column)
    return turns[:-1] if turns[-1] == Message("assistant", "") else turns


def is_dialogue(value: Any) -> bool:
    """Return whether a value is a text with the markers of HH-RLHF."""
    return isinstance(value, str) and _HUMAN in value
