"""Whatever stands in a field of a row, in any layout and at any depth: it is in the record, named, or the row is left
out and counted.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headwater.data.layouts import LAYOUTS
from headwater.data.layouts.unread import HARMLESS
from headwater.data.reading import ReadOptions, stream
from tests.data.layout_examples import EXAMPLES
from tests.data.test_tools import ROW as TOOLS

Way = tuple[str | int, ...]
TEXT, NUMBER = "zorgtext", 987654
OPTIONS = ReadOptions(max_bad_rows="100%")

CASES = [
    pytest.param(name, example.good, id=f"{name}-{number}")
    for name, examples in EXAMPLES.items()
    for number, example in enumerate(examples)
]
CASES.append(pytest.param("explicit-prompt", TOOLS, id="tools"))


def ways(value: Any, way: Way = ()) -> Iterator[tuple[Way, Any]]:
    """Every place in a row with what stands there, from the outside in."""
    yield way, value
    if isinstance(value, dict | list):
        for key, inner in value.items() if isinstance(value, dict) else enumerate(value):
            yield from ways(inner, (*way, key))


def changed(row: dict[str, Any], way: Way, value: Any) -> dict[str, Any]:
    row = copy.deepcopy(row)
    place: Any = row
    for key in way[:-1]:
        place = place[key]
    place[way[-1]] = value
    return row


def changes(row: dict[str, Any]) -> Iterator[tuple[Way, dict[str, Any], str]]:
    """Rows with a unique value at one place, or with one more field in one object."""
    for way, value in ways(row):
        if isinstance(value, str):
            yield way, changed(row, way, TEXT), TEXT
        elif isinstance(value, int | float) and not isinstance(value, bool):
            yield way, changed(row, way, NUMBER), str(NUMBER)
        elif isinstance(value, dict):
            for key in ("more", "tools", "images", "context", "input"):
                if key not in value:
                    yield (*way, key), changed(row, (*way, key), TEXT), TEXT


def rows_of(name: str, row: dict[str, Any]) -> list[dict[str, Any]]:
    """A row with what else makes a record of it, where several do."""
    if name in ("helpsteer-ratings", "rated-responses"):
        return [row, {**row, "response": "Another."}]
    if name == "oasst":
        said = {**row, "parent_id": row.get("message_id"), "role": "assistant", "rank": 1}
        return [row, {**said, "message_id": "m2"}, {**said, "message_id": "m3", "text": "No."}]
    return [row]


def names_of(way: Way) -> list[str]:
    """The names under which the row counts may have a place, or what it is a part of."""
    names, name = [], ""
    for key in way:
        name = f"{name}[]" if isinstance(key, int) else f"{name}.{key}" if name else key
        names.append(name)
    return names


@pytest.mark.parametrize(("name", "row"), CASES)
def test_no_field_of_a_layout_is_lost_in_silence(name: str, row: dict[str, Any], tmp_path: Path) -> None:
    path, lost = tmp_path / "a.jsonl", []
    kept = 0
    for way, fields, token in changes(row):
        if HARMLESS.intersection(map(str, way)):  # the origin of a row, and its name
            continue
        path.write_text("".join(json.dumps(each) + "\n" for each in rows_of(name, fields)))
        row_reader = stream(path, OPTIONS)
        records = list(row_reader)
        counts = row_reader.row_counts
        if not records:
            assert counts.quarantined or counts.dropped
            continue
        kept += 1
        if not any(token in repr(record) for record in records) and not set(names_of(way)) & set(counts.not_read):
            lost.append(".".join(map(str, way)))
    assert not lost
    assert kept or name in ("oasst",), f"no change of {name} left a record"


def test_every_layout_is_tried() -> None:
    assert {case.values[0] for case in CASES} == set(LAYOUTS)
