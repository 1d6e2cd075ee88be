"""Rows in, and an account of every row: kept, quarantined because it is bad, or dropped because it compares nothing.

    loaded = reading.load("pairs.jsonl")                            # all pairs; load_examples: also labelled responses
    intake = reading.stream("pairs.jsonl", Door(max_bad_rows="1%"))  # one by one: preferences, candidates, unpaired
    for record in intake: ...
    intake.account, intake.layout, intake.quarantine.save(path)

**Bad** rows go to the quarantine, each under a code, and stop the reading once there are more than `--max-bad-rows`.
A record of JSON lines holds the `offset` of its line in bytes: `tail -c +$((offset + 1)) FILE | head -1` shows it.

    code            the row
    BROKEN_JSON     is not JSON; the column says where. NaN and Infinity are not JSON either
    TORN            ends too soon, at the end of its file
    BROKEN_CSV      has more or fewer cells than the header
    NOT_OBJECT      is an array, a number, a text: no object with named fields
    DUPLICATE_KEY   has a key twice, so that one of its values would be lost
    UNICODE         holds a byte that is not UTF-8, or half a character
    UNKNOWN_LAYOUT  comes before any good row, and has columns of no or several layouts
    MISSING         lacks a column of the layout
    ROLE            has a turn of an unknown role, or of the wrong one for its place
    NO_USER_TURN, NO_ASSISTANT_TURN   has a conversation without the turn that is needed
    SCORE           has a score that is NaN or infinite
    TOOLS, MEDIA, REASONING, CONTEXT, WEIGHT, NAME   has a field that changes what the row means, and that its layout
                    does not read (`data/layouts/unread.py`); --ignore-columns passes over it
    MALFORMED       has something else in a column than the layout expects

Columns that hold something else and are not read are named in the account.

**Dropped** are well-formed rows without a preference: `empty_response`, `identical_responses`, `prompts_differ`,
`equal_ratings`, `tie`, `duplicate` (of an earlier row), `flipped_label` (an earlier row with the label turned round:
the first one stays).
"""

from __future__ import annotations

from headwater.data.preference import Record
from headwater.data.reading.counts import QUARANTINE, Quarantine, RowCounts
from headwater.data.reading.formats import FORMATS, format_of
from headwater.data.reading.options import ReadOptions
from headwater.data.reading.places import PREFERENCES, data_file
from headwater.data.reading.reader import (
    Loaded,
    Row,
    RowReader,
    conditioned,
    examples,
    load,
    load_examples,
    read_rows,
    stream,
)
from headwater.data.writing import check_writable, export, write

__all__ = [
    "FORMATS",
    "PREFERENCES",
    "QUARANTINE",
    "Loaded",
    "Quarantine",
    "ReadOptions",
    "Record",
    "Row",
    "RowCounts",
    "RowReader",
    "check_writable",
    "conditioned",
    "data_file",
    "examples",
    "export",
    "format_of",
    "load",
    "load_examples",
    "read_rows",
    "stream",
    "write",
]
