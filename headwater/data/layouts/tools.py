"""Tools, calls of them and their results: from the forms that data have to the one that chat templates take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from headwater.data.layouts.fields import kind
from headwater.data.layouts.json_text import parsed
from headwater.data.layouts.layout import Broken, Fields
from headwater.data.preference import Message, Response

COLUMN = "tools"
"""The column with the tools that a model may call: a list, or its JSON."""
COLUMNS = (COLUMN, "functions")
"""Names of that column; `functions` is the older one of OpenAI."""
RESULTS = frozenset(("tool", "function", "ipython", "tool_response", "observation"))
"""Roles of turns that hold the result of a call; `tool` for chat templates."""
CALLS = frozenset(("function_call", "tool_call"))
"""Roles of turns whose text is the JSON of a call, or of a list of calls; of an assistant for chat templates."""
_KEYS = ("tools", "tool_calls", "function_call")


def keys_of(role: Any) -> tuple[str, ...]:
    """Return the keys, beside role and text, that are read of a message."""
    return (*_KEYS, "tool_call_id", "name") if isinstance(role, str) and role in RESULTS else _KEYS


def extra(item: Mapping[str, Any], role: Any, place: str) -> str:
    """Return the `Message.extra` of a message. Errors: `Broken`."""
    given = {key: _value(item.get(key)) for key in keys_of(role)}
    if given["tool_calls"] and given["function_call"]:
        raise _broken(f"{place} has tool_calls and function_call", "expected one of them")
    calls = given["tool_calls"] or given["function_call"]
    if calls and role not in ("assistant", "gpt"):
        raise _broken(f"{place} has a tool call of the role {role}", "expected an assistant's")
    found: dict[str, Any] = {"tools": schemas(given["tools"], f"tools in {place}")} if given["tools"] else {}
    found |= {"tool_calls": _calls(calls, place)} if calls else {}
    for key in ("tool_call_id", "name"):
        if given.get(key):
            if not isinstance(given[key], str):
                raise _broken(f"{key} in {place} is {kind(given[key])}", "expected a text")
            found[key] = given[key]
    return _text(found, place) if found else ""


def call(content: str, place: str) -> Message:
    """Return the turn of a role of `CALLS`, whose text is JSON. Errors: `Broken`."""
    found = parsed(content)
    if not found:
        raise _broken(f"{place} has a call that is no JSON", 'expected {"name": …, "arguments": …}')
    return Message("assistant", "", _text({"tool_calls": _calls(found, place)}, place))


def with_tools(prompt: tuple[Message, ...], fields: Fields) -> tuple[Message, ...]:
    """Return a prompt whose first message has the tools of the row: of its column, or of a message.

    Errors: `Broken` for tools at two places.
    """
    if fields.keys().isdisjoint(COLUMNS) and not any([message.extra for message in prompt]):  # most rows
        return prompt
    columns = [column for column in COLUMNS if column in fields]
    given = [schemas(found, column) for column in columns if (found := _value(fields[column]))]
    given += (message.extras["tools"] for message in prompt if "tools" in message.extras)
    if not given or not prompt:
        return prompt
    if len(given) > 1:
        raise _broken("tools at two places of the row", "expected a column of tools, or one message with them")
    first, *others = (_without_tools(message) for message in prompt)
    return (replace(first, extra=_text({"tools": given[0]} | first.extras, COLUMN)), *others)


def _without_tools(message: Message) -> Message:
    rest = {name: value for name, value in message.extras.items() if name != "tools"}
    return replace(message, extra=_text(rest, COLUMN) if rest else "") if message.extra else message


def check_text(response: Response, place: str) -> Response:
    """Return a response. Errors: `Broken` for one that calls a tool, where only a text can be read."""
    if response.extra:
        raise _broken(f"{place} ends in a call of a tool", "expected a text: only pairs and single responses may call")
    return response


def check_continuation(before: tuple[Message, ...]) -> None:
    """Errors: `Broken` for tools that are given within a response: the prompt must have them."""
    if any("tools" in message.extras for message in before):
        raise _broken("a turn of a response has tools", "expected them in a column, or in a message of the prompt")


def check_prompt(prompt: tuple[Message, ...]) -> None:
    """Errors: `Broken` for a prompt that ends in a call, whose result a response would follow."""
    if prompt[-1].role == "assistant" and prompt[-1].extra:
        raise _broken("the prompt ends in a call of a tool", "expected its result before the response")


def schemas(value: Any, place: str) -> list[Any]:
    """Return tools as `{"type": "function", "function": {"name": …}}`, which chat templates take. Errors: `Broken`."""
    if not isinstance(value, list):
        raise _broken(f"{place} is {kind(value)}", "expected a list of tools")
    return [_wrapped(tool, place) for tool in value]


def _calls(value: Any, place: str) -> list[Any]:
    calls = [_wrapped(one, place) for one in (value if isinstance(value, list) else [value])]
    return [{**one, "function": _with_arguments(one["function"])} for one in calls]


def _wrapped(item: Any, place: str) -> dict[str, Any]:
    if isinstance(item, dict):
        function = item.get("function", item)
        if isinstance(function, dict) and isinstance(function.get("name"), str) and function["name"]:
            return item if function is not item else {"type": "function", "function": item}
    raise _broken(f"{place} holds {kind(item)} without the name of a function", 'expected {"function": {"name": …}}')


def _with_arguments(function: Mapping[str, Any]) -> dict[str, Any]:
    """Return a function whose arguments are an object where their text is the JSON of one, as templates take them."""
    given = function.get("arguments")
    found = parsed(given) if isinstance(given, str) else None
    return {**function, "arguments": found} if isinstance(found, dict) else dict(function)


def _value(given: Any) -> Any:
    """Return a list or an object that is held as JSON text; None for the spellings of nothing."""
    if isinstance(given, str):
        text = given.strip()
        found = parsed(text)
        return None if text in ("", "null", "None") else given if found is None else found
    return given


def _text(found: Mapping[str, Any], place: str) -> str:
    """Return JSON with the keys in the order of the data, in which templates write them."""
    try:
        return json.dumps(found, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    except (TypeError, ValueError) as error:
        raise _broken(f"{place} holds a tool that is no JSON", str(error)) from error


def _broken(found: str, expected: str) -> Broken:
    return Broken(found, expected, code="TOOLS")
