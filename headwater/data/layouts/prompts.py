"""Rows that hold a prompt and no response: their columns, and the turns of a row."""

from __future__ import annotations

from typing import Any

from headwater.data.layouts.fields import items, listed
from headwater.data.layouts.layout import Broken, Fields
from headwater.data.layouts.messages import instructed, prompt
from headwater.data.layouts.pairs import ALPACA
from headwater.data.layouts.table import LAYOUTS
from headwater.data.layouts.tools import RESULTS
from headwater.data.layouts.trainers import QUESTIONS
from headwater.data.layouts.unread import SYSTEM_COLUMNS, Columns
from headwater.data.preference import Message

COLUMNS = (*QUESTIONS, "messages", "conversations", "turns")
"""Columns of a prompt, in order of preference."""
ORIGINS = ("category", "cluster", "subcategory")
"""Columns with the origin of a prompt (Arena-Hard)."""
READS = Columns(("id",), (*SYSTEM_COLUMNS, *ALPACA, *ORIGINS))
"""What is read of such rows beside the column of the prompt."""
_DEMONSTRATIONS = ("messages", "conversations")


def column_of(fields: Fields) -> str | None:
    """Return the column of the prompt of a row without responses; None for a row with responses or without a prompt."""
    fitting = [name for name, layout in LAYOUTS.items() if layout.fits(fields)]
    column = next((column for column in COLUMNS if fields.get(column) is not None), None)
    if not fitting:
        return column
    ends = column in _DEMONSTRATIONS and set(fitting) <= set(_DEMONSTRATIONS) and _ends_in_question(fields[column])
    return column if ends else None


def _ends_in_question(turns: Any) -> bool:
    last = turns[-1] if isinstance(turns, list) and turns else None
    return isinstance(last, dict) and last.get("role", last.get("from")) in ("user", "human", *RESULTS)


def turns_of(fields: Fields, column: str) -> tuple[Message, ...]:
    """Return the prompt in a column, which ends with the turn of a user, or a tool's result. Errors: `Broken`."""
    turns = _turns_of(fields, column)
    if turns[-1].role not in ("user", "tool"):
        raise Broken(f"{column} ends with the turn of the {turns[-1].role}", "expected a user's, or a tool's result")
    if not turns[-1].content.strip():
        raise Broken(f"{column} is empty", "expected a question")
    return turns


def _turns_of(fields: Fields, column: str) -> tuple[Message, ...]:
    if column != "turns":
        return instructed(fields, column)
    turns = listed(fields, column)
    if not (isinstance(turns, list) and all(isinstance(turn, str) for turn in turns)):
        turns = [turn.get("content") for turn in items(fields, column)]
    if len(turns) != 1:
        raise Broken(f"turns holds {len(turns)}", "expected one: a second turn needs an answer to the first")
    return prompt({**fields, column: turns[0]}, column)
