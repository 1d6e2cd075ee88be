"""What a layout is: the columns it is known by, its reader, and the three things a reader may draft."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from headwater.data.preference import Message, Response

Fields = Mapping[str, Any]


class Cells(dict[str, Any]):
    """The fields of a row of a format that has nothing but texts: numbers, truth values and lists are texts too."""


Yields = Literal["preferences", "candidates", "unpaired"]


class NoPreference(Exception):  # noqa: N818 - a verdict on a row, not an error
    """The row is well formed but holds no preference; the argument is the reason it is counted under."""


class Broken(Exception):  # noqa: N818 - becomes a DataError once the row's place is known
    """The row is not well formed: (what was found, what was expected, …), and the code it is set aside under."""

    def __init__(self, *parts: str, code: str = "MALFORMED") -> None:
        super().__init__(*parts)
        self.code = code


class Draft(NamedTuple):
    """A pair as a layout reads it, before the common checks."""

    prompt: tuple[Message, ...]
    chosen: Response
    rejected: Response


class CandidatesDraft(NamedTuple):
    """Several responses to one prompt as a layout reads them, before the common checks."""

    prompt: tuple[Message, ...]
    responses: tuple[Response, ...]


class UnpairedDraft(NamedTuple):
    """One labelled response as a layout reads it, before the common checks."""

    prompt: tuple[Message, ...]
    response: Response
    label: bool


AnyDraft = Draft | CandidatesDraft | UnpairedDraft


@dataclass(frozen=True)
class Layout:
    """A layout: the columns it is known by and those it must not have, a test where columns do not tell, its reader."""

    columns: tuple[str, ...]
    read: Callable[[Fields], AnyDraft]
    recognise: Callable[[Fields], bool] = lambda fields: True
    without: tuple[str, ...] = ()
    yields: Yields = "preferences"
    reads: tuple[str, ...] = ()
    """Columns that it also reads where they are there."""
    items: tuple[str, ...] = ("role", "content", "from", "value")
    """What it reads of an object in a list: of a message, or of one of several responses."""
    texts: Callable[[Any], Any] | None = None
    """Reads many rows at once, of the commonest layouts; see `texts.py`."""

    def fits(self, fields: Fields) -> bool:
        """Say whether a row is of this layout."""
        return (
            all(column in fields for column in self.columns)
            and not any(column in fields for column in self.without)
            and self.recognise(fields)
        )
