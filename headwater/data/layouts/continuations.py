"""Responses of several turns: the last turns are compared behind the same turns, or whole continuations.

A layout's reader leaves the turns before a last one in `Response.before`. What becomes of them, `--turns` says:

    last     they belong to the prompt; a pair whose responses follow different turns compares answers to different
             prompts, and is dropped
    whole    they belong to the response

The prompt of two whole conversations is what both begin with, up to an assistant turn (TRL's `extract_prompt`, which
may also end it before a user's turn that differs).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

from headwater.data.layouts.layout import Broken, CandidatesDraft, Draft, NoPreference, UnpairedDraft
from headwater.data.preference import Message, Response

Turns = Literal["last", "whole"]
"""What of a response of several turns is compared: its last turn, or all of it."""


def parted(one: Sequence[Message], other: Sequence[Message]) -> tuple[tuple[Message, ...], Response, Response]:
    """Return the prompt of two conversations that end in an assistant turn, and how each continues."""
    same, last = 0, min(len(one), len(other)) - 1
    while same < last and one[same] == other[same]:
        same += 1
    while same and not one[same].role == other[same].role == "assistant":
        same -= 1
    return tuple(one[:same]), _continuation(one[same:]), _continuation(other[same:])


def _continuation(turns: Sequence[Message]) -> Response:
    *before, last = turns
    return Response(last.content, before=tuple(before), extra=last.extra)


def from_first_answer(turns: Sequence[Message]) -> tuple[tuple[Message, ...], Response]:
    """Return the turns of a conversation before its first answer, and the rest, which ends in an answer."""
    first = next(place for place, turn in enumerate(turns) if turn.role == "assistant")
    return tuple(turns[:first]), _continuation(turns[first:])


DraftOf = Draft | CandidatesDraft | UnpairedDraft


def compared(draft: DraftOf, turns: Turns) -> DraftOf:
    """Return a draft whose responses hold what is compared. Errors: `NoPreference`, `Broken`."""
    if isinstance(draft, Draft):
        if not draft.chosen.before and not draft.rejected.before:  # most rows
            return draft
    elif isinstance(draft, CandidatesDraft) or not draft.response.before:
        return draft
    responses = [draft.chosen, draft.rejected] if isinstance(draft, Draft) else [draft.response]
    prompt, responses = (_last if turns == "last" else _whole)(draft.prompt, responses)
    if isinstance(draft, UnpairedDraft):
        return draft._replace(prompt=prompt, response=responses[0])
    return Draft(prompt, *responses)


Parted = tuple[tuple[Message, ...], list[Response]]


def _last(prompt: tuple[Message, ...], responses: Sequence[Response]) -> Parted:
    before = {response.before for response in responses}
    if len(before) > 1:
        raise NoPreference("prompts_differ")
    _check_results(prompt, responses)
    return (*prompt, *before.pop()), [replace(response, before=()) for response in responses]


def _whole(prompt: tuple[Message, ...], responses: Sequence[Response]) -> Parted:
    """Move turns before the first one of the assistant, such as the result of a call, to the prompt."""
    leading = {response.before[: _leading(response)] for response in responses}
    if len(leading) > 1:
        raise NoPreference("prompts_differ")
    _check_results(prompt, responses)
    (first,) = leading
    return (*prompt, *first), [replace(each, before=each.before[len(first) :]) for each in responses]


def _leading(response: Response) -> int:
    return next((n for n, turn in enumerate(response.before) if turn.role == "assistant"), len(response.before))


def _check_results(prompt: tuple[Message, ...], responses: Sequence[Response]) -> None:
    """Errors: `Broken` for a response that begins with the result of a call, where the prompt ends in none."""
    calls = prompt[-1:] and prompt[-1].role == "assistant" and prompt[-1].extra
    if not calls and any(response.before[:1] and response.before[0].role == "tool" for response in responses):
        raise Broken("a response begins with the result of a tool", "expected the call before it", code="ROLE")
