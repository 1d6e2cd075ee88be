"""A file is read whole or refused with its place; what is written reads back equal."""

from __future__ import annotations

import csv
import dataclasses
import gzip
import json
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.ipc
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.data.preference import Message, Preference, Response
from headwater.data.reading import PREFERENCES, RowCounts, data_file, load, write
from headwater.errors import DataError, ResourceError, UsageError

ROWS = [{"prompt": f"Why {n}?", "chosen": f"Because {n}.", "rejected": "Nø."} for n in range(8)]
LINES = [json.dumps(row, ensure_ascii=False).encode() for row in ROWS]
EMPTY = {"prompt": "Why?", "chosen": "", "rejected": "No."}
SAME = {"prompt": "Why?", "chosen": "No.", "rejected": "No."}


def jsonl(*lines: bytes) -> bytes:
    return b"".join(line + b"\n" for line in lines)


def saved(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


def parquet(path: Path, rows: list[dict[str, Any]]) -> Path:
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    return path


def packed_with_zstd(path: Path, content: bytes) -> Path:
    with pyarrow.CompressedOutputStream(str(path), "zstd") as handle:
        handle.write(content)
    return path


def csv_file(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as handle:
        writer = csv.DictWriter(handle, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def arrow(path: Path, rows: list[dict[str, Any]], new: Callable[..., Any]) -> Path:
    table = pyarrow.Table.from_pylist(rows)
    with new(str(path), table.schema) as writer:
        writer.write_table(table, max_chunksize=3)
    return path


def with_line_5(line: bytes) -> bytes:
    return jsonl(*LINES[:4], line, *LINES[5:])


def balances(row_counts: RowCounts) -> bool:
    return row_counts.rows_in == row_counts.kept + row_counts.quarantined + row_counts.dropped.total()


KINDS: dict[str, Callable[[Path], Path]] = {
    "jsonl": lambda to: saved(to / "a.jsonl", jsonl(*LINES)),
    "jsonl.gz": lambda to: saved(to / "a.jsonl.gz", gzip.compress(jsonl(*LINES))),
    "json": lambda to: saved(to / "a.json", json.dumps(ROWS, indent=1).encode()),
    "json.gz": lambda to: saved(to / "a.json.gz", gzip.compress(json.dumps(ROWS).encode())),
    "parquet": lambda to: parquet(to / "a.parquet", ROWS),
    "jsonl.zst": lambda to: packed_with_zstd(to / "a.jsonl.zst", jsonl(*LINES)),
    "csv": lambda to: csv_file(to / "a.csv", ROWS),
    "csv.gz": lambda to: saved(to / "a.csv.gz", gzip.compress(csv_file(to / "b.csv", ROWS).read_bytes())),
    "arrow stream": lambda to: arrow(to / "a.arrow", ROWS, pyarrow.ipc.new_stream),
    "arrow file": lambda to: arrow(to / "a.arrow", ROWS, pyarrow.ipc.new_file),
    "capitals": lambda to: saved(to / "a.JSONL", jsonl(*LINES)),
    "byte-order mark": lambda to: saved(to / "a.jsonl", b"\xef\xbb\xbf" + jsonl(*LINES)),
    "byte-order mark, json": lambda to: saved(to / "a.json", b"\xef\xbb\xbf" + json.dumps(ROWS).encode()),
    "CRLF": lambda to: saved(to / "a.jsonl", jsonl(*LINES).replace(b"\n", b"\r\n")),
    "blank lines": lambda to: saved(to / "a.jsonl", b"\n" + jsonl(*LINES[:3], b"", b" \t", *LINES[3:]) + b"\n"),
    "no last newline": lambda to: saved(to / "a.jsonl", b"\n".join(LINES)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_file_gives_the_same_preferences(kind: str, tmp_path: Path) -> None:
    loaded = load(KINDS[kind](tmp_path))
    assert [(p.prompt, p.chosen.text, p.rejected.text) for p in loaded.preferences] == [
        ((Message("user", row["prompt"]),), row["chosen"], row["rejected"]) for row in ROWS
    ]
    assert [p.id for p in loaded.preferences] == [f"a:{n}" for n in range(1, 9)]
    assert loaded.layout == "explicit-prompt (has prompt, chosen, rejected)"
    assert loaded.row_counts == RowCounts(rows_in=8, kept=8)


def test_line_separators_inside_a_text_do_not_end_the_row(tmp_path: Path) -> None:
    row = {"prompt": "a\u2028b\u0085c", "chosen": "d\r\ne\x0cf", "rejected": "\u2029g"}
    path = saved(tmp_path / "a.jsonl", json.dumps(row, ensure_ascii=False).encode() + b"\n")
    (preference,) = load(path).preferences
    assert (preference.prompt[0].content, preference.chosen.text) == (row["prompt"], row["chosen"])
    assert preference.rejected.text == row["rejected"]


def test_dropped_rows_are_counted_by_reason_and_keep_their_numbers(tmp_path: Path) -> None:
    rows = [ROWS[0], EMPTY, SAME, EMPTY, ROWS[1]]
    loaded = load(saved(tmp_path / "a.json", json.dumps(rows).encode()))
    assert loaded.row_counts.rows_in == 5
    assert loaded.row_counts.kept == 2
    assert loaded.row_counts.dropped == {"empty_response": 2, "identical_responses": 1}
    assert [p.id for p in loaded.preferences] == ["a:1", "a:5"]


def test_a_row_keeps_its_own_id_and_source(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.json", json.dumps([{**ROWS[0], "id": 17, "source": "lab"}]).encode())
    (preference,) = load(path).preferences
    assert (preference.id, preference.source) == ("17", "lab")


# --- broken rows: `DataError` with the place ----------------------------------------------------------------------

BROKEN_LINES = {
    "broken JSON": (b'{"prompt": "Why?", "chosen": x}', ":5:30", "broken JSON (Expecting value)"),
    "an array": (b"[]", ":5", "found a list"),
    "a number": (b"5", ":5", "found a int"),
    "a text": (b'"x"', ":5", "found a str"),
    "null": (b"null", ":5", "found a NoneType"),
    "a byte that is not UTF-8": (b'{"prompt": "\xff"}', ":5", "byte 13 of the line is not UTF-8"),
    "a missing column": (b'{"prompt": "Why?", "chosen": "a"}', ":5", "no rejected"),
    "a list of ints": (b'{"prompt": "Why?", "chosen": [1, 2], "rejected": "b"}', ":5", "chosen holds a int"),
    "a null response": (b'{"prompt": "Why?", "chosen": "a", "rejected": null}', ":5", "rejected is null"),
    "a number as response": (b'{"prompt": "Why?", "chosen": 7, "rejected": "b"}', ":5", "chosen is a int"),
    "a wrong role": (
        b'{"prompt": [{"role": "bot", "content": "x"}], "chosen": "a", "rejected": "b"}',
        ":5",
        "prompt has the role 'bot'",
    ),
    "half a surrogate pair": (
        b'{"prompt": "Why?", "chosen": "\\ud83d", "rejected": "b"}',
        ":5",
        r"a text holds half a character ('\ud83d')",
    ),
}


@pytest.mark.parametrize("case", BROKEN_LINES)
@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz"])
def test_a_broken_line_stops_the_reading_with_its_place(case: str, suffix: str, tmp_path: Path) -> None:
    line, place, found = BROKEN_LINES[case]
    content = with_line_5(line)
    path = saved(tmp_path / f"a{suffix}", gzip.compress(content) if suffix.endswith("gz") else content)
    with pytest.raises(DataError) as error:
        load(path)
    assert str(error.value).split(" · ")[:2] == [f"{path}{place}", found]
    assert error.value.exit_code == 3
    assert "looks cut" not in str(error.value)


def test_blank_lines_count_in_places(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.jsonl:4:1 · broken JSON"):
        load(saved(tmp_path / "a.jsonl", jsonl(LINES[0], b"", b"", b"x")))


@pytest.mark.parametrize("case", ["a missing column", "a list of ints", "a wrong role", "a number"])
def test_a_broken_row_of_an_array_is_named_by_its_number(case: str, tmp_path: Path) -> None:
    line, _, found = BROKEN_LINES[case]
    rows = [*ROWS[:4], json.loads(line), *ROWS[5:]]
    path = saved(tmp_path / "a.json", json.dumps(rows).encode())
    with pytest.raises(DataError) as error:
        load(path)
    assert str(error.value).split(" · ")[:2] == [f"{path}[5]", found]


def test_a_broken_row_of_a_parquet_file_is_named_by_its_number(tmp_path: Path) -> None:
    path = parquet(tmp_path / "a.parquet", [*ROWS[:2], {**ROWS[2], "rejected": None}])
    with pytest.raises(DataError) as error:
        load(path)
    assert str(error.value).split(" · ")[:2] == [f"{path}[3]", "rejected is null"]


def test_columns_that_fit_no_layout_are_refused_with_the_first_row(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jsonl", jsonl(b'{"text": "a", "label": 1}'))
    with pytest.raises(DataError) as error:
        load(path)
    assert str(error.value).startswith(f"{path}:1 · columns text, label fit no known layout · expected one of ")


def test_columns_that_fit_two_layouts_are_refused(tmp_path: Path) -> None:
    row = {**ROWS[0], "question": "Why?", "response_1": "a", "response_2": "b", "overall_response": 1}
    with pytest.raises(DataError, match=r"a\.json\[1\] · .* fit several layouts"):
        load(saved(tmp_path / "a.json", json.dumps([row]).encode()))


# --- files that are cut, damaged, empty, or not there -------------------------------------------------------------


def test_a_torn_last_line_is_named_with_its_column(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jsonl", jsonl(*LINES)[:-12])
    column = LINES[7].decode()[:-11].rindex(' "') + 2
    with pytest.raises(DataError) as error:
        load(path)
    assert str(error.value) == (
        f"{path}:8:{column} · broken JSON (Unterminated string starting at)"
        " · the last line has no end: the file looks cut · 1 bad row, more than --max-bad-rows 0"
    )


@pytest.mark.parametrize("cut", range(1, len(LINES[7]) + 1))
def test_a_file_cut_anywhere_in_its_last_line_looks_cut(cut: int, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jsonl", jsonl(*LINES)[: -cut - 1])
    if cut == len(LINES[7]):  # nothing of the line is left: seven whole rows
        assert load(path).row_counts.kept == 7
        return
    with pytest.raises(DataError, match=r"a\.jsonl:8.*the file looks cut"):
        load(path)


def test_a_torn_array_is_named_with_line_and_column(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.json", b'[\n{"prompt": "a",')
    with pytest.raises(DataError) as error:
        load(path)
    assert str(error.value).startswith(f"{path}:2:16 · broken JSON")


@pytest.mark.parametrize("kind", ["jsonl.gz", "json.gz", "parquet"])
@pytest.mark.parametrize("share", [0.01, 0.5, 0.99])
def test_a_packed_file_cut_anywhere_is_refused_in_one_line(kind: str, share: float, tmp_path: Path) -> None:
    path = KINDS[kind](tmp_path)
    content = path.read_bytes()
    path.write_bytes(content[: max(1, int(len(content) * share))])
    with pytest.raises(DataError) as error:
        load(path)
    assert str(error.value).startswith(f"{path} · cannot be read: ")
    assert str(error.value).endswith("the file looks cut or is not what it says")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("kind", ["jsonl.gz", "parquet"])
def test_flipped_bits_end_in_a_data_error_never_in_a_traceback(kind: str, tmp_path: Path) -> None:
    path = KINDS[kind](tmp_path)
    content = path.read_bytes()
    refused = 0
    for position in range(0, len(content), 7):
        damaged = bytearray(content)
        damaged[position] ^= 0b10101
        path.write_bytes(damaged)
        try:
            load(path)
        except DataError as error:
            refused += 1
            assert "\n" not in str(error)
    assert refused > 0


@pytest.mark.parametrize("name", ["a.jsonl.gz", "a.parquet"])
def test_a_text_file_under_another_name_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is not what it says"):
        load(saved(tmp_path / name, jsonl(*LINES)))


def test_json_lines_under_the_name_of_an_array_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"a\.json:2:1 · broken JSON \(Extra data\)"):
        load(saved(tmp_path / "a.json", jsonl(*LINES)))
    with pytest.raises(DataError, match=r"holds a dict · expected an array of objects, or name it \.jsonl"):
        load(saved(tmp_path / "a.json", LINES[0]))


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("a.jsonl", b""),
        ("a.jsonl", b"\n\n"),
        ("a.jsonl", b"\xef\xbb\xbf"),
        ("a.jsonl.gz", gzip.compress(b"", mtime=0)),
        ("a.json", b"[]"),
    ],
)
def test_a_file_without_rows_is_refused(name: str, content: bytes, tmp_path: Path) -> None:
    path = saved(tmp_path / name, content)
    with pytest.raises(DataError) as error:
        load(path)
    assert str(error.value) == f"{path} · no usable rows among 0 · the data is empty"


def test_a_parquet_file_without_rows_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS)[:0], path)
    with pytest.raises(DataError, match="no usable rows among 0"):
        load(path)


def test_a_file_of_dropped_rows_is_refused_with_the_reasons(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.json", json.dumps([EMPTY, SAME, SAME]).encode())
    with pytest.raises(DataError) as error:
        load(path)
    assert str(error.value) == (
        f"{path} · no usable rows among 3 · dropped: empty_response 1 (a response is empty; first: {path}[1]), "
        f"identical_responses 2 (both responses are the same but for white space; first: {path}[2])"
        f" · the first row: {json.dumps(EMPTY)}"
    )


def test_the_row_that_is_shown_is_cut_and_made_visible(tmp_path: Path) -> None:
    row = {"prompt": "Why? \u202e" + "x" * 300, "chosen": "", "rejected": "No."}
    path = saved(tmp_path / "a.jsonl", json.dumps(row, ensure_ascii=False).encode())
    with pytest.raises(DataError) as error:
        load(path)
    shown = str(error.value).rpartition("the first row: ")[2]
    assert shown.startswith('{"prompt": "Why? <U+202E>xxx') and shown.endswith("x…") and len(shown) == 120


@pytest.mark.parametrize("name", ["a.txt", "a.tsv", "a.gz", "a", "jsonl", "a.parquet.gz"])
def test_an_unknown_suffix_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"unknown kind of file · expected one of \.jsonl, \.json, \.csv, \.parquet"):
        load(saved(tmp_path / name, jsonl(*LINES)))


def test_a_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"gone\.jsonl · no such file") as error:
        load(tmp_path / "gone.jsonl")
    assert error.value.exit_code == 2


def test_a_directory_stands_for_the_data_in_it(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"is a directory without {PREFERENCES} or data files"):
        load(tmp_path)
    saved(tmp_path / PREFERENCES, jsonl(*LINES))
    assert data_file(tmp_path) == tmp_path / PREFERENCES
    assert load(tmp_path).row_counts.kept == 8


# --- real data ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "rows_in", "kept", "dropped"),
    [
        ("harmless-base_test", 2312, 2303, {"prompts_differ": 5, "empty_response": 4}),  # and no duplicate
        ("helpful-base_test", 2354, 2339, {"prompts_differ": 9, "empty_response": 4, "identical_responses": 2}),
    ],
)
def test_hh_reads_with_every_row_accounted_for(
    name: str, rows_in: int, kept: int, dropped: dict[str, int], shared_data: Path
) -> None:
    loaded = load(shared_data / "hh" / f"{name}.jsonl.gz")
    assert (loaded.row_counts.rows_in, loaded.row_counts.kept, loaded.row_counts.dropped) == (rows_in, kept, dropped)
    assert balances(loaded.row_counts)
    assert loaded.layout == "hh (has chosen, rejected)"
    assert {p.source for p in loaded.preferences} == {name}
    assert len({p.id for p in loaded.preferences}) == kept


@pytest.mark.parametrize(("name", "rows_in"), [("train_clean", 1000), ("eval_clean", 200)])
def test_ultrafeedback_reads_with_every_row_accounted_for(name: str, rows_in: int, shared_data: Path) -> None:
    loaded = load(shared_data / "ultrafeedback_binarized" / f"{name}.jsonl.gz")
    assert loaded.row_counts.rows_in == rows_in
    assert loaded.row_counts.kept == len(loaded.preferences) > 0.99 * rows_in
    assert balances(loaded.row_counts)


# --- writing ------------------------------------------------------------------------------------------------------

SUFFIXES = [".jsonl", ".jsonl.gz", ".jsonl.zst", ".parquet"]
TEXTS = st.one_of(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=40),
    st.text(st.sampled_from('a \n\r\t\0"\\\u2028🦉👩‍👩‍👧🇩🇪éе́日本語שלום\u202eمرحبا\ufeff'), max_size=20),
)
SCORES = st.none() | st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=10)


def responses(first: str) -> st.SearchStrategy[Response]:
    """Responses with text; those of the two sides start with different words, so that the pair is a preference."""
    return st.builds(Response, TEXTS.map(lambda text: f"{first} {text}"), SCORES, st.booleans())


def texts(preference: Preference) -> Any:
    """What a duplicate is known by."""
    return preference.prompt, preference.chosen.text, preference.rejected.text


PREFERENCES_OF_ALL_SORTS = st.builds(
    Preference,
    prompt=st.tuples(
        st.builds(Message, st.sampled_from(["system", "user"]), TEXTS), st.builds(Message, st.just("user"), TEXTS)
    ),
    chosen=responses("a"),
    rejected=responses("b"),
    id=NAMES,
    source=NAMES,
)


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=60, deadline=None)
@given(preferences=st.lists(PREFERENCES_OF_ALL_SORTS, min_size=1, max_size=4, unique_by=texts))
def test_what_is_written_reads_back_equal_and_again_gives_the_same_bytes(
    suffix: str, preferences: list[Preference]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"a{suffix}")
        write(path, preferences)
        first = path.read_bytes()
        loaded = load(path)
        assert loaded.preferences == preferences
        assert loaded.row_counts == RowCounts(rows_in=len(preferences), kept=len(preferences))
        write(path.with_name(f"other{suffix}"), loaded.preferences)
        assert path.with_name(f"other{suffix}").read_bytes() == first


def test_the_time_of_writing_leaves_no_trace(
    tmp_path: Path, corpus: list[Preference], monkeypatch: pytest.MonkeyPatch
) -> None:
    for suffix in SUFFIXES:
        for second in (1, 2):
            monkeypatch.setattr("time.time", lambda now=second: 1e9 * now)
            write(tmp_path / f"{second}{suffix}", corpus)
        assert (tmp_path / f"1{suffix}").read_bytes() == (tmp_path / f"2{suffix}").read_bytes()


def test_a_written_file_is_one_json_object_a_line(tmp_path: Path, corpus: list[Preference]) -> None:
    write(tmp_path / "a.jsonl", [dataclasses.replace(corpus[0], chosen=Response("Nø\n🦉", 0.5))])
    line, rest = (tmp_path / "a.jsonl").read_bytes().split(b"\n", 1)
    assert rest == b""
    assert "Nø\\n🦉".encode() in line
    assert list(json.loads(line)) == [
        *("id", "source", "prompt"),
        *("chosen", "score_chosen", "chosen_complete"),
        *("rejected", "score_rejected", "rejected_complete"),
    ]


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_write_that_fails_leaves_what_was_there(suffix: str, tmp_path: Path, corpus: list[Preference]) -> None:
    def full() -> Iterator[Preference]:
        yield corpus[0]
        raise OSError(28, "No space left on device")

    path = tmp_path / f"a{suffix}"
    with pytest.raises(ResourceError, match="No space"):
        write(path, full())
    assert list(tmp_path.iterdir()) == []
    write(path, corpus)
    before = path.read_bytes()
    with pytest.raises(ResourceError, match="No space"):
        write(path, full())
    assert list(tmp_path.iterdir()) == [path]
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["a.json", "a.csv", "a", "a.parquet.gz", "a.csv"])
def test_a_name_that_cannot_be_written_is_refused(name: str, tmp_path: Path, corpus: list[Preference]) -> None:
    with pytest.raises(
        UsageError, match=r"unknown kind of file · expected \.jsonl, \.jsonl\.gz, \.jsonl\.zst, \.parquet"
    ):
        write(tmp_path / name, corpus)
    assert list(tmp_path.iterdir()) == []
