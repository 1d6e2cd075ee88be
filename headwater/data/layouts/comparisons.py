"""Layouts with two responses that people or judges compared: by scores, by a choice, or by the votes of several."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headwater.data.layouts.fields import items, kind, listed, number, text
from headwater.data.layouts.judged import judged_draft
from headwater.data.layouts.layout import Broken, Cells, Draft, Fields
from headwater.data.layouts.messages import instructed, prompt, with_system
from headwater.data.layouts.trainers import question_of
from headwater.data.layouts.verdicts import WORDS_ONLY, ZERO_OR_ONE, Numbers, share
from headwater.data.preference import Message, Response


def webgpt(fields: Fields) -> Draft:
    """WebGPT comparisons (OpenAI): two answers with a score each; equal scores are a tie.

    `question` is a text, or an object with the `full_text`. The quotes that an answer was written from are not read.
    """
    given = fields.get("question")
    question = text(given, "full_text") if isinstance(given, dict) else text(fields, "question")
    first, second = (Response(text(fields, f"answer_{n}"), number(fields, f"score_{n}")) for n in (0, 1))
    return judged_draft(prompt({**fields, "question": question}, "question"), first, second, _by_score(first, second))


def _by_score(first: Response, second: Response) -> float | None:
    """Return the preference for the second of two scored responses."""
    if first.score is None or second.score is None:
        return None
    return 0.5 if first.score == second.score else float(second.score > first.score)


def summarize_from_feedback(fields: Fields) -> Draft:
    """Summarize from feedback, comparisons (OpenAI, arXiv:2009.01325): two `summaries`, and `choice`, 0 or 1.

    The prompt is written as the models of the paper were asked: a Reddit post with its title, or a news article.
    """
    info = fields.get("info")
    if not isinstance(info, dict):
        raise Broken(f"info is {kind(info)}", "expected an object with post or article")
    summaries = items(fields, "summaries")
    if len(summaries) != 2:
        raise Broken(f"{len(summaries)} summaries", "expected two")
    first, second = (Response(text(summary, "text")) for summary in summaries)
    asked = with_system(fields, (Message("user", _summary_of(info)),))
    return judged_draft(asked, first, second, share(fields, "choice", ZERO_OR_ONE))


def _summary_of(info: Fields) -> str:
    if info.get("post") is None:
        return f"Article:\n\n{text(info, 'article')}\n\nTL;DR:"
    title = f"TITLE: {text(info, 'title')}" if info.get("title") is not None else ""
    subreddit = f"SUBREDDIT: r/{text(info, 'subreddit')}" if info.get("subreddit") is not None else ""
    return "\n\n".join(filter(None, (subreddit, title, f"POST: {text(info, 'post')}", "TL;DR:")))


def stack_exchange_paired(fields: Fields) -> Draft:
    """Stack Exchange pairs (lvwerra/stack-exchange-paired): `response_j` has more votes than `response_k`."""
    return Draft(prompt(fields, "question"), Response(text(fields, "response_j")), Response(text(fields, "response_k")))


def prometheus(fields: Fields) -> Draft:
    """Prometheus 2, Preference Collection: two responses to `orig_instruction`, compared by `orig_criteria`.

    `--condition-column orig_criteria` gives the criterion to a conditional model. `instruction`, `input` and `output`
    are the same row as a judge is asked, and are not read.
    """
    first, second = (
        Response(text(fields, f"orig_response_{side}"), number(Cells(fields), f"orig_score_{side}")) for side in "AB"
    )
    return judged_draft(prompt(fields, "orig_instruction"), first, second, share(fields, "orig_preference", WORDS_ONLY))


_ANNOTATIONS = ("normal_worker_annotations", "expert_worker_annotations")
_PREFERENCES = {
    "A-is-clearly-better": 0.0,
    "A-is-slightly-better": 0.0,
    "Tie": 0.5,
    "B-is-slightly-better": 1.0,
    "B-is-clearly-better": 1.0,
}


def multipref(fields: Fields) -> Draft:
    """MultiPref (Ai2): two completions, and the `overall_pref` of several annotators; most votes decide.

    As many votes for one as for the other are a tie.
    """
    votes = []
    for column in _ANNOTATIONS:
        for annotation in items(fields, column):
            preferred = annotation.get("overall_pref")
            if preferred is not None and (not isinstance(preferred, str) or preferred not in _PREFERENCES):
                raise Broken(f"overall_pref in {column} is {preferred!r}", f"expected one of {', '.join(_PREFERENCES)}")
            votes.append(None if preferred is None else _PREFERENCES[preferred])
    first, second = (Response(text(fields, f"completion_{side}")) for side in "ab")
    return judged_draft(prompt(fields, "text"), first, second, majority(votes))


VERDICTS = ("winner", "preference", "preferred", "better", "choice", "verdict", "label", "votes")
"""Columns that hold the verdict of a `pairwise` layout: one, or the list of the votes of several annotators."""


def verdict_of(fields: Fields) -> str | None:
    """Return the column of `VERDICTS` that a row has; None where it has none or several."""
    held = [column for column in VERDICTS if column in fields]
    return held[0] if len(held) == 1 else None


def pairwise(fields: Fields, first: str, second: str, numbers: Numbers) -> Draft:
    """Two responses to a prompt, in the columns `first` and `second`, and the verdict of one annotator or of several.

    Of several votes, most decide; as many for one as for the other are a tie.
    """
    question, column = question_of(fields), verdict_of(fields)
    if question is None or column is None:
        raise Broken("no column of a prompt or of a verdict", "expected one of each")
    asked = instructed(fields, question)
    votes = listed(fields, column)
    if isinstance(votes, list):
        verdict = majority([share({column: vote}, column, numbers) for vote in votes])
    else:
        verdict = share(fields, column, numbers)
    return judged_draft(asked, Response(text(fields, first)), Response(text(fields, second)), verdict)


def majority(votes: Sequence[float | None]) -> float | None:
    """Return the preference for the second of most votes, ½ where the sides have as many; None without a vote."""
    known: list[Any] = [vote for vote in votes if vote is not None]
    if not known:
        return None
    first, second = sum(vote < 0.5 for vote in known), sum(vote > 0.5 for vote in known)
    return 0.5 if first == second else float(second > first)
