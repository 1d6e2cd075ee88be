"""From the fields of a row to its record, by the layout of the first good row."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Hashable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from headwater.data.layouts import (
    Broken,
    Layout,
    NoPreference,
    Unread,
    described,
    detect,
    draft_to_record,
    with_messages,
)
from headwater.data.layouts.codes import VerdictCodes
from headwater.data.layouts.continuations import compared
from headwater.data.layouts.dialogues import MARKERS_KEPT, has_markers
from headwater.data.layouts.fields import kind
from headwater.data.layouts.layout import CandidatesDraft, Fields, Part, Together, Yields
from headwater.data.layouts.tools import with_tools
from headwater.data.preference import Message, Prompted, Record
from headwater.data.reading.counts import RowCounts
from headwater.data.reading.options import ReadOptions

_NOBODY = (Message("user", ""),)
"""A prompt to put tools into, which has nothing of its own."""
PromptedT = TypeVar("PromptedT", bound=Prompted)


class RecordMaker:
    """Makes records of the rows of one data set, which all have the layout of the first good one.

    `row_counts` gets the names of columns that are not read, and how many rows a special rule was applied to.
    """

    def __init__(self, read_options: ReadOptions, row_counts: RowCounts) -> None:
        self.layout = ""
        """Name of the layout and why it was chosen; empty before the first good row."""
        self.yields: Yields = "preferences"
        """The kind of its records."""
        self._read_options = read_options
        self._row_counts = row_counts
        self._description = read_options.description
        self._known: tuple[Layout, Unread] | None = None
        self.verdict_codes = VerdictCodes()

    def record(self, given: Fields, name: str) -> Record | Held:
        """Return the record of a row, with the id `name` if the row has none; or its part in those of several rows.

        Errors: `NoPreference`, `Broken`.
        """
        description = self._description
        fields, held_as_text = with_messages(description.row(given) if description else given)
        layout, unread = self._known or self._detected(fields, given)
        left_out = description.left_out(given, self._read_options.condition_column) if description else ()
        fields = unread.check(fields, left_out)
        if unread.reads.intersection(held_as_text):
            self._row_counts.notes["messages_as_text"] += 1
        missing = [column for column in layout.columns if column not in fields]
        if missing:
            expected = f"the first row has {', '.join(layout.columns)}"
            raise Broken(f"no {', '.join(missing)}", expected, code="MISSING")
        if layout.one_to_two and (column := layout.one_to_two(fields)):
            self.verdict_codes.add(fields, column)
        draft = layout.read(fields)
        # Of `given`: --condition-column names a column of the data, also where --columns renames others.
        condition = condition_of(given, self._read_options)
        if isinstance(draft, Part):
            tools = with_tools(_NOBODY, fields)[0].extra
            self._row_counts.notes.update([together_of(layout).note, *draft.notes])
            return Held(
                (draft.key, condition, tools), draft.content, {name: fields.get(name) for name in ("id", "source")}
            )
        draft = compared(draft, self._read_options.turns)
        prompt = with_tools(draft.prompt, fields)
        draft = draft if prompt is draft.prompt else draft._replace(prompt=prompt)
        record = self._noted(draft_to_record(draft, fields, name))
        return record if condition is None else dataclasses.replace(record, condition=condition)

    def drafts(self, group: Sequence[Held]) -> Sequence[CandidatesDraft | NoPreference]:
        """Return the drafts of rows that belong together."""
        assert self._known is not None
        return together_of(self._known[0]).join([held.content for held in group])

    def joined(self, draft: CandidatesDraft | NoPreference, first: Held, name: str) -> Record:
        """Return the record of a draft of several rows, with the id of the first or `name`. Errors: `NoPreference`."""
        if isinstance(draft, NoPreference):
            raise draft
        _, condition, tools = first.key
        draft = draft._replace(prompt=with_tools(draft.prompt, json.loads(tools or "{}")))
        record = self._noted(draft_to_record(draft, first.origin, name))
        return record if condition is None else dataclasses.replace(record, condition=condition)

    def _detected(self, fields: Fields, given: Fields) -> tuple[Layout, Unread]:
        """Choose the layout that this row has, for all rows. Errors: `Broken` where none or several fit."""
        options, description = self._read_options, self._description
        if description and description.kind != "prompts" and options.layout_name is None:
            layout, self.layout = described.layout_of(description, fields)
        else:
            layout, self.layout = detect(fields, options.layout_name, given)
        self.yields = layout.yields
        unread = Unread(layout, options.ignored, options.also_read)
        self._row_counts.not_read = unread.names
        self._known = layout, unread
        return self._known

    def _noted(self, record: PromptedT) -> PromptedT:
        """Return a record, after counting the rules that were applied to its texts."""
        if has_markers(record.prompt):
            self._row_counts.notes[MARKERS_KEPT] += 1
        return record


def together_of(layout: Layout) -> Together:
    """Return how the rows of a layout whose reader returns parts become records."""
    assert layout.together is not None
    return layout.together


class Held(NamedTuple):
    """The part of a row in the records of several rows."""

    key: tuple[Hashable, str | None, str]
    """The same for the rows that belong together: the layout's key, the condition, and the tools (`Message.extra`)."""
    content: Any
    origin: Fields
    """Id and source of the row."""


def with_condition(record: PromptedT, fields: Mapping[str, Any], read_options: ReadOptions) -> PromptedT:
    """Return a record with the condition of `--condition` or of its row's `--condition-column`. Errors: `Broken`."""
    text = condition_of(fields, read_options)
    return record if text is None else dataclasses.replace(record, condition=text)


def condition_of(fields: Mapping[str, Any], read_options: ReadOptions) -> str | None:
    """Return the condition that the options give a row, None without one. Errors: `Broken`."""
    if read_options.condition_column is None:
        return read_options.condition
    text = fields.get(read_options.condition_column)
    if not isinstance(text, str) or not text.strip():
        raise Broken(f"{read_options.condition_column} is {kind(text)}", "expected a text: the row's condition")
    return text
