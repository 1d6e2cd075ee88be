"""Columns and keys that a layout does not read: named with the row counts, or refused where they change the meaning.

A layout names the columns that it reads (`Layout.columns`, `Layout.reads`). A row with a value in any other column is
`Broken` if the column is one of `COLUMNS`, because training on the row without it would train on something else. All
others but the `HARMLESS` ones are named: "not read: votes". For the keys of messages, `KEYS` does the same.
"""

from __future__ import annotations

import bisect
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from headwater.data.layouts.layout import MESSAGE_KEYS, Broken, Cells, Fields

HARMLESS = frozenset(
    (
        *("id", "ids", "_id", "uid", "uuid", "idx", "index", "row_id", "prompt_id", "question_id", "conversation_id"),
        *("message_id", "parent_id", "message_tree_id", "__index_level_0__"),
        *("source", "dataset", "dataset_name", "datasplit", "subset", "split", "metadata"),
        *("model", "model_a", "model_b"),
    )
)
"""Columns that identify a row or its origin."""


class Meaning(NamedTuple):
    """Why a field cannot be skipped silently."""

    code: str
    """Quarantine code of the row."""
    holds: str
    """What the field holds, for the message."""


_TOOLS = Meaning("TOOLS", "tools, or calls of them")
_MEDIA = Meaning("MEDIA", "images, sound or video")
_REASONING = Meaning("REASONING", "reasoning before the answer")
_CONTEXT = Meaning("CONTEXT", "text that belongs to the prompt")
_WEIGHT = Meaning("WEIGHT", "what the row weighs in training")
_NAME = Meaning("NAME", "the name of a speaker")

SYSTEM_COLUMNS = ("system", "system_prompt", "system_message")
"""Columns with the text of the system turn, which all layouts read."""
_OF_ALL = {
    **dict.fromkeys(("tools", "tool_calls", "tool_call", "function_call", "functions", "tool_choice"), _TOOLS),
    **dict.fromkeys(("images", "image", "videos", "video", "audios", "audio", "image_url", "input_audio"), _MEDIA),
    **dict.fromkeys(("reasoning_content", "thinking_content"), _REASONING),
    **dict.fromkeys(("weight", "sample_weight"), _WEIGHT),
}
COLUMNS: Mapping[str, Meaning] = _OF_ALL | {
    **dict.fromkeys(("input", "context", "contexts", "history", "chat_history", "documents"), _CONTEXT),
    **dict.fromkeys((*SYSTEM_COLUMNS, "developer"), _CONTEXT),
    "margin": Meaning("WEIGHT", "by how much the chosen response is better"),
    "chat_template_kwargs": Meaning("CONTEXT", "settings of the chat template"),
}
"""Columns that change what a row means, for layouts that do not read them."""
KEYS: Mapping[str, Meaning] = _OF_ALL | {
    **dict.fromkeys(("reasoning", "thinking", "reasoning_details", "thoughts"), _REASONING),
    **dict.fromkeys(("tool_call_id", "tool_response", "tool_responses", "tool_results"), _TOOLS),
    **dict.fromkeys(("name", "recipient"), _NAME),
    "refusal": Meaning("MALFORMED", "a refusal in place of the content"),
}
"""Keys of a message, other than role and content, that change what it means."""


def code_of_part(kind: Any) -> str:
    """Return the quarantine code for a message with a part that is no text, by the type of the part."""
    words = {"MEDIA": ("image", "video", "audio"), "TOOLS": ("tool", "function"), "REASONING": ("think", "reason")}
    return next((code for code, some in words.items() if any(word in str(kind) for word in some)), "MALFORMED")


def is_empty(value: Any) -> bool:
    """Return whether a field holds nothing."""
    return value is None or value == "" or (type(value) is list and not value)


def is_neutral(name: str, value: Any) -> bool:
    """Return whether a field that could change the meaning of a row does not: no tools, a weight of 1."""
    if isinstance(value, dict):
        return all(is_neutral(name, item) for item in value.values())
    if isinstance(value, list):
        return all(is_neutral(name, item) for item in value)
    if isinstance(value, str):
        if name in _CHOICES and value.strip() == "auto":
            return True
        return value.strip() in ("", "[]", "{}", "null", "None") or (name in _WEIGHTS and value.strip() in ("1", "1.0"))
    return value is None or (name in _WEIGHTS and value == 1)


_CHOICES = ("tool_choice", "function_call")
"""Settings of OpenAI's requests; `auto` leaves it to the model whether it calls a tool."""
_SCHEMAS = ("tools", "functions")
"""Fields whose content is passed on as it is, with keys of any name."""
_WEIGHTS = [name for name, meaning in _OF_ALL.items() if meaning is _WEIGHT]


def check_keys(item: Mapping[str, Any], place: str, read: Collection[str] = ()) -> None:
    """Errors: `Broken` for a message with a key that changes its meaning and is not among those that are `read`."""
    for key, value in item.items():
        if key in KEYS and key not in read and not is_neutral(key, value):
            raise _refusal(f"{key} in {place}", key, KEYS[key])


