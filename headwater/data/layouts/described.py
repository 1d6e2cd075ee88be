"""Layouts of rows that `--columns` describes: pairs, two answers with a verdict, candidates, single responses."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, NamedTuple

from headwater.data.layouts import continuations, pairs, rated, verdicts
from headwater.data.layouts.comparisons import majority
from headwater.data.layouts.description import KINDS, WITH_TOOLS, Description, Kind
from headwater.data.layouts.dialogues import is_dialogue
from headwater.data.layouts.fields import complete, kind, label, listed, number
from headwater.data.layouts.layout import (
    Broken,
    CandidatesDraft,
    Cells,
    Draft,
    Fields,
    Layout,
    NoPreference,
    Part,
    UnpairedDraft,
)
from headwater.data.layouts.messages import answer, conversation, is_whole_conversation, prompt, text_of, with_system
from headwater.data.layouts.tools import check_text
from headwater.data.layouts.unread import Columns
from headwater.data.preference import Message, Response

_NUMBERS = verdicts.Numbers("a number that is given its meaning, such as winner=label{1:a,2:b}", lambda _: None)


def pair(fields: Fields) -> Draft:
    """`chosen` and `rejected`, texts behind a `prompt` or whole conversations."""
    if fields.get("prompt") is not None:
        whole = is_whole_conversation(fields["chosen"])
        return pairs.prompt_and_conversations(fields) if whole else pairs.explicit(fields)
    return pairs.hh(fields) if all(is_dialogue(fields[side]) for side in pairs.SIDES) else pairs.implicit(fields)


class Compared(NamedTuple):
    """Two answers and a verdict."""

    prompt: tuple[Message, ...]
    first: Response
    second: Response
    preference: float | None
    """Preference for the second answer, 0 to 1; None without a verdict."""


def verdict(fields: Fields) -> float | None:
    """Return the preference for the second answer, 0 to 1, by the `winner`; None without a verdict.

    Of a list, the votes of several annotators, most decide; as many for one as for the other are a tie.
    """
    votes = listed(fields, "winner")
    if isinstance(votes, list):
        return majority([verdicts.share({"winner": vote}, "winner", _NUMBERS) for vote in votes])
    return verdicts.share(fields, "winner", _NUMBERS)


def texts_compared(fields: Fields) -> Compared:
    """Return two answers as texts, the last turns of conversations. Errors: `Broken`, also for a call of a tool."""
    found = compared(fields)
    draft = continuations.compared(Draft(found.prompt, found.first, found.second), "last")
    assert isinstance(draft, Draft)
    for side, response in zip("ab", draft[1:], strict=True):
        check_text(response, side)
    return Compared(*draft, found.preference)


def compared(fields: Fields) -> Compared:
    """Two answers `a` and `b`, texts or conversations, and the `winner`: a, b, tie, or another known spelling."""
    preference = verdict(fields)
    row: dict[str, Any] = {name: fields[name] for name in ("prompt", "system") if name in fields}
    for side, one in zip(pairs.SIDES, "ab", strict=True):
        row |= {side: fields[one], f"score_{side}": fields.get(f"score_{one}")}
    prompt, first, second = pair(Cells(row) if isinstance(fields, Cells) else row)
    return Compared(prompt, first, second, preference)


def judged(fields: Fields) -> Draft:
    """The better and the other one of two answers."""
    asked, first, second, preference = compared(fields)
    if preference is None:
        raise NoPreference("no_verdict")
    if preference == 0.5:
        raise NoPreference("tie")
    return Draft(asked, second, first) if preference > 0.5 else Draft(asked, first, second)


def candidates(fields: Fields) -> CandidatesDraft:
    """`responses` to a `prompt` with their `scores`, or their `ranks`, 1 for the best (the score is the negative)."""
    responses, scores = _list(fields, "responses"), _scores(fields)
    if scores is not None and len(responses) != len(scores):
        raise Broken(f"{len(responses)} responses and {len(scores)} scores", "expected one for each")
    texts = [text_of({"responses": response}, "responses") for response in responses]
    both = zip(texts, scores or [None] * len(texts), strict=True)
    return CandidatesDraft(prompt(fields, "prompt"), tuple(Response(text, score) for text, score in both))


def _scores(fields: Fields) -> list[float | None] | None:
    given = [column for column in ("scores", "ranks") if fields.get(column) is not None]
    if len(given) > 1:
        raise Broken("scores and ranks", "expected one of them")
    for column in given:
        cells = Cells if isinstance(fields, Cells) else dict
        values = [number(cells({column: value}), column) for value in _list(fields, column)]
        return [-value if column == "ranks" and value is not None else value for value in values]
    return None


def _list(fields: Fields, column: str) -> list[Any]:
    value = listed(fields, column)
    if not isinstance(value, list):
        raise Broken(f"{column} is {kind(value)}", f"expected a list, such as {column}=answers[].text")
    return value


def single(fields: Fields) -> UnpairedDraft:
    """A `completion` and its `label`; without a `prompt`, a whole conversation."""
    return UnpairedDraft(*answered(fields), label(fields, "label"))


def shown(fields: Fields) -> UnpairedDraft:
    """A `completion` without a label: a demonstration, read as a desirable response."""
    return UnpairedDraft(*answered(fields), label=True)


def one_rated(fields: Fields) -> Part:
    """A `completion` with a `score` and no label: rows with the same prompt become one record."""
    asked, response = answered(fields)
    return rated.part(asked, check_text(response, "completion"))


def answered(fields: Fields) -> tuple[tuple[Message, ...], Response]:
    """Return the prompt and the `completion`, which without a `prompt` is a whole conversation."""
    whole = fields.get("prompt") is None
    before, response = conversation(fields, "completion") if whole else ((), answer(fields, "completion"))
    asked = with_system(fields, before) if whole else prompt(fields, "prompt")
    return asked, replace(response, score=number(fields, "score"), complete=complete(fields, "complete"))


def _reads(kind: Kind) -> tuple[str, ...]:
    return (*WITH_TOOLS, *KINDS[kind])


LAYOUTS: dict[Kind, Layout] = {
    "pairs": Layout(pairs.SIDES, pair, reads=_reads("pairs")),
    "judged": Layout(("a", "b", "winner"), judged, reads=_reads("judged")),
    "candidates": Layout(("prompt", "responses"), candidates, yields="candidates", reads=_reads("candidates")),
    "unpaired": Layout(("completion", "label"), single, yields="unpaired", reads=_reads("unpaired")),
}
"""Layouts by the kind of data that a description describes."""
SHOWN = Layout(("completion",), shown, yields="unpaired", reads=_reads("unpaired"))
RATED = Layout(
    ("completion", "score"), one_rated, yields="candidates", reads=_reads("unpaired"), together=rated.BY_PROMPT
)
"""Layouts of single responses without a label: without and with a score."""
PROMPTS = Columns(WITH_TOOLS)
"""What is read of described prompts without responses."""


def layout_of(description: Description, fields: Fields) -> tuple[Layout, str]:
    """Return the layout of a row that has its described names, and its description.

    Errors: `Broken` where a name that the layout needs is neither described nor a column of the row.
    """
    layout = LAYOUTS[description.kind]
    if description.kind == "unpaired" and "label" not in fields:
        layout = RATED if "score" in fields else SHOWN
    missing = [name for name in layout.columns if name not in fields]
    if missing:
        found = f"{description.flag} names no {' and no '.join(missing)}"
        raise Broken(found, f"expected {', '.join(layout.columns)}", f"add {missing[0]}=COLUMN", code="UNKNOWN_LAYOUT")
    return layout, f"described ({description.text})"
