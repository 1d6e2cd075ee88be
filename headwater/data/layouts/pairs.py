"""Layouts whose columns say which response was chosen."""

from __future__ import annotations

from dataclasses import replace

from headwater.data.layouts.continuations import parted
from headwater.data.layouts.dialogues import begins_a_dialogue, dialogue, dialogue_turns, is_dialogue
from headwater.data.layouts.fields import complete, listed, number, text
from headwater.data.layouts.layout import Broken, Draft, Fields, NoPreference
from headwater.data.layouts.messages import (
    continued,
    instructed,
    is_whole_conversation,
    prompt,
    whole,
    with_system,
)
from headwater.data.layouts.unread import SYSTEM_COLUMNS
from headwater.data.preference import PAIR_COLUMNS, Message, Response

SIDES = ("chosen", "rejected")
_RATINGS = [
    ("chosen-rating", "rejected-rating"),
    ("chosen_rating", "rejected_rating"),
    ("chosen_avg_rating", "rejected_avg_rating"),
    ("rating_chosen", "rating_rejected"),
]
_SCORES = {
    side: [f"score_{side}", f"{side}_score", *(columns[place] for columns in _RATINGS)]
    for place, side in enumerate(SIDES)
}
_ABOUT_RESPONSES = frozenset(
    ("metadata", *(f"{side}_complete" for side in SIDES), *(column for side in SIDES for column in _SCORES[side]))
)
"""Columns that hold scores, ratings and completeness of responses. Most rows have none, which is tested first."""
READS = (*SYSTEM_COLUMNS, *PAIR_COLUMNS, *sorted(_ABOUT_RESPONSES))
"""Optional columns of all layouts with `chosen` and `rejected`."""
ALPACA = ("input", "history")
"""Optional columns that belong to the prompt, in layouts with an `instruction`."""


def explicit(fields: Fields, question: str = "prompt") -> Draft:
    """TRL, explicit prompt: `prompt`, and in `chosen` and `rejected` the answers alone; texts or messages.

    `question` is the name of the column with the prompt.

    Scores are taken from `score_chosen` (or `chosen_score`, a rating, or `metadata.score_chosen`), as in all layouts
    with these columns. A prompt with the markers of HH-RLHF is read as a dialogue (Dahoas/full-hh-rlhf), and the
    answers may repeat it.
    """
    if all(is_dialogue(fields.get(side)) for side in SIDES):
        return _prompt_and_dialogues(fields, question)
    draft = answered(fields, prompt(fields, question))
    if not begins_a_dialogue(fields.get(question)):
        return draft
    chosen, rejected = (replace(side, text=side.text.strip()) for side in (draft.chosen, draft.rejected))
    return Draft(draft.prompt, chosen, rejected)


def answered(fields: Fields, asked: tuple[Message, ...], sides: tuple[str, str] = SIDES) -> Draft:
    """Return the pair of two answers to a prompt, in the columns `sides`, each with the turns before it."""
    return pair(fields, asked, *(continued(fields, side) for side in sides))


def _prompt_and_dialogues(fields: Fields, question: str) -> Draft:
    draft = hh(fields)
    asked = prompt(fields, question)
    if asked != before_last(draft) and not _asks(before_last(draft), asked[-1]):
        raise NoPreference("prompts_differ")
    return draft


def implicit(fields: Fields, sides: tuple[str, str] = SIDES) -> Draft:
    """TRL, implicit prompt; Skywork-Reward-Preference, RLHFlow, OpenRLHF, Argilla's dpo-mix: two whole conversations.

    `sides` are the names of their columns.

    Both are split before an assistant turn, not where their characters begin to differ: answers that start alike stay
    whole. Plain texts show no place to split at, and are refused.
    """
    for side in sides:
        if isinstance(fields.get(side), str):
            raise Broken(
                f"{side} is a text that shows no place where the prompt ends",
                r"expected messages, \n\nHuman: … \n\nAssistant: … dialogues, or a prompt in a column of its own",
                "name it with --columns prompt=NAME",
            )
    asked, chosen, rejected = parted(whole(fields, sides[0]), whole(fields, sides[1]))
    return pair(fields, with_system(fields, asked), chosen, rejected)


def prompt_and_conversations(fields: Fields) -> Draft:
    """UltraFeedback binarized (HuggingFaceH4), Argilla's cleaned one: a `prompt`, and two conversations that hold it.

    The conversations are split before an assistant turn; `prompt` must be one of their questions, or what both begin
    with.
    """
    if not any(is_whole_conversation(fields.get(side)) for side in SIDES):
        return explicit(fields)
    draft = implicit(fields)
    asked = prompt(fields, "prompt")
    is_question = isinstance(fields.get("prompt"), str)
    if asked != before_last(draft) and not (is_question and _asks(before_last(draft), asked[-1])):
        raise NoPreference("prompts_differ")
    return draft


def before_last(draft: Draft) -> tuple[Message, ...]:
    """Return the turns before the last answer, of the chosen response."""
    return (*draft.prompt, *draft.chosen.before)


def _asks(turns: tuple[Message, ...], question: Message) -> bool:
    return any(turn.role == "user" and turn.content.split() == question.content.split() for turn in turns)


def hh(fields: Fields) -> Draft:
    """Anthropic HH-RLHF: two dialogues, split before an assistant turn; white space around turns does not count."""
    (before, chosen), (other, rejected) = (dialogue(fields, side) for side in SIDES)
    asked = dialogue_turns(before, "chosen")
    one, two = Response(chosen), Response(rejected)
    if before != other:
        others = dialogue_turns(other, "rejected")
        asked, one, two = parted((*asked, Message("assistant", chosen)), (*others, Message("assistant", rejected)))
    return pair(fields, with_system(fields, asked), one, two)


def argilla(fields: Fields) -> Draft:
    """Argilla's UltraFeedback: `instruction`, `chosen_response`, `rejected_response`; equal ratings prefer nothing."""
    return pair(fields, instructed(fields), *(Response(text(fields, f"{side}_response")) for side in SIDES))


def pair(fields: Fields, asked: tuple[Message, ...], chosen: Response, rejected: Response) -> Draft:
    """Return a pair with the scores that the row holds. Errors: `NoPreference` where both have the same rating."""
    return _rated(Draft(asked, _scored(chosen, fields, "chosen"), _scored(rejected, fields, "rejected")), fields)


def _scored(response: Response, fields: Fields, side: str) -> Response:
    """Return a response with its score, and whether it is complete (headwater writes `chosen_complete` after a cut)."""
    if _ABOUT_RESPONSES.isdisjoint(fields):
        return response
    return replace(response, score=_score(fields, side), complete=complete(fields, f"{side}_complete"))


def _score(fields: Fields, side: str) -> float | None:
    for column in _SCORES[side]:
        score = number(fields, column)
        if score is not None:
            return score
    metadata = listed(fields, "metadata")
    return number(metadata, f"score_{side}") if isinstance(metadata, dict) else None


def _rated(draft: Draft, fields: Fields) -> Draft:
    """Return the draft. Errors: `NoPreference` where both answers have the same rating, so that neither is better."""
    if not _ABOUT_RESPONSES.isdisjoint(fields):
        for chosen, rejected in _RATINGS:
            rating = number(fields, chosen)
            if rating is not None and rating == number(fields, rejected):
                raise NoPreference("equal_ratings")
    return draft
