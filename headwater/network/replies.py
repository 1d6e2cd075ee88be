"""Read replies of chat servers: the text in any of its forms, or the reason why one request has no answer.

A reply that is empty, a refusal, a tool call, cut off, or an error about the length of one prompt concerns that request
only. Commands count it and continue.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

TOO_LONG, FILTERED = "too_long", "content_filter"
_LENGTH = re.compile(
    r"context[ _-]?(length|size|window)|(maximum|model'?s?) context"
    r"|max(imum)?[ _-]?(model|sequence|input|prompt)[ _-]?len"
    r"|(prompt|input|message|sequence|request)s?\b.{0,60}\btoo (long|large|many)"
    r"|too (long|large)\b.{0,40}\b(prompt|input)"
    r"|`?(inputs?|prompt)`? tokens.{0,60}(exceed|longer|more than|must|<=)"
    r"|exceeds? .{0,40}(context|max_model_len|tokens)",
    re.IGNORECASE | re.DOTALL,
)
_FILTER = re.compile(
    r"content[ _-]?(management )?(filter|policy)|(safety|moderation) (system|policy|filter)|flagged|ResponsibleAI",
    re.IGNORECASE,
)


def problem_of_error(status: int, said: str) -> str:
    """Return why a server refused one request while it may answer others: `too_long` or `content_filter`.

    Empty for errors that concern every request: a key, a model's name, overload.
    """
    if status == 413:
        return TOO_LONG
    if status in (400, 422, 500) and _LENGTH.search(said):
        return TOO_LONG
    return FILTERED if status in (400, 403, 422) and _FILTER.search(said) else ""


class ChatReply(NamedTuple):
    """Reply of a chat server to one request."""

    text: str
    problem: str
    """Why there is no text: `refusal`, `tool_call`, `content_filter`, `cut_off` or `empty_reply`; "" where there is."""
    complete: bool
    """Whether the model ended the reply itself."""
    refusal: str
    """Text of a refusal."""
    choice: Mapping[str, Any]


def read(reply: Mapping[str, Any]) -> ChatReply:
    """Read the reply to a request for one answer. Errors: `ValueError` for anything but a reply of a chat server."""
    choices = reply.get("choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = choice.get("message") if isinstance(choice, Mapping) else None
    if not isinstance(choice, Mapping) or not isinstance(message, Mapping):
        raise ValueError(_error_in(reply) or "answered without a message")
    text = "".join(_texts(message.get("content"), ("text", "output_text")))
    refusal = str(message.get("refusal") or "".join(_texts(message.get("content"), ("refusal",))))
    problem = "" if text.strip() else _problem(message, refusal, choice.get("finish_reason"))
    return ChatReply(text, problem, choice.get("finish_reason") == "stop", refusal, choice)


def error_of(reply: Mapping[str, Any]) -> str:
    """Return the problem of one request in a reply with status 200; empty where there is none."""
    return problem_of_error(400, _error_in(reply))


def _error_in(reply: Mapping[str, Any]) -> str:
    error = reply.get("error")
    said = error.get("message") if isinstance(error, Mapping) else error
    return " ".join(str(said).split())[:200] if said else ""


def _texts(content: Any, kinds: tuple[str, ...]) -> Iterator[str]:
    """Yield the texts of a message, which may be one text or a list of parts, without the model's reasoning."""
    if isinstance(content, str) and "text" in kinds:
        yield content
    for part in content if isinstance(content, list) else [content]:
        if isinstance(part, str) and isinstance(content, list) and "text" in kinds:
            yield part
        elif isinstance(part, Mapping) and part.get("type", "text") in kinds:
            text = part.get("refusal" if part.get("type") == "refusal" else "text")
            yield text if isinstance(text, str) else ""


def _problem(message: Mapping[str, Any], refusal: str, finish: Any) -> str:
    if refusal:
        return "refusal"
    if finish == "content_filter":
        return FILTERED
    if message.get("tool_calls") or message.get("function_call"):
        return "tool_call"
    return "cut_off" if finish == "length" else "empty_reply"


_THOUGHTS = (
    ("<think>", "</think>"),
    ("<thinking>", "</thinking>"),
    ("<thought>", "</thought>"),
    ("<reasoning>", "</reasoning>"),
    ("[THINK]", "[/THINK]"),
    ("◁think▷", "◁/think▷"),
    ("<|channel|>analysis", "<|channel|>final"),
)
"""Marks around a model's reasoning."""


def after_thoughts(text: str) -> str | None:
    """Return the text after the last reasoning block; None where a block has no end, so that no answer follows.

    Many templates open the first block themselves, so the reply holds only its end mark.
    """
    for opening, closing in _THOUGHTS:
        _, found, after = text.rpartition(closing)
        text = after if found else text
        if opening in text:
            return None
    return text
