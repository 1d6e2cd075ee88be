"""AlpacaEval's answers and its official win rate (tatsu-lab/alpaca_eval).

Answers are rows of instruction, output and generator, one JSON array per model. Arena-Hard's answers (uid, messages,
model) are read too, and the output of `headwater sample --n 1`. A conversation of several turns is also stored as a
list of messages, in the column prompt.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from headwater.data import reading
from headwater.data.layouts import Broken, described, with_messages
from headwater.data.layouts.description import ALWAYS, Description
from headwater.data.layouts.layout import MESSAGE_KEYS
from headwater.data.layouts.messages import instructed, messages
from headwater.data.layouts.suggestion import suggest
from headwater.data.layouts.tools import check_text
from headwater.data.layouts.unread import Columns, Unread
from headwater.data.preference import Message
from headwater.data.reading import ReadOptions
from headwater.errors import DataError, UsageError
from headwater.evaluation.prompts import as_text


class Answer(NamedTuple):
    """Answer of one model to one prompt."""

    prompt: str
    """The text that a judge is shown."""
    text: str
    model: str
    category: str = ""
    complete: bool | None = None
    """False for an answer that was cut off; None where it is not recorded."""
    tokens: int | None = None
    """Length in tokens of the model that wrote it."""
    turns: tuple[Message, ...] = ()
    """The conversation that it answers; empty for a user's one message."""

    @property
    def conversation(self) -> tuple[Message, ...]:
        """Return the prompt as the model receives it."""
        return self.turns or (Message("user", self.prompt),)


def answer_to(
    conversation: tuple[Message, ...],
    text: str,
    model: str,
    category: str = "",
    complete: bool | None = None,
    tokens: int | None = None,
) -> Answer:
    """Return an answer to a prompt of any number of turns."""
    plain = len(conversation) == 1 and conversation[0].role == "user" and not conversation[0].extra
    return Answer(as_text(conversation), text, model, category, complete, tokens, () if plain else conversation)


ANSWER_COLUMNS = Columns(
    ("instruction", "input", "history", "system", "output", "messages", "completions"),
    reads=("complete", "tokens", "prompt", "generator", "dataset", "category", "model", "ans_id", "tstamp"),
    items=(*MESSAGE_KEYS, "response", "complete", "answer"),
)
"""What is read of the rows of answers: of AlpacaEval, of Arena-Hard, and of sampled responses."""
DESCRIBED = (*ALWAYS, "completion", "complete")
"""Names that a description of answers may have."""
EXPECTED = "expected instruction and output, or uid and messages"
_MODELS = ("generator", "model")
"""Columns that name the model, in rows that are described too."""


class WinRate(NamedTuple):
    """Upstream's figures of the second outputs, rates in per cent."""

    win_rate: float
    standard_error: float
    n_wins: int
    n_wins_base: int
    n_draws: int
    n_total: int
    discrete_win_rate: float


def win_rate(preferences: Sequence[float]) -> WinRate:
    """Return the official figures of `preferences` for the second output, 0 to 1, ½ a draw.

    `win_rate` is the mean; `discrete_win_rate` counts every preference as won, lost or drawn.
    """
    x = np.asarray(preferences, dtype=np.float64)
    wins, losses, total = int((x > 0.5).sum()), int((x < 0.5).sum()), len(x)
    draws = total - wins - losses
    error = float(x.std(ddof=1) / np.sqrt(total)) if total > 1 else float("nan")
    return WinRate(100 * float(x.mean()), 100 * error, wins, losses, draws, total, 100 * (wins + draws / 2) / total)


class AnswerFile(NamedTuple):
    """The answers in a file."""

    answers: list[Answer]
    not_read: list[str]
    """Columns that hold values and are not read."""


