r"""Conversations as one text, with `\n\nHuman:` and `\n\nAssistant:` before the turns (HH-RLHF, Nectar)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from headwater.data.layouts.fields import text, without_an_answer
from headwater.data.layouts.layout import Broken, Fields
from headwater.data.preference import Message, Role

_HUMAN, _ASSISTANT = "\n\nHuman:", "\n\nAssistant:"
_TURN = re.compile(r"\n\n(Human|Assistant):")
_SPEAKERS: dict[str, Role] = {"Human": "user", "Assistant": "assistant"}
DIALOGUE = r"expected \n\nHuman: … \n\nAssistant: …"


def dialogue(fields: Fields, column: str) -> tuple[str, str]:
    r"""Split a text of `\n\nHuman:` and `\n\nAssistant:` turns at its last: (prompt, answer). Errors: `Broken`."""
    before, marker, answer = text(fields, column).rpartition(_ASSISTANT)
    if not marker or _HUMAN in answer:
        raise without_an_answer(column, DIALOGUE)
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


MARKERS_KEPT = "markers_kept_as_text"
"""Name of the rule by which a marker inside of a turn stays text, with the row counts."""


def has_markers(turns: Iterable[Message]) -> bool:
    r"""Return whether a turn of a prompt holds a marker of HH-RLHF, which is then ordinary text."""
    return any(_HUMAN in turn.content or _ASSISTANT in turn.content for turn in turns)
