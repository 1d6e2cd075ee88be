"""What every layout's draft is held to before it becomes a row of data; and the row that headwater writes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from headwater.data.layouts.fields import number, own_id
from headwater.data.layouts.layout import AnyDraft, Broken, CandidatesDraft, Draft, Fields, NoPreference
from headwater.data.preference import Candidates, Message, Preference, Prompted, Response, Unpaired


def draft_to_record(draft: AnyDraft, fields: Fields, name: str) -> Preference | Candidates | Unpaired:
    """Hold a draft to the checks that all layouts share, and give it its id. Errors: `NoPreference`, `Broken`."""
    identity, source = own_id(fields, name), str(fields.get("source") or name.partition(":")[0])
    names = (identity, source)
    if isinstance(draft, Draft):
        prompt, chosen, rejected = draft
        check_responses(chosen, rejected)
        _check_whole(prompt, (chosen, rejected), names)
        margin = number(fields, "margin")
        return Preference(prompt=prompt, chosen=chosen, rejected=rejected, id=identity, source=source, margin=margin)
    if isinstance(draft, CandidatesDraft):
        check_candidates(draft.responses)
        _check_whole(draft.prompt, draft.responses, names)
        return Candidates(prompt=draft.prompt, responses=draft.responses, id=identity, source=source)
    check_responses(draft.response)
    _check_whole(draft.prompt, (draft.response,), names)
    return Unpaired(prompt=draft.prompt, response=draft.response, label=draft.label, id=identity, source=source)


def _says_nothing(text: str) -> bool:
    return not text or text.isspace()


def _same_words(one: str, other: str) -> bool:
    """Say whether two texts are the same but for white space; most differ in a first letter or word, seen cheaply."""
    return (
        one.lstrip()[:1] == other.lstrip()[:1]
        and one.split(None, 8)[:8] == other.split(None, 8)[:8]
        and one.split() == other.split()
    )


def check_responses(*responses: Response) -> None:
    """Raise `NoPreference` when one of one or two responses is empty, or both are the same but for white space."""
    if any(_says_nothing(response.text) for response in responses):
        raise NoPreference("empty_response")
    if len(responses) > 1 and _same_words(*(response.text for response in responses)):
        raise NoPreference("identical_responses")


def check_candidates(responses: Iterable[Response]) -> None:
    """Raise `NoPreference` when fewer than two responses say anything.

    A single empty response stays among the others: whoever makes a pair of it holds the pair to `check_responses`.
    """
    if sum(not _says_nothing(response.text) for response in responses) < 2:
        raise NoPreference("fewer_than_two_responses")


def _check_whole(prompt: tuple[Message, ...], responses: tuple[Response, ...], names: tuple[str, ...]) -> None:
    r"""Refuse a prompt that asks nothing, and half a character.

    JSON can spell half a character (`\ud83d` alone), but no file or tokenizer can hold it.
    """
    asked, texts = False, [*names]
    for message in prompt:
        asked = asked or message.role == "user"
        texts.append(message.content)
    if not asked:
        raise Broken("a prompt without a user turn", "expected at least one", code="NO_USER_TURN")
    for response in responses:
        texts.append(response.text)
    try:
        for text in texts:
            if not text.isascii():  # known without a look at the text, and true of most
                text.encode()
    except UnicodeEncodeError as error:
        half = error.object[error.start]
        raise Broken(f"a text holds half a character ({half!r})", "expected both surrogates", code="UNICODE") from error


def canonical_row(preference: Preference) -> dict[str, Any]:
    """Return the row that headwater writes: TRL's explicit conversational form, with id, source, scores and ends."""
    row: dict[str, Any] = {
        "id": preference.id,
        "source": preference.source,
        "prompt": [{"role": message.role, "content": message.content} for message in preference.prompt],
    }
    for side, response in (("chosen", preference.chosen), ("rejected", preference.rejected)):
        row[side] = [{"role": "assistant", "content": response.text}]
        row[f"score_{side}"] = response.score
        row[f"{side}_complete"] = response.complete
    margin = {} if preference.margin is None else {"margin": preference.margin}
    return row | margin | condition_of(preference)


def condition_of(record: Prompted) -> dict[str, str]:
    """Return the field of a row that holds a record's condition; none where it has none."""
    return {"condition": record.condition} if record.condition else {}
