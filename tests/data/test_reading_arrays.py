"""A JSON array is read element by element: the same rows and the same errors whatever the blocks, in bounded memory."""

from __future__ import annotations

import io
import json
import tracemalloc
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.data.reading import ReadOptions, arrays, stream
from headwater.errors import DataError

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text('é🦉"\\\n[]{},: a', max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text('a"\\🦉', max_size=3), inner, max_size=3),
    max_leaves=9,
)


def read(content: bytes, block: int) -> tuple[list[Any], str]:
    """The elements and what was said at the end."""
    found = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(arrays, "BLOCK", block)
        try:
            for text in arrays.elements(Path("a.json"), io.BytesIO(content)):
                found.append(text)
        except DataError as error:
            return found, str(error)
    return found, ""


@settings(max_examples=200, deadline=None)
@given(rows=st.lists(VALUES, max_size=6), indent=st.sampled_from([None, 1]), ascii_only=st.booleans())
def test_elements_are_those_of_the_array_whatever_the_blocks(rows: list[Any], indent: int, ascii_only: bool) -> None:
    content = json.dumps(rows, indent=indent, ensure_ascii=ascii_only).encode()
    for block in (1, 3, 16, 1 << 20):
        found, said = read(content, block)
        assert said == ""
        assert [json.loads(text) for text in found] == rows


@settings(max_examples=400, deadline=None)
@given(
    rows=st.lists(VALUES, min_size=1, max_size=4),
    place=st.integers(0, 999),
    put=st.sampled_from(
        [b"", b'"', b",", b"]", b"[", b"{", b"\\", b"\xff", b"\xc3", b"\n", b"0", b"n", b"-", b"  \n "]
    ),
    cut=st.booleans(),
)
def test_damage_is_named_at_one_place_whatever_the_blocks(rows: list[Any], place: int, put: bytes, cut: bool) -> None:
    content = json.dumps(rows, indent=1, ensure_ascii=False).encode()
    place %= len(content)
    content = content[:place] + put + (b"" if cut else content[place + 1 :])
    whole, said = read(content, 1 << 20)
    try:
        expected = json.loads(content)
        assert (said == "") == isinstance(expected, list)
    except json.JSONDecodeError as error:
        # The library looks at a whole text, which may be broken in two places; the same one comes first.
        assert said.startswith(f"a.json:{error.lineno}:{error.colno} · broken JSON ({error.msg})")
    except UnicodeDecodeError:
        assert "is not UTF-8" in said or "broken JSON" in said
    for block in (1, 2, 5, 17):
        found, again = read(content, block)
        if "UTF-8" in said:  # of two damages the nearer one is named where it is read first
            assert again
        else:
            assert (found, again) == (whole, said)


def test_an_array_is_never_held_whole(tmp_path: Path) -> None:
    row = {"prompt": "Why?", "chosen": "Because. " * 300, "rejected": "No. " * 600}
    with (tmp_path / "a.json").open("w") as handle:
        handle.write("[" + ",".join(json.dumps(row | {"prompt": f"Why {n}?"}) for n in range(6000)) + "]")
    size = (tmp_path / "a.json").stat().st_size
    assert size > 30e6
    tracemalloc.start()
    rows = sum(1 for _ in stream(tmp_path / "a.json"))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert rows == 6000
    assert peak < size / 3


def test_an_array_in_which_a_quote_is_not_closed_is_named_where_it_opens(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text('[\n {"prompt": "a", "chosen": "b, "rejected": "c"}]')
    with pytest.raises(DataError, match=r"a\.json:2:33 · broken JSON \(Expecting ',' delimiter\)"):
        list(stream(path))


def test_a_quote_that_is_not_closed_does_not_take_in_a_whole_csv(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    with path.open("w") as handle:
        handle.write("prompt,chosen,rejected\nWhy?,So.,No.\n")
        handle.write('What?,"So.,No.\n')
        handle.writelines(f"Who {n}?,{'So. ' * 99},No.\n" for n in range(99))
    from headwater.data.reading import formats

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "CELL", 2000)
        row_reader = stream(path, ReadOptions(max_bad_rows="100%"))
        kept = sum(1 for _ in row_reader)
    assert row_reader.quarantine.codes["TORN"] == 1
    assert kept > 90
    assert row_reader.row_counts.rows_in == kept + row_reader.row_counts.quarantined


def test_json_lines_under_the_name_of_an_array_are_told_their_name() -> None:
    assert read(b'{"a": 1}\n{"a": 2}\n', 1 << 20) == (
        [],
        "a.json:2:1 · broken JSON (Extra data) · expected an array of objects; JSON lines are named .jsonl",
    )
    assert read(b" 7 ", 1)[1].startswith("a.json · holds a int · expected an array of objects")


def test_brackets_too_deep_to_read_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="too deep to read"):
        list(arrays.elements(tmp_path / "a.json", io.BytesIO(b"[" * 99_999)))
