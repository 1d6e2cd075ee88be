"""Checks of every draft before it becomes a record, whatever its layout; and the row that headwater writes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from headwater.data.layouts.fields import number, own_id
from headwater.data.layouts.layout import AnyDraft, Broken, CandidatesDraft, Draft, Fields, NoPreference
from headwater.data.layouts.tools import COLUMN, check_continuation, check_prompt
from headwater.data.preference import (
    NO_COLUMNS,
    PAIR_COLUMNS,
    Candidates,
    Message,
    Preference,
    Prompted,
    Response,
    Unpaired,
    fields_of,
)


def draft_to_record(draft: AnyDraft, fields: Fields, name: str) -> Preference | Candidates | Unpaired:
    """Return the record of a draft that passes the checks of all layouts. Errors: `NoPreference`, `Broken`."""
    identity, source = own_id(fields, name), str(fields.get("source") or name.partition(":")[0])
    names = (identity, source)
    if isinstance(draft, Draft):
        prompt, chosen, rejected = draft
        check_responses(chosen, rejected)
        _check_whole(prompt, (chosen, rejected), names)
        columns = pair_columns(fields)
        return Preference(prompt=prompt, chosen=chosen, rejected=rejected, id=identity, source=source, columns=columns)
    if isinstance(draft, CandidatesDraft):
        check_candidates(draft.responses)
        _check_whole(draft.prompt, draft.responses, names)
        return Candidates(prompt=draft.prompt, responses=draft.responses, id=identity, source=source)
    check_responses(draft.response)
    _check_whole(draft.prompt, (draft.response,), names)
    return Unpaired(prompt=draft.prompt, response=draft.response, label=draft.label, id=identity, source=source)


def pair_columns(fields: Fields) -> Mapping[str, float]:
    """Return the numbers of a pair that a row holds, by name. Errors: `Broken` for what is no number."""
    numbers = {name: number(fields, name) for name in PAIR_COLUMNS if name in fields}
    return {name: value for name, value in numbers.items() if value is not None} or NO_COLUMNS


def _same_words(one: str, other: str) -> bool:
    """Return whether two texts are the same but for white space."""
    return (  # most texts differ in their first letter or words, which is cheap to see
        one.lstrip()[:1] == other.lstrip()[:1]
        and one.split(None, 8)[:8] == other.split(None, 8)[:8]
        and one.split() == other.split()
    )


def check_responses(*responses: Response) -> None:
    """Errors: `NoPreference` if one of one or two responses is empty, or both are the same but for white space."""
    for response in responses:
        if not response.text.strip() and not response.extra:
            raise NoPreference("empty_response")
    if len(responses) > 1:
        one, other = responses
        if _same_words(one.text, other.text) and one.texts[1:] == other.texts[1:]:
            raise NoPreference("identical_responses")


def check_candidates(responses: Iterable[Response]) -> None:
    """Errors: `NoPreference` if fewer than two responses hold text.

    A single empty response stays among the others: pairs made of it go through `check_responses`.
    """
    if sum(bool(response.text.strip()) for response in responses) < 2:
        raise NoPreference("fewer_than_two_responses")


def _check_whole(prompt: tuple[Message, ...], responses: tuple[Response, ...], names: tuple[str, ...]) -> None:
    r"""Errors: `Broken` for a prompt without a user turn, or a text with half a character.

    JSON can spell half a character (`\ud83d` alone), but no file or tokenizer can hold it.
    """
    if not any(message.role == "user" for message in prompt):
        raise Broken("a prompt without a user turn", "expected at least one", code="NO_USER_TURN")
    check_prompt(prompt)
    several = [response for response in responses if response.before or response.extra]
    for response in several:
        check_continuation(response.before)
    texts = [
        *names,
        *(message.content for message in prompt),
        *[message.extra for message in prompt if message.extra],
        *(response.text for response in responses),
        *[text for response in several for turn in response.turns for text in turn.texts],
    ]
    if all(map(str.isascii, texts)):  # known without reading the text, and true of most
        return
    try:
        for text in texts:
            text.encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise Broken(f"a text holds half a character ({half!r})", "expected both surrogates", code="UNICODE") from error


def canonical_row(preference: Preference) -> dict[str, Any]:
    """Return the row that headwater writes: TRL's explicit conversational form, with id, source, scores and ends."""
    row: dict[str, Any] = {"id": preference.id, "source": preference.source} | prompt_row(preference.prompt)
    for side, response in (("chosen", preference.chosen), ("rejected", preference.rejected)):
        row[side] = [turn.fields for turn in response.turns]
        row[f"score_{side}"] = response.score
        row[f"{side}_complete"] = response.complete
    return row | dict(preference.columns) | condition_of(preference)


def prompt_row(prompt: tuple[Message, ...], column: str = "prompt") -> dict[str, Any]:
    """Return the fields of a row that hold a prompt: its messages, and the column `tools` where it has any."""
    turns, tools = fields_of(prompt)
    return {column: turns} | ({COLUMN: tools} if tools else {})


def condition_of(record: Prompted) -> dict[str, str]:
    """Return the field of a row that holds a record's condition; none where it has none."""
    return {"condition": record.condition} if record.condition else {}
