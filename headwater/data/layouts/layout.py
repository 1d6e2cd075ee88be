"""What a layout is: the columns that identify it, its reader, and the kinds of drafts that a reader returns."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from headwater.data.preference import Message, Response

Fields = Mapping[str, Any]
"""One row of a data set: column name to value, as `json.loads` returns values."""


class Cells(dict[str, Any]):
    """Fields of a row of CSV, where every value is a text: a layout converts numbers, booleans and lists itself."""


MESSAGE_KEYS = ("role", "content", "from", "value", "type", "text")
"""Keys of a message, and of the parts of its content, that are read."""
Yields = Literal["preferences", "candidates", "unpaired"]


class NoPreference(Exception):  # noqa: N818 - a verdict on a row, not an error
    """A well-formed row that holds no preference; the argument is the reason under which it is counted."""


class Broken(Exception):  # noqa: N818 - a verdict on a row; a DataError only once there are too many
    """A malformed row: what was found, what was expected, and the code under which the row is quarantined."""

    def __init__(self, *parts: str, code: str = "MALFORMED", column: int | None = None) -> None:
        super().__init__(*filter(None, parts))
        self.code = code
        self.column = column
        """Where in its line JSON is broken, counted from 1; None where that is not known."""

    @property
    def message(self) -> str:
        """Everything that is known about the problem, in one line."""
        return " · ".join(self.args)


class Draft(NamedTuple):
    """A pair as a layout reads it, before the checks that all layouts share."""

    prompt: tuple[Message, ...]
    chosen: Response
    rejected: Response


class CandidatesDraft(NamedTuple):
    """Several responses to one prompt as a layout reads them, before the checks that all layouts share."""

    prompt: tuple[Message, ...]
    responses: tuple[Response, ...]


class UnpairedDraft(NamedTuple):
    """One labelled response as a layout reads it, before the checks that all layouts share."""

    prompt: tuple[Message, ...]
    response: Response
    label: bool


AnyDraft = Draft | CandidatesDraft | UnpairedDraft


class Part(NamedTuple):
    """What one row gives to the records of several rows: a rated response, or a message of a tree."""

    key: Hashable
    """The same for the rows that belong together."""
    content: Any
    """What `Together.join` takes."""
    notes: tuple[str, ...] = ()
    """Rules that were applied, by name, for the row counts."""


@dataclass(frozen=True)
class Together:
    """How rows that belong together become records. All rows of the data are held in memory until the last is read."""

    join: Callable[[Sequence[Any]], Sequence[CandidatesDraft | NoPreference]]
    """Contents of the parts with one key, in the order of the data, to drafts, or to why there is none."""
    note: str
    """Name under which the rows are counted with the row counts."""


@dataclass(frozen=True)
class Layout:
    """A public form of preference data: which rows have it, and how such a row is read."""

    columns: tuple[str, ...]
    """Columns that every row must have."""
    read: Callable[[Fields], AnyDraft | Part]
    """Returns the draft of a row, or its part in the drafts of several. Errors: `NoPreference`, `Broken`."""
    recognise: Callable[[Fields], bool] = lambda fields: True
    """Tells layouts apart that have the same columns."""
    without: tuple[str, ...] = ()
    """Columns that a row of this layout does not have."""
    yields: Yields = "preferences"
    reads: tuple[str, ...] = ()
    """Optional columns that are read as well."""
    items: tuple[str, ...] = MESSAGE_KEYS
    """Keys that are read of the objects in a column: of a message, or of one of several responses."""
    told_by: tuple[str, ...] = ()
    """Columns by which `recognise` knows it, of which a row has some."""
    skips: tuple[str, ...] = ()
    """Columns that hold what other columns hold as well: named and not refused, whatever their name."""
    one_to_two: Callable[[Fields], str | None] | None = None
    """Returns the column of a row's verdict, where that is a number from 1 to 2 and 0 is a tie (`codes.py`)."""
    together: Together | None = None
    """How several rows become records; None where every row is one."""

    def identifying(self, fields: Fields) -> tuple[str, ...]:
        """Return the columns of a row that identify the layout."""
        return (*self.columns, *(column for column in self.told_by if column in fields))

    def fits(self, fields: Fields) -> bool:
        """Return whether a row has this layout."""
        return (
            all(column in fields for column in self.columns)
            and not any(column in fields for column in self.without)
            and self.recognise(fields)
        )