def read_answers(path: Path, name: str | None = None, description: Description | None = None) -> AnswerFile:
    """Return the answers in a file; `name` is the model where rows name none.

    `description` is that of `--columns`, for a file of another form. Errors: `UsageError` for a description of other
    data; `DataError` by row, for a row that is no answer or has a column that changes its meaning and is not read,
    and for a prompt that is answered twice.
    """
    _check_names(description)
    found: dict[str, Answer] = {}
    unread = Unread(Columns(DESCRIBED) if description else ANSWER_COLUMNS)
    default = name or reading.name_of(path)
    for row in reading.read_rows(path, ReadOptions()):
        try:
            if description:
                answer = _described(row.fields, description, unread, default)
            else:
                answer = _answer(unread.check(row.fields), default)
        except Broken as problem:
            raise DataError(row.place, *problem.args) from None
        except (KeyError, TypeError, IndexError) as error:
            what = f"{type(error).__name__}: {error}"
            raise DataError(row.place, what, EXPECTED) from None
        if answer.prompt in found:
            raise DataError(row.place, "answers a prompt for the second time", "expected one answer a prompt")
        found[answer.prompt] = answer
    if not found:
        raise DataError(str(path), "holds no answers")
    models = {answer.model for answer in found.values()}
    if len(models) > 1:
        raise DataError(str(path), f"holds answers of {', '.join(sorted(models))}", "expected one model a file")
    return AnswerFile(list(found.values()), unread.names)


def _check_names(description: Description | None) -> None:
    """Errors: `UsageError` for a description of other data than answers."""
    if description and not ({"completion"} <= set(description.sources) <= set(DESCRIBED)):
        names = ", ".join(description.sources)
        raise UsageError(f"{description.flag} names {names}", "expected prompt and completion", "leave other names out")


def _described(row: Mapping[str, Any], description: Description, unread: Unread, name: str) -> Answer:
    """Read a row that `--columns` describes. Errors: `Broken`."""
    left_out = [(column, value) for column, value in description.left_out(row) if column not in _MODELS]
    fields = unread.check(with_messages(description.row(row))[0], left_out)
    conversation, response = described.answered(fields)
    check_text(response, "completion")
    model = next((str(row[column]) for column in _MODELS if row.get(column)), name)
    complete = response.complete if "complete" in fields else None
    return answer_to(conversation, response.text, model, str(fields.get("source") or ""), complete)


def _answer(fields: Mapping[str, Any], name: str) -> Answer:
    if "messages" in fields:
        *before, last = fields["messages"]
        content = last["content"]
        text = content["answer"] if isinstance(content, Mapping) else content
        prompt = _messages(before)
        return answer_to(prompt, str(text), str(fields.get("model") or name), str(fields.get("category") or ""))
    if "completions" in fields:
        return _sampled(fields, name)
    if missing := [column for column in ("instruction", "output") if column not in fields]:
        found = f"no {' and no '.join(missing)} among {', '.join(fields)}"
        raise Broken(found, EXPECTED, f"or describe it, such as {suggest(fields)}")
    complete, tokens, turns = (fields.get(column) for column in ("complete", "tokens", "prompt"))
    model, category = str(fields.get("generator") or name), str(fields.get("dataset") or "")
    answer = answer_to(
        instructed(fields),
        str(fields["output"]),
        model,
        category,
        None if complete is None else bool(complete),
        None if tokens is None else int(tokens),
    )
    # Of a row that headwater wrote, the instruction is the text of the conversation beside it.
    return answer._replace(turns=_messages(turns)) if isinstance(turns, list) else answer


def _messages(turns: Any) -> tuple[Message, ...]:
    """Read the turns of a conversation. Errors: `Broken`."""
    return messages({"prompt": turns}, "prompt")


def _sampled(fields: Mapping[str, Any], name: str) -> Answer:
    """Read a row of sampled candidates that holds one response. Errors: TypeError, `Broken`."""
    prompt, completions = fields["instruction"], fields["completions"]
    if len(completions) != 1:
        raise TypeError(f"{len(completions)} responses, expected one: sample with --n 1")
    (one,) = completions
    return answer_to(_messages(prompt), str(one["response"]), name, "", bool(one.get("complete", True)))


def as_rows(answers: Sequence[Answer]) -> list[dict[str, Any]]:
    """Return answers as AlpacaEval's rows, with conversation, length and completeness where these are known."""
    return [
        {"dataset": one.category, "instruction": one.prompt, "output": one.text, "generator": one.model}
        | ({"prompt": [message.fields for message in one.turns]} if one.turns else {})
        | ({} if one.complete is None else {"complete": one.complete})
        | ({} if one.tokens is None else {"tokens": one.tokens})
        for one in answers
    ]
