"""Reads preference data: every row is kept, quarantined as malformed, or dropped because it holds no preference.

    loaded = reading.load("pairs.jsonl")            # all pairs in memory; load_examples: also labelled responses
    row_reader = reading.stream("pairs.jsonl", ReadOptions(max_bad_rows="1%"))
    for record in row_reader: ...                   # one by one: preferences, candidates, unpaired responses
    row_reader.row_counts, row_reader.layout, row_reader.quarantine.save(path)

    places.py    where data is: a file, a folder, a data set on the hub  →  parts
    memory.py    lists, data frames and data sets in memory               →  rows
    formats.py   JSON lines, JSON, CSV, Parquet, Arrow                   →  rows (strict.py, arrays.py: JSON)
    records.py   the layout of the first good row (`data/layouts/`)      →  records
    reader.py    duplicates, and what becomes of every row               →  counting.py, counts.py, reasons.py

**Malformed** rows are quarantined under a code; more of them than `--max-bad-rows` stop the reading. For JSON lines the
quarantine has the `offset` of the line in bytes: `tail -c +$((offset + 1)) FILE | head -1` prints it.

    code            the row
    BROKEN_JSON     is not JSON; the column says where. NaN and Infinity are not JSON either
    TORN            ends too soon, at the end of its file
    BROKEN_CSV      has more or fewer cells than the header
    NOT_OBJECT      is an array, a number or a text, not an object with named fields
    DUPLICATE_KEY   has a key twice, so that one of its values would be lost
    UNICODE         holds a byte that is not UTF-8, or half a character
    UNKNOWN_LAYOUT  comes before any good row, and its columns fit no layout or several
    MISSING         lacks a column of the layout
    ROLE            has a turn of an unknown role, or of the wrong one for its place
    NO_USER_TURN, NO_ASSISTANT_TURN   has a conversation without the turn that is needed
    SCORE           has a score that is NaN or infinite
    TOOLS, MEDIA, REASONING, CONTEXT, WEIGHT, NAME   has a field that changes what the row means and that its layout
                    does not read (`data/layouts/unread.py`); --ignore-columns skips the field
    MALFORMED       has a value of another type or form than the layout expects

Other columns that hold values and are not read are named with the row counts.

**Dropped** are well-formed rows without a preference: `empty_response`, `identical_responses`, `prompts_differ`,
`equal_ratings`, `tie`, `duplicate` (of an earlier row), `flipped_label` (an earlier row with the label turned round:
the first one stays).
"""

from __future__ import annotations

from headwater.data.preference import Record
from headwater.data.reading.counting import RowCounter
from headwater.data.reading.counts import QUARANTINE, Quarantine, RowCounts
from headwater.data.reading.formats import FORMATS, format_of
from headwater.data.reading.memory import name_of
from headwater.data.reading.options import LayoutOptions, ReadOptions
from headwater.data.reading.places import PREFERENCES, data_file
from headwater.data.reading.reader import (
    Loaded,
    Row,
    RowReader,
    conditioned,
    examples,
    good_rows,
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
    "LayoutOptions",
    "Loaded",
    "Quarantine",
    "ReadOptions",
    "Record",
    "Row",
    "RowCounter",
    "RowCounts",
    "RowReader",
    "check_writable",
    "conditioned",
    "data_file",
    "examples",
    "export",
    "format_of",
    "good_rows",
    "load",
    "load_examples",
    "name_of",
    "read_rows",
    "stream",
    "write",
]
