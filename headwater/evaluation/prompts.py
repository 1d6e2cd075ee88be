"""Evaluation prompts of AlpacaEval, Arena-Hard and other data, and conversations as the text that a judge is shown.

Formats:

AlpacaEval     instruction, dataset (output and generator beside them do not count)
Arena-Hard     prompt (v2.0 and its v0.1 file), category; or turns, with one turn
conversations  prompt, a list of messages
preferences    data of any kind that headwater reads, each prompt once
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from headwater.data import reading
from headwater.data.layouts import Broken, fields, messages, with_messages
from headwater.data.preference import Message, Prompted
from headwater.data.prompts import check_column, read_prompts
from headwater.data.reading import ReadOptions, Row, RowCounts
from headwater.data.sampling import Asked, asked
from headwater.errors import DataError, UsageError

COLUMNS = ("prompt", "instruction", "turns")
"""Columns of a prompt, in order of preference: answers written by headwater have a conversation beside its text."""
_BESIDE = {"dataset", "datasplit", "category", "subcategory", "cluster", "id", "uid", "question_id", "system"}
_ANSWERED = {"output", "generator", "complete", "tokens"}


def read(place: Path, read_options: ReadOptions | None = None) -> tuple[list[Asked], dict[str, RowCounts]]:
    """Return every distinct prompt once, named by its data set or category, with the row counts.

    Errors: `DataError` for a row of evaluation prompts that holds none, and for data of unknown layout.
    """
    options = read_options or ReadOptions()
    check_column(None, options)
    first = next(iter(reading.read_rows(place, options)), None)
    column = first and _column(first.fields)
    if not column or options.layout or options.columns:
        found = read_prompts(place, options)
        return found.asked, found.stages
    if options.max_bad_rows != "0":
        raise UsageError("--max-bad-rows", "has no effect on evaluation prompts", "leave it out")
    prompts, row_counts = asked(_prompts(place, column, options))
    return prompts, {"prompts": row_counts}


def _column(row: Mapping[str, Any]) -> str | None:
    """Return the column of evaluation prompts, None for rows that compare something."""
    known = {*COLUMNS} | _BESIDE | _ANSWERED
    return next((column for column in COLUMNS if row.get(column) and set(row) <= known), None)


def _prompts(place: Path, column: str, options: ReadOptions) -> Iterator[Prompted]:
    for row in itertools.islice(reading.read_rows(place, options), options.limit):
        try:
            prompt = _prompt(row._replace(fields=dict(with_messages(row.fields)[0])), column)
        except Broken as problem:
            raise DataError(row.place, *problem.args) from problem
        source = row.fields.get("dataset") or row.fields.get("category") or ""
        name = row.fields.get("id") or row.fields.get("uid") or row.fields.get("question_id")
        one = Prompted(prompt=prompt, id=str(name or Path(row.place).name), source=str(source))
        yield reading.conditioned(one, row, options)


def _prompt(row: Row, column: str) -> tuple[Message, ...]:
    if column == "turns":
        turns = fields.listed(row.fields, column)
        turns = fields.items(row.fields, column) if _are_objects(turns) else turns
        if len(turns) != 1:
            raise Broken(f"{column} holds {len(turns)}", "expected one: a second turn needs an answer to the first")
        return messages.prompt({"prompt": turns[0]["content"] if isinstance(turns[0], dict) else turns[0]}, "prompt")
    # Of our own answers, conversations alone have a list of messages; the others say it all in the instruction.
    place = column if row.fields.get(column) is not None else "instruction"
    prompt = messages.prompt(row.fields, place)
    if prompt[-1].role != "user":
        raise Broken(f"{place} ends with the turn of the {prompt[-1].role}", "expected a user's")
    return prompt


def _are_objects(turns: Any) -> bool:
    return not (isinstance(turns, list) and all(isinstance(turn, str) for turn in turns))


def as_text(prompt: Sequence[Message]) -> str:
    """Return the text of a prompt: a single user message unchanged, a conversation turn by turn."""
    if len(prompt) == 1 and prompt[0].role == "user":
        return prompt[0].content
    return "\n\n".join(f"[{message.role}]\n{message.content}" for message in prompt)
