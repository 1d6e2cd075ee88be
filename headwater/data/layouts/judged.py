"""Layouts with two responses and a verdict in a column of its own."""

from __future__ import annotations

import json
import re

from headwater.data.layouts.continuations import parted
from headwater.data.layouts.fields import choice, number, text
from headwater.data.layouts.layout import Broken, Draft, Fields, NoPreference
from headwater.data.layouts.messages import instructed, messages, prompt, whole, with_system
from headwater.data.layouts.verdicts import (
    ONE_OR_TWO,
    ONE_OR_ZERO,
    ONE_TO_TWO,
    STRENGTH,
    WORDS_ONLY,
    ZERO_OR_ONE,
    share,
)
from headwater.data.preference import Message, Response


def judged_draft(asked: tuple[Message, ...], first: Response, second: Response, verdict: float | None) -> Draft:
    """Return the pair of a `verdict`, the preference for the second. Errors: `NoPreference` for a tie, or without."""
    if verdict is None or verdict == 0.5:
        raise NoPreference("no_verdict" if verdict is None else "tie")
    return Draft(asked, *((first, second) if verdict < 0.5 else (second, first)))


def _texts(fields: Fields, question: str, first: str, second: str, verdict: float | None) -> Draft:
    """Return the draft of a question, or an instruction with its input, and two columns of text."""
    asked = instructed(fields) if question == "instruction" else prompt(fields, question)
    return judged_draft(asked, Response(text(fields, first)), Response(text(fields, second)), verdict)


def align_anything(fields: Fields) -> Draft:
    """align-anything text-to-text: `overall_response` names the better response, 1 or 2."""
    verdict = share(fields, "overall_response", ONE_OR_TWO)
    return _texts(fields, "question", "response_1", "response_2", verdict)


def pku_saferlhf(fields: Fields) -> Draft:
    """PKU-SafeRLHF: `better_response_id` names the more helpful response, 0 or 1.

    `safer_response_id`, the other verdict of these rows, is not read.
    """
    verdict = share(fields, "better_response_id", ZERO_OR_ONE)
    return _texts(fields, "prompt", "response_0", "response_1", verdict)


def shp(fields: Fields) -> Draft:
    """Stanford Human Preferences: `labels` is 1 where `human_ref_A` is preferred; scores are upvotes."""
    verdict = share(fields, "labels", ONE_OR_ZERO)
    first = Response(text(fields, "human_ref_A"), number(fields, "score_A"))
    second = Response(text(fields, "human_ref_B"), number(fields, "score_B"))
    return judged_draft(prompt(fields, "history"), first, second, verdict)


def helpsteer2(fields: Fields) -> Draft:
    """HelpSteer2-Preference (NVIDIA): `preference_strength` from -3 (response 1 is much better) to 3; 0 is a tie."""
    asked = with_system(fields, helpsteer_turns(text(fields, "prompt")))
    first, second = (Response(text(fields, column)) for column in ("response_1", "response_2"))
    return judged_draft(asked, first, second, share(fields, "preference_strength", STRENGTH))


_HELPSTEER_TURN = re.compile(r"\n?<extra_id_1>(User|Assistant)\n")


def helpsteer_turns(prompt: str) -> tuple[Message, ...]:
    """Return the turns of a HelpSteer2 prompt, which begins with the user's; `<extra_id_1>` marks the others."""
    start, *parts = _HELPSTEER_TURN.split(prompt)
    later = [
        Message("user" if speaker == "User" else "assistant", content)
        for speaker, content in zip(parts[::2], parts[1::2], strict=True)
    ]
    return (*([Message("user", start)] if start or not later else []), *later)


def helpsteer3(fields: Fields) -> Draft:
    """HelpSteer3-Preference (NVIDIA): `context` messages; `overall_preference` from -3 (response 1) to 3; 0: tie."""
    first, second = (Response(text(fields, column)) for column in ("response1", "response2"))
    verdict = share(fields, "overall_preference", STRENGTH)
    return judged_draft(with_system(fields, messages(fields, "context")), first, second, verdict)


def chatbot_arena(fields: Fields) -> Draft:
    """LMSYS Chatbot Arena conversations: two whole conversations and a `winner`, which may be a tie.

    The earlier answers of a longer conversation are the model's own, so the last turns of most of those are answers to
    different prompts.
    """
    verdict = share(fields, "winner", WORDS_ONLY)
    asked, first, second = parted(whole(fields, "conversation_a"), whole(fields, "conversation_b"))
    return judged_draft(with_system(fields, asked), first, second, verdict)


_WINNERS = ("winner_model_a", "winner_model_b", "winner_tie")


def arena_human_preference(fields: Fields) -> Draft:
    """LMSYS Arena human preference (55k): three columns of 0 and 1 name the winner.

    `prompt` and the responses are texts, or JSON lists of one text a turn (`["Hi", "Why?"]`), as the published files
    have them. An answer that is missing is null there, and counts as empty.
    """
    won = [choice(fields, column, 0, 1) for column in _WINNERS]
    if sum(won) != 1:
        raise Broken(f"{', '.join(_WINNERS)} are {', '.join(map(str, won))}", "expected one of them to be 1")
    questions, first, second = _turns_of_three(fields)
    if won[2]:
        raise NoPreference("tie")
    asked, one, other = parted(_conversation(questions, first), _conversation(questions, second))
    return judged_draft(with_system(fields, asked), one, other, float(won[1]))


def _conversation(questions: list[str], answers: list[str]) -> list[Message]:
    both = zip(questions, answers, strict=True)
    return [turn for asked, said in both for turn in (Message("user", asked), Message("assistant", said))]


def _turns_of_three(fields: Fields) -> list[list[str]]:
    columns = ("prompt", "response_a", "response_b")
    plain = [text(fields, column) for column in columns]
    turns = [value for value in map(_json_texts, plain) if value is not None]
    # A single answer may be a JSON list: only where all three columns are, they hold turns.
    if len(turns) < 3:
        return [[value] for value in plain]
    counts = [len(value) for value in turns]
    if min(counts) != max(counts):
        found = ", ".join(f"{count} in {column}" for count, column in zip(counts, columns, strict=True))
        raise Broken(f"turns differ in number: {found}", "expected as many answers as questions")
    return turns


def _json_texts(value: str) -> list[str] | None:
    """Return the texts of a JSON list, null as an empty one; None for any other text."""
    if not value.startswith("["):
        return None
    try:
        turns = json.loads(value)
    except (ValueError, RecursionError):
        return None
    if not turns or not all(turn is None or isinstance(turn, str) for turn in turns):
        return None
    return [turn or "" for turn in turns]


def alpaca_eval(fields: Fields) -> Draft:
    """AlpacaEval annotations: `preference` runs from 1 to 2, and above 1.5 `output_2` is the better one; 0 is a tie."""
    return _texts(fields, "instruction", "output_1", "output_2", share(fields, "preference", ONE_TO_TWO))


def llmbar(fields: Fields) -> Draft:
    """LLMBar (RewardBench Chat Hard): `label` names the better of `output_1` and `output_2`, 1 or 2."""
    return _texts(fields, "input", "output_1", "output_2", share(fields, "label", ONE_OR_TWO))
