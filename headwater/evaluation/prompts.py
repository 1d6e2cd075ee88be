"""Evaluation prompts, and conversations as the text that a judge is shown.

Beside the prompts of any data (`data/prompts.py`), those of recorded answers are read: of AlpacaEval, or our own.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from headwater.data import reading
from headwater.data.layouts import with_messages
from headwater.data.layouts.prompts import turns_of
from headwater.data.layouts.unread import Columns
from headwater.data.preference import Message, Prompted
from headwater.data.prompts import PromptRows, check_column, read_prompts
from headwater.data.reading import ReadOptions, Row, RowCounts
from headwater.data.sampling import Asked, asked
from headwater.errors import UsageError

_READS = Columns(("prompt", "instruction"), ("id", "dataset", "output", "generator", "complete", "tokens", "system"))
"""Columns of answers that `headwater generate` and AlpacaEval record; of these, the prompts are read."""


def read(place: Path, read_options: ReadOptions | None = None) -> tuple[list[Asked], dict[str, RowCounts]]:
    """Return every distinct prompt once, named by its data set or category, with the row counts.

    Errors: `DataError` for a row of evaluation prompts that holds none, and for data of unknown layout.
    """
    options = read_options or ReadOptions()
    check_column(None, options)
    first = next(iter(reading.read_rows(place, options)), None)
    if (
        first is None
        or options.layout
        or options.columns
        or not {"instruction", "output", "generator"} <= {*first.fields}
    ):
        found = read_prompts(place, options)
        return found.asked, found.stages
    if options.max_bad_rows != "0":
        raise UsageError("--max-bad-rows", "has no effect on evaluation prompts", "leave it out")
    rows = RecordedAnswers(place, options, _READS)
    prompts, row_counts = asked(rows)
    row_counts.not_read = rows.not_read
    row_counts.notes.update(rows.notes)
    return prompts, {"prompts": row_counts}


class RecordedAnswers(PromptRows):
    """The prompts of recorded answers."""

    def _prompted(self, row: Row) -> Prompted:
        fields = self.unread.check(with_messages(row.fields)[0])
        # Of our own answers, conversations alone have a list of messages; the others say it all in the instruction.
        column = "prompt" if fields.get("prompt") is not None else "instruction"
        return self.named(turns_of(fields, column), fields, row)


def as_text(prompt: Sequence[Message]) -> str:
    """Return the text of a prompt: a single user message unchanged, a conversation turn by turn."""
    if len(prompt) == 1 and prompt[0].role == "user":
        return prompt[0].content
    return "\n\n".join(f"[{message.role}]\n{message.content}" for message in prompt)
