"""A description of an unknown row, as a guess from the names and contents of its columns, for the refusal to print."""

from __future__ import annotations

import difflib
import itertools
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import Any

from headwater.data.layouts import verdicts
from headwater.data.layouts.dialogues import is_dialogue
from headwater.data.layouts.json_text import parsed
from headwater.data.layouts.layout import Fields
from headwater.data.layouts.paths import Steps, spelled, written
from headwater.data.layouts.unread import HARMLESS

_PROMPT = ("prompt", "question", "instruction", "query", "input", "user", "request", "task", "context", "problem")
_LABEL = (
    "winner",
    "won",
    "label",
    "preference",
    "preferred",
    "choice",
    "verdict",
    "better",
    "vote",
    "judg",
    "annotation",
    "pick",
    "decision",
    "outcome",
    "result",
)
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
"""Characters of the longest text without a space that may be a label."""
_ALIKE = 0.6
"""Likeness of the names of two columns (difflib's ratio) from which on they may hold two answers."""


def suggest(fields: Fields) -> str:
    """Return `--columns '…'` for a row, with what could be guessed, and `…` for what is not to be seen."""
    return f"--columns {shlex.quote(_description(fields))}"


def _description(fields: Fields) -> str:
    values = dict(_leaves(fields, ()))
    texts = {steps: value for steps, value in values.items() if _is_text(value)}
    prompt = _prompt(texts)
    answers = {steps: value for steps, value in texts.items() if steps != prompt}
    label = _label(values)
    asked = f"prompt={spelled(prompt) if prompt else '…'}, "
    if sides := _sides(answers):
        whole = not prompt and all(map(_is_whole, (answers[side] for side in sides)))
        return f"{'' if whole else asked}chosen={spelled(sides[0])}, rejected={spelled(sides[1])}"
    if several := _several(values):
        return asked + several
    if pair := _alike(answers) or _only_two(answers, prompt):
        verdict = label or _only_code(values)
        winner = f"{spelled(verdict)}{_winners(values[verdict])}" if verdict else "…"
        whole = not prompt and all(map(_is_whole, (answers[one] for one in pair)))
        return f"{'' if whole else asked}a={spelled(pair[0])}, b={spelled(pair[1])}, winner={winner}"
    meaning = f", label={spelled(label)}{_truths(values[label])}" if label else ""
    if prompt and not answers and _is_whole(texts[prompt]):
        return f"completion={spelled(prompt)}{meaning}"
    if len(answers) == 1 and prompt:
        return f"{asked}completion={spelled(next(iter(answers)))}{meaning}"
    return f"{asked}chosen=…, rejected=…"


def _leaves(value: Any, steps: Steps) -> Iterator[tuple[Steps, Any]]:
    """Yield the values of a row with their paths: columns, and keys of objects in columns."""
    for key, inner in value.items():
        inner = (parsed(inner) or inner) if isinstance(inner, str) else inner
        if isinstance(inner, Mapping) and not _is_message(inner):
            yield from _leaves(inner, (*steps, str(key)))
        else:
            yield (*steps, str(key)), inner


def _is_text(value: Any) -> bool:
    if isinstance(value, str):  # an id has no spaces, and neither has a text in some scripts
        return any(map(str.isspace, value.strip())) or (len(value) > _SHORT and not value.isascii())
    return _is_conversation(value)


def _is_whole(value: Any) -> bool:
    """Return whether a value is a conversation with its answer."""
    if _is_conversation(value):
        return len(value) > 1 and value[-1].get("role", value[-1].get("from")) in ("assistant", "gpt")
    return is_dialogue(value)


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


def _short(values: Mapping[Steps, Any]) -> list[Steps]:
    """Return the columns with a number or a word, which may hold a label."""
    return [steps for steps, value in values.items() if isinstance(value, str | int | float) and not _is_text(value)]


def _label(values: Mapping[Steps, Any]) -> Steps | None:
    short = _short(values)
    named = next((steps for steps in short if _named(steps, _LABEL)), None)
    return named or next((steps for steps in short if isinstance(values[steps], bool)), None)


def _only_code(values: Mapping[Steps, Any]) -> Steps | None:
    """Return the only short column that is no name of the row, whatever it is called."""
    others = [steps for steps in _short(values) if str(steps[-1]) not in HARMLESS]
    return others[0] if len(others) == 1 else None


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

    found = max(itertools.combinations(answers, 2), key=likeness, default=None)
    return found if found and likeness(found) >= _ALIKE else None


def _only_two(answers: Mapping[Steps, Any], prompt: Steps | None) -> tuple[Steps, Steps] | None:
    """Return the only two texts beside a prompt, whatever their names."""
    if prompt is None or len(answers) != 2:
        return None
    first, second = answers
    return first, second


def _several(values: Mapping[Steps, Any]) -> str | None:
    """Return the entries for a list of responses: of objects with a text, or of texts, and their scores."""
    for steps, value in values.items():
        if not isinstance(value, list) or len(value) < 2 or _is_conversation(value):
            continue
        if all(isinstance(item, Mapping) for item in value):
            inside = dict(_leaves(value[0], (*steps, None)))
            found = {path: item for path, item in inside.items() if _is_text(item)}
            text = max(found, key=lambda path: len(found[path]), default=None)
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
    value = int(value) if isinstance(value, str) and value in ("0", "1", "2") else value  # a cell of CSV is a text
    if isinstance(value, bool):
        return "{true:a,false:b}"
    if isinstance(value, int | float):
        if value in (0, 1, 2):
            return "{1:a,2:b}" if value else "{0:a,1:b}"
        return "{<1.5:a,>1.5:b,1.5:tie}" if 1 < value < 2 else "{<0:a,>0:b,0:tie}" if value < 0 else "{…:a,…:b}"
    return "" if verdicts.is_known(value) else f"{{{written(str(value))}:a,…:b}}"


def _truths(value: Any) -> str:
    """Return what the values of a label may mean, from one of them."""
    if isinstance(value, str):
        return f"{{{written(value)}:true,…:false}}"
    return "" if value in (0, 1) else "{>0:true,<0:false}"
