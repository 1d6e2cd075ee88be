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
from headwater.data.prompts import PromptRows, Prompts, read_prompts
from headwater.data.reading import ReadOptions, Row

_READS = Columns(("prompt", "instruction"), ("id", "dataset", "output", "generator", "complete", "tokens", "system"))
"""Columns of answers that `headwater generate` and AlpacaEval record; of these, the prompts are read."""


def read(place: Path, read_options: ReadOptions | None = None) -> Prompts:
    """Return every distinct prompt once, named by its data set or category, with the row counts.

    Errors: `DataError` for more rows without a prompt than `--max-bad-rows`, and for data of unknown layout.
    """
    options = read_options or ReadOptions()
    first = next(reading.good_rows(place, options), None)
    if (
        first is None
        or options.layout
        or options.columns
        or not {"instruction", "output", "generator"} <= {*first.fields}
    ):
        return read_prompts(place, options)
    return RecordedAnswers(place, options, _READS).prompts()


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
        return prompt[0].shown
    return "\n\n".join(f"[{message.role}]\n{message.shown}" for message in prompt)
