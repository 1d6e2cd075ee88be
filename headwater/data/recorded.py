"""Values that runs recorded for rows, joined with the same rows of other data.

Several rows may have one id: rows of one prompt, or lines of two files of one name. Runs therefore record the `key` of
a row too, a hash of its texts, and rows are joined by that. A row whose responses were cut, or that has a condition in
only one of the places, has other texts there: it is found by id and conversation, where these identify one row. So are
all rows of runs of headwater 0.1, which recorded no key.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Generic, NamedTuple, TypeVar

from headwater.data.preference import Candidates, Example, Prompted
from headwater.errors import DataError

Value = TypeVar("Value")


class RowName(NamedTuple):
    """What identifies a row."""

    id: str
    conversation_id: str | None = None
    """None where a run did not record it."""
    key: str | None = None
    altered: bool = False
    """Whether its texts may differ elsewhere: a response was cut, or the row has a condition."""

    @classmethod
    def of(cls, row: Prompted) -> RowName:
        """Return the identification of a row of data."""
        responses = row.responses if isinstance(row, Candidates | Example) else ()
        altered = bool(row.condition) or not all(response.complete for response in responses)
        return cls(row.id, row.conversation_id, row.key, altered)

    @classmethod
    def read(cls, record: Mapping[str, Any]) -> RowName:
        """Return the identification of `record`, a row of the records of a run."""
        conversation_id = record.get("conversation_id", record.get("opening"))  # headwater 0.1 wrote `opening`
        return cls(str(record.get("id")), conversation_id, record.get("key"), bool(record.get("altered")))

    def record(self) -> dict[str, Any]:
        """Return the first columns of the row in a run's records."""
        return self._asdict()


class Recorded(Generic[Value]):
    """Values that a run recorded, by row; each is used for one row only."""

    def __init__(self, name: str, rows: Iterable[tuple[RowName, Value]]) -> None:
        """Index the values of the run `name`."""
        self.name = name
        found = list(rows)
        self.first_id = found[0][0].id if found else ""
        """The id of the first row, for messages."""
        self._by_key = {row.key: (place, value) for place, (row, value) in enumerate(found) if row.key}
        self._by_id: dict[str, list[tuple[int, RowName, Value]]] = {}
        for place, (row, value) in enumerate(found):
            self._by_id.setdefault(row.id, []).append((place, row, value))
        self._given: dict[int, RowName] = {}

    @property
    def given(self) -> int:
        """Return how many values have been used."""
        return len(self._given)

    def of(self, row: RowName) -> Value | None:
        """Return the value of a row; None where the run has none.

        Errors: `DataError` where only the id could identify the row, and several rows have it.
        """
        place, value = self._by_key.get(row.key or "") or self._called(row) or (None, None)
        if place is None:
            return None
        if self._given.setdefault(place, row) != row:
            raise self._ambiguous(row, "in this data")
        return value

    def _called(self, row: RowName) -> tuple[int, Value] | None:
        """Find a row by its id, where its texts may differ."""
        rows = [(place, known, value) for place, known, value in self._by_id.get(row.id, ()) if _may_be(known, row)]
        if len(rows) > 1:
            raise self._ambiguous(row, "in that run")
        return (rows[0][0], rows[0][2]) if rows else None

    def _ambiguous(self, row: RowName, where: str) -> DataError:
        problem = f"several rows {where} have the id {row.id}, and nothing else identifies the right one"
        return DataError(self.name, problem, "make that run again on this data")


def _may_be(known: RowName, row: RowName) -> bool:
    """Return whether two rows with one id can be the same, although their keys differ."""
    if None not in (known.conversation_id, row.conversation_id) and known.conversation_id != row.conversation_id:
        return False
    return None in (known.key, row.key) or known.altered or row.altered