def _refusal(found: str, name: str, meaning: Meaning) -> Broken:
    return Broken(
        f"{found} changes what the row means ({meaning.holds})",
        "this layout does not read it",
        f"leave it out of the data, or pass it over with --ignore-columns {name}",
        code=meaning.code,
    )


class Reader(Protocol):
    """What reads rows: a layout, or `Columns` of rows that have none."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Columns that are read."""

    @property
    def reads(self) -> tuple[str, ...]:
        """Optional columns that are read as well."""

    @property
    def items(self) -> tuple[str, ...]:
        """Keys that are read of the objects in a column."""

    @property
    def skips(self) -> tuple[str, ...]:
        """Columns that are named and not refused, whatever their name."""


class Columns(NamedTuple):
    """The columns that are read of rows without a layout."""

    columns: tuple[str, ...]
    reads: tuple[str, ...] = ()
    items: tuple[str, ...] = MESSAGE_KEYS
    skips: tuple[str, ...] = ()


class Unread:
    """Finds the columns and keys that the rows of a layout hold and the layout does not read."""

    def __init__(self, layout: Reader, ignored: Iterable[str] = (), also_read: Iterable[str] = ()) -> None:
        self.reads = frozenset((*layout.columns, *layout.reads, *also_read, *HARMLESS)).difference(layout.skips)
        self._skips = frozenset(layout.skips)
        self._keys = frozenset(layout.items)
        self._ignored = frozenset(ignored)
        self.names: list[str] = []
        """Columns and keys that hold values and are not read, in alphabetical order: `votes`, `prompt[].name`."""

    def check(self, fields: Fields, left_out: Iterable[tuple[str, Any]] = ()) -> Fields:
        """Add what is not read of a row to `names`, and return its fields without the ignored ones.

        `left_out` is what `--columns` does not name, by its place (`data.votes`). Errors: `Broken` for what is not
        read and changes what the row means.
        """
        problem = None
        for column, value in fields.items():
            if column not in self.reads:
                problem = self._unread(column, value) or problem
            elif (type(value) is list or type(value) is dict) and column not in HARMLESS and column not in _SCHEMAS:
                problem = self._in_objects(column, value) or problem
        for column, value in left_out:
            problem = self._unread(column, value) or problem
        if problem:
            raise problem
        return self._without_ignored(fields) if self._ignored else fields

    def _add(self, name: str) -> None:
        if name not in self.names:
            bisect.insort(self.names, name)

    def _unread(self, column: str, value: Any) -> Broken | None:
        """Name a column, or a key at a place inside of one. Errors are returned: the other columns are named first."""
        name = column.rpartition(".")[2]
        if is_empty(value) or name in HARMLESS:
            return None
        if name in COLUMNS and self._ignored.isdisjoint((column, name)) and column not in self._skips:
            return None if is_neutral(name, value) else _refusal(column, name, COLUMNS[name])
        self._add(column)
        return None

    def _in_objects(self, place: str, value: Any) -> Broken | None:
        """Add the keys that are not read of the objects in a list or an object, at any depth.

        Returns the refusal of a key that changes what the row means. Those of messages are refused by their reader.
        """
        problem = None
        objects = value if type(value) is list else [value]
        place = f"{place}[]" if type(value) is list else place
        for item in objects:
            if type(item) is dict:
                for key, inner in item.items():
                    found = None
                    if key not in self._keys:
                        found = self._unread_key(f"{place}.{key}", key, inner, item)
                    elif (type(inner) is list or type(inner) is dict) and key not in _SCHEMAS:
                        found = self._in_objects(f"{place}.{key}", inner)
                    problem = problem or found
            elif type(item) is list:
                problem = problem or self._in_objects(place, item)
        return problem

    def _unread_key(self, name: str, key: str, value: Any, item: Mapping[str, Any]) -> Broken | None:
        if is_empty(value) or key in HARMLESS:
            return None
        if key in self._ignored or key not in KEYS:
            self._add(name)
            return None
        calls = "tool_calls" in item and "text" not in item  # a message that calls tools may have no content
        is_message = ("role" in item and ("content" in item or calls)) or ("from" in item and "value" in item)
        if is_message or key not in _OF_ALL:  # `name` and others change a message only
            if not is_message:
                self._add(name)
            return None
        return None if is_neutral(key, value) else _refusal(name, key, KEYS[key])

    def _without_ignored(self, fields: Fields) -> Fields:
        kept = {name: self._stripped(value) for name, value in fields.items() if name not in self._ignored}
        return Cells(kept) if isinstance(fields, Cells) else kept

    def _stripped(self, value: Any) -> Any:
        if isinstance(value, list):
            return [self._stripped(item) for item in value]
        if isinstance(value, dict):
            return {key: self._stripped(inner) for key, inner in value.items() if key not in self._ignored}
        return value
