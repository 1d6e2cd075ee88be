"""A description of an unknown row, as a guess from the names and contents of its columns, for the refusal to print."""

from __future__ import annotations

import difflib
import itertools
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from headwater.data.layouts.json_text import parsed
from headwater.data.layouts.layout import Fields
from headwater.data.layouts.paths import Steps, spelled

_PROMPT = ("prompt", "question", "instruction", "query", "input", "user", "request", "task", "context", "problem")
_LABEL = ("winner", "label", "preference", "preferred", "choice", "verdict", "better", "vote", "judg", "annotation")
_SIDES = (
    ("chosen", "rejected"),
    ("best", "worst"),
    ("better", "worse"),
    ("good", "bad"),
    ("accepted", "rejected"),
    ("preferred", "dispreferred"),
    ("positive", "negative"),
    ("winning", "losing"),
    ("winner", "loser"),
    ("pos", "neg"),
    ("win", "lose"),
)
"""Words in the names of columns with the preferred and the other response."""
_SCORE = ("score", "rating", "reward", "upvotes", "votes", "overall", "rank")
_SHORT = 20
"""Characters of the longest text that is taken for a label."""


def suggest(fields: Fields) -> str:
    """Return `--columns '…'` for a row, with what could be guessed, and `…` for what is not to be seen."""
    return f"--columns {shlex.quote(_description(fields))}"


def _description(fields: Fields) -> str:
    values = dict(_leaves(fields, ()))
    texts = {steps: value for steps, value in values.items() if _is_text(value)}
    prompt = _prompt(texts) or next((steps for steps, value in values.items() if _is_conversation(value)), None)
    answers = {steps: value for steps, value in texts.items() if steps != prompt}
    asked = f"prompt={spelled(prompt) if prompt else '…'}"
    label = _label(values)
    if sides := _sides(answers):
        return f"{asked}, chosen={spelled(sides[0])}, rejected={spelled(sides[1])}"
    if several := _several(values):
        return f"{asked}, {several}"
    if pair := _alike(answers):
        winner = f"{spelled(label)}{_winners(values[label])}" if label else "…"
        return f"{asked}, a={spelled(pair[0])}, b={spelled(pair[1])}, winner={winner}"
    if answers and label:
        return f"{asked}, completion={spelled(next(iter(answers)))}, label={spelled(label)}{_truths(values[label])}"
    return f"{asked}, chosen=…, rejected=…"


def _leaves(value: Any, steps: Steps) -> Iterator[tuple[Steps, Any]]:
    """Yield the values of a row with their paths: columns, and keys of objects in columns."""
    for key, inner in value.items():
        inner = (parsed(inner) or inner) if isinstance(inner, str) else inner
        if isinstance(inner, Mapping) and not _is_message(inner):
            yield from _leaves(inner, (*steps, str(key)))
        else:
            yield (*steps, str(key)), inner


def _is_text(value: Any) -> bool:
    return (isinstance(value, str) and (len(value) > _SHORT or " " in value.strip())) or _is_conversation(value)


def _is_message(value: Any) -> bool:
    return isinstance(value, Mapping) and ("role" in value or "from" in value)


def _is_conversation(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(map(_is_message, value))


def _named(steps: Steps, words: tuple[str, ...]) -> bool:
    return any(word in str(steps[-1]).casefold() for word in words)


def _prompt(texts: Mapping[Steps, Any]) -> Steps | None:
    """Return the column of the prompt by its name; where none has such a name, the first text of three or more."""
    for word in _PROMPT:
        found = next((steps for steps in texts if word in str(steps[-1]).casefold()), None)
        if found:
            return found
    return next(iter(texts)) if len(texts) in (1, 3) else None


def _label(values: Mapping[Steps, Any]) -> Steps | None:
    short = [steps for steps, value in values.items() if isinstance(value, str | int | float) and not _is_text(value)]
    named = next((steps for steps in short if _named(steps, _LABEL)), None)
    return named or next((steps for steps in short if isinstance(values[steps], bool)), None)


def _sides(answers: Mapping[Steps, Any]) -> tuple[Steps, Steps] | None:
    """Return the columns of the preferred and of the other response, by words such as best and worst."""
    words = {steps: set(re.split(r"[^a-z]+", str(steps[-1]).casefold())) for steps in answers}
    for good, bad in _SIDES:
        first = next((steps for steps, inside in words.items() if good in inside), None)
        second = next((steps for steps, inside in words.items() if bad in inside), None)
        if first and second:
            return first, second
    return None


def _alike(answers: Mapping[Steps, Any]) -> tuple[Steps, Steps] | None:
    """Return the two columns of text whose names are most alike, such as answer_x and answer_y."""

    def likeness(two: tuple[Steps, Steps]) -> float:
        return difflib.SequenceMatcher(None, spelled(two[0]), spelled(two[1])).ratio()

    return max(itertools.combinations(answers, 2), key=likeness, default=None)


def _several(values: Mapping[Steps, Any]) -> str | None:
    """Return the entries for a list of responses: of objects with a text, or of texts, and their scores."""
    for steps, value in values.items():
        if not isinstance(value, list) or len(value) < 2 or _is_conversation(value):
            continue
        if all(isinstance(item, Mapping) for item in value):
            inside = dict(_leaves(value[0], (*steps, None)))
            text = next((path for path, item in inside.items() if _is_text(item)), None)
            numbers = [path for path, item in inside.items() if isinstance(item, int | float)]
            score = next((path for path in numbers if _named(path, _SCORE)), next(iter(numbers), None))
            if text:
                return _responses(text, score)
        if all(map(_is_text, value)):
            lists = [path for path, other in values.items() if _is_numbers(other, len(value))]
            return _responses(steps, next(iter(lists), None))
    return None


def _is_numbers(value: Any, count: int) -> bool:
    return isinstance(value, list) and len(value) == count and all(isinstance(item, int | float) for item in value)


def _responses(text: Steps, score: Steps | None) -> str:
    if score is None:
        return f"responses={spelled(text)}"
    return f"responses={spelled(text)}, {'ranks' if _named(score, ('rank',)) else 'scores'}={spelled(score)}"


def _winners(value: Any) -> str:
    """Return what the values of a verdict may mean, from one of them; "" for words that need no meaning."""
    if isinstance(value, bool):
        return "{true:a,false:b}"
    if isinstance(value, int | float):
        return "{0:a,1:b}" if value == 0 else "{1:a,2:b}" if value in (1, 2) else "{<0:a,>0:b,0:tie}"
    return ""


def _truths(value: Any) -> str:
    """Return what the values of a label may mean, from one of them."""
    if isinstance(value, str):
        return f"{{{value}:true,…:false}}"
    return "" if value in (0, 1) else "{>0:true,<0:false}"
