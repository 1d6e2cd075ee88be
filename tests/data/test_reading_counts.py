"""Every row is kept, quarantined under its code, or dropped for a reason; none is lost."""

from __future__ import annotations

import gzip
import io
import json
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater import console
from headwater.data.layouts import Broken
from headwater.data.preference import Candidates, Preference, Unpaired
from headwater.data.reading import ReadOptions, RowCounts, RowReader, formats, load, read_rows, stream, strict
from headwater.data.reading.counts import RAW_CHARACTERS
from headwater.errors import DataError, UsageError

SKIP_BAD = ReadOptions(max_bad_rows="100%")


def row(number: int, **other: Any) -> dict[str, Any]:
    return {"prompt": f"Why {number}?", "chosen": f"Because {number}.", "rejected": "No.", **other}


def line(number: int, **other: Any) -> bytes:
    return json.dumps(row(number, **other)).encode()


def saved(path: Path, *lines: bytes) -> Path:
    path.write_bytes(b"".join(part + b"\n" for part in lines))
    return path


def finished(path: Path, read_options: ReadOptions = SKIP_BAD) -> RowReader:
    row_reader = stream(path, read_options)
    assert len(list(row_reader)) == row_reader.row_counts.kept
    return row_reader


def balances(row_counts: RowCounts) -> bool:
    return row_counts.rows_in == row_counts.kept + row_counts.quarantined + row_counts.dropped.total()


# --- codes --------------------------------------------------------------------------------------------------------

BAD = {
    "BROKEN_JSON": [
        b'{"prompt": "Why?", "chosen": x}',
        b'{"a": NaN}',
        b'{"a": -Infinity}',
        b'{"a": 1e999}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b"[" * 9999,
    ],
    "NOT_OBJECT": [b"[]", b"5", b'"x"', b"null", b"true"],
    "DUPLICATE_KEY": [
        b'{"prompt": "Why?", "chosen": "a", "rejected": "b", "chosen": "c"}',
        b'{"prompt": "Why?", "chosen" : "a", "rejected": "b", "chosen"  :  "c"}',
        b'{"prompt": "Why?", "chosen": "a\\u003a", "rejected": "b", "chosen": "c"}',
        # An escaped colon in what stays makes up for the one that is lost.
        b'{"prompt": "Why?", "chosen": "a", "rejected": "b", "chosen": "c\\u003a"}',
        b'{"prompt": "Why?", "chosen": "a", "rejected": "b", "chosen": "cc\\u003A"}',
        b'{"prompt": "Why?", "chosen": "a", "rejected": "b", "ch\\u006fsen": "c"}',
        b'{"prompt": "Why?", "chosen": "a", "rejected": "b", "more": {"x": 1, "x": 1}}',
        b'{"prompt": [{"role": "user", "role": "user", "content": "a"}], "chosen": "a", "rejected": "b"}',
    ],
    "UNICODE": [b'{"prompt": "\xff"}', b'{"prompt": "Why?", "chosen": "\\ud83d", "rejected": "b"}', b'{"\\udc00": 1}'],
    "MISSING": [b'{"prompt": "Why?", "chosen": "a"}', b"{}"],
    "MALFORMED": [b'{"prompt": "Why?", "chosen": 7, "rejected": "b"}', line(7, score_chosen="high")],
}


@pytest.mark.parametrize(("code", "text"), [(code, text) for code, texts in BAD.items() for text in texts])
def test_every_bad_row_has_its_code_place_and_text(code: str, text: bytes, tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jsonl", line(0), b"", line(1), text, line(2))
    row_reader = finished(path)
    (entry,) = row_reader.quarantine
    if code == "MALFORMED":  # or the code that the layout gives
        code = entry["code"]
    assert (entry["file"], entry["line"], entry["verdict"], entry["code"]) == (str(path), 4, "quarantined", code)
    assert entry["message"]
    assert entry["raw"] == text.decode("utf-8", "backslashreplace")[:RAW_CHARACTERS]
    assert row_reader.quarantine.codes == {code: 1}
    assert (row_reader.row_counts.kept, row_reader.row_counts.quarantined) == (3, 1)


def test_colons_and_keys_inside_texts_are_no_duplicate_keys(tmp_path: Path) -> None:
    rows = [
        row(0, chosen='a: "chosen": b'),
        row(1, chosen="\u003a\\u003a"),
        row(2, **{"more:": {"x": ["y:"], "z": "x:"}}),
    ]
    lines = [json.dumps(fields).encode() for fields in rows]
    escaped = lines[0].replace(b": b", b"\\u003a b")
    row_reader = finished(saved(tmp_path / "a.jsonl", *lines, escaped.replace(b"Why 0", b"Why 9")))
    assert (row_reader.row_counts.kept, row_reader.row_counts.quarantined) == (4, 0)


@settings(max_examples=300, deadline=None)
@given(
    pairs=st.lists(
        st.tuples(
            st.sampled_from(["a", "b", ":", "a:", '"']),
            st.text(':"\\ua3', max_size=6) | st.integers(-(2**63), 2**64 - 1),
        ),
        min_size=1,
        max_size=4,
    ),
    spaced=st.booleans(),
    escaped=st.booleans(),
)
def test_a_key_that_stands_twice_is_always_seen(pairs: list[tuple[str, Any]], spaced: bool, escaped: bool) -> None:
    colon = " : " if spaced else ":"
    text = "{" + ",".join(f"{json.dumps(key)}{colon}{json.dumps(value)}" for key, value in pairs) + "}"
    if escaped:
        text = text.replace('b"', '\\u0062"')
    found = strict.parse(text.encode())
    if len(dict(pairs)) == len(pairs):
        assert found == dict(pairs)
    else:
        assert isinstance(found, Broken)
        assert found.code == "DUPLICATE_KEY"


# --- many lines at once -------------------------------------------------------------------------------------------

GOOD = [
    line(0),
    line(0, chosen="No.", rejected="Because 0."),
    line(1, id=7, score_chosen=10**30, score_rejected=2),
    line(2, chosen="\u00e9\u003a é: 🦉 \\u003a"),
    json.dumps(row(3, chosen="é: 🦉\u2028", metadata={"a": [":", {"b:": 1e-3}]}), ensure_ascii=False).encode(),
    json.dumps(row(4), separators=(",", ":")).encode(),
    b'{ "prompt" :"Why 5?", "chosen": "a\\u003A", "rejected" : "b"} \r',
    line(6, chosen=" ", score_chosen=None),
    line(7, **{"nested": json.loads("[" * 300 + "]" * 300)}),
]
DAMAGED = st.builds(
    lambda text, place, put: text[: place % len(text)] + put + text[place % len(text) + 1 :],
    st.sampled_from(GOOD),
    st.integers(0, 99),
    st.sampled_from(
        [b"", b'"', b":", b",", b"\\", b"\xff", b"\0", b"}", b"\n", b'","chosen":"', b"\\u003a", b"0", b" "]
    ),
)
ANY_LINE = st.sampled_from([*GOOD, *(text for texts in BAD.values() for text in texts), b"", b" \t"]) | DAMAGED


def everything(path: Path) -> tuple[Any, ...]:
    row_reader = stream(path, SKIP_BAD)
    return (
        list(row_reader),
        row_reader.row_counts,
        row_reader.layout,
        list(row_reader.quarantine),
        row_reader.quarantine.first,
    )


@settings(max_examples=300, deadline=None)
@given(lines=st.lists(ANY_LINE, max_size=20), ended=st.booleans(), block=st.sampled_from([1, 100, 1000, 1 << 17]))
def test_lines_read_together_are_read_as_the_slow_parser_reads_each(
    lines: list[bytes], ended: bool, block: int
) -> None:
    """Same records, same counts, same quarantine; whatever stands in the lines beside a line."""
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder, "a.jsonl")
        path.write_bytes(b"\n".join([line(8), *lines]) + b"\n" * ended)
        patch.setattr(formats, "BLOCK", block)
        together = everything(path)
        patch.setattr(strict, "_confirmed", lambda lines: None)
        assert together == everything(path)


def test_good_lines_never_meet_the_slow_parser(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(tmp_path / "a.jsonl", *(line(number, chosen=f"a: {number} é") for number in range(2000)))
    monkeypatch.setattr(strict, "_parsed_slowly", lambda line: pytest.fail(f"asked about {line!r}"))
    assert finished(path).row_counts == RowCounts(rows_in=2000, kept=2000)


@pytest.mark.parametrize("suffix", ["", ".gz", ".zst"])
@pytest.mark.parametrize("start", [b"", b"\xef\xbb\xbf"])
def test_the_offset_of_a_row_that_was_not_kept_finds_it(start: bytes, suffix: str, tmp_path: Path) -> None:
    texts = [
        b"x",
        line(0),
        "é".encode() * 9,
        b"",
        line(0),
        b"[]\r",
        line(1, chosen=""),
        *[line(n) for n in range(2, 3000)],
    ]
    content = start + b"\n".join([*texts, b"torn"])
    path = tmp_path / f"a.jsonl{suffix}"
    pack = {
        "": io.FileIO,
        ".gz": gzip.GzipFile,
        ".zst": lambda name, mode: pyarrow.CompressedOutputStream(name, "zstd"),
    }
    with pack[suffix](str(path), "wb") as handle:
        handle.write(content)
    entries = list(finished(path).quarantine)
    assert [entry["line"] for entry in entries] == [1, 3, 5, 6, 7, len(texts) + 1]
    for entry in entries:
        assert content[: entry["offset"]].removeprefix(start).count(b"\n") == entry["line"] - 1
        assert content[entry["offset"] :].startswith(entry["raw"].encode())


def test_rows_that_are_no_lines_have_no_offset(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b"[" + line(0) + b", 7]")
    assert [entry["offset"] for entry in finished(tmp_path / "a.json").quarantine] == [None]


def test_a_torn_last_line_has_its_own_code(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(line(0) + b"\n" + line(1)[:-5])
    row_reader = finished(path)
    assert row_reader.quarantine.codes == {"TORN": 1}
    assert row_reader.row_counts.kept == 1


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
@pytest.mark.parametrize("name", ["a.jsonl", "a.json", "a.csv"])
def test_utf_16_is_named(encoding: str, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(line(0).decode().encode(encoding))
    with pytest.raises(DataError, match=r"looks like UTF-16 · expected UTF-8"):
        load(path)


@pytest.mark.parametrize(("name", "kind"), [("gz", "gzip data"), ("parquet", "Parquet"), ("zip", "a zip archive")])
def test_a_file_that_is_no_text_is_named_by_what_it_holds(name: str, kind: str, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    if name == "gz":
        path.write_bytes(gzip.compress(b'{"prompt": "p"}\n'))
    elif name == "zip":
        with zipfile.ZipFile(path, "w") as packed:
            packed.writestr("a.jsonl", "{}")
    else:
        pyarrow.parquet.write_table(pyarrow.table({"prompt": ["p"]}), path)
    with pytest.raises(DataError, match=rf"a\.jsonl · holds {kind}.*, not \.jsonl · name the file by what it holds"):
        load(path)


def test_rows_before_any_known_layout_are_set_aside(tmp_path: Path) -> None:
    row_reader = finished(saved(tmp_path / "a.jsonl", b'{"text": 1}', line(0), b'{"text": 1}'))
    assert row_reader.quarantine.codes == {"UNKNOWN_LAYOUT": 1, "MISSING": 1}
    assert row_reader.layout.startswith("explicit-prompt")


def test_a_bad_element_of_an_array_is_one_row_and_not_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"[ " + b" ,\n".join([line(0), b"7", b'{"a": NaN}', b'{"a": 1, "a": 2}', line(1)]) + b"\n]\n")
    row_reader = finished(path)
    assert [(entry["line"], entry["code"]) for entry in row_reader.quarantine] == [
        (2, "NOT_OBJECT"),
        (3, "BROKEN_JSON"),
        (4, "DUPLICATE_KEY"),
    ]
    assert row_reader.row_counts == RowCounts(rows_in=5, kept=2, quarantined=3)


# --- duplicates ---------------------------------------------------------------------------------------------------


def test_duplicates_and_flipped_labels_are_dropped_and_named(tmp_path: Path) -> None:
    flipped = line(0, chosen="No.", rejected="Because 0.")
    other = line(0, rejected="Never.")
    path = saved(tmp_path / "a.jsonl", line(0, score_chosen=1), flipped, line(0), line(1), other, flipped)
    loaded = load(path)
    assert [preference.id for preference in loaded.preferences] == ["a:1", "a:4", "a:5"]
    assert loaded.row_counts == RowCounts(rows_in=6, kept=3, dropped=loaded.row_counts.dropped)
    assert loaded.row_counts.dropped == {"flipped_label": 2, "duplicate": 1}
    assert [(entry["line"], entry["verdict"], entry["code"]) for entry in loaded.quarantine] == [
        (2, "dropped", "flipped_label"),
        (3, "dropped", "duplicate"),
        (6, "dropped", "flipped_label"),
    ]


def test_texts_that_join_to_the_same_are_no_duplicates(tmp_path: Path) -> None:
    pairs = [("a", "bc"), ("ab", "c"), ("a", "b"), ("a", "cb")]
    lines = [json.dumps({"prompt": "p", "chosen": one, "rejected": other}).encode() for one, other in pairs]
    assert finished(saved(tmp_path / "a.jsonl", *lines)).row_counts.kept == 4


def test_labelled_responses_and_candidates_have_duplicates_too(tmp_path: Path) -> None:
    labelled = {"prompt": "Why?", "completion": "So.", "label": True}
    rows = [labelled, {**labelled, "label": False}, labelled, {**labelled, "completion": "No."}]
    row_reader = finished(saved(tmp_path / "a.jsonl", *(json.dumps(fields).encode() for fields in rows)))
    assert row_reader.row_counts.dropped == {"flipped_label": 1, "duplicate": 1}
    assert row_reader.yields == "unpaired"
    several = {"instruction": "Why?", "completions": [{"response": "a", "overall_score": 1}, {"response": "b"}]}
    swapped = {**several, "completions": several["completions"][::-1]}
    row_reader = finished(saved(tmp_path / "b.jsonl", *(json.dumps(f).encode() for f in (several, swapped, several))))
    assert (row_reader.row_counts.kept, row_reader.row_counts.dropped) == (2, {"duplicate": 1})


# --- the limit ----------------------------------------------------------------------------------------------------


def with_bad(path: Path, bad: int, good: int) -> Path:
    return saved(path, line(0), *[b"x"] * bad, *(line(number) for number in range(1, good)))


@pytest.mark.parametrize(
    ("limit", "bad", "good", "passes"),
    [
        ("0", 0, 5, True),
        ("0", 1, 5, False),
        ("2", 2, 5, True),
        ("2", 3, 5, False),
        ("20%", 1, 4, True),
        ("19.9%", 1, 4, False),
        ("50%", 3, 3, True),
        ("50%", 4, 3, False),
        ("0%", 1, 99, False),
        ("100%", 9, 1, True),
    ],
)
def test_more_bad_rows_than_are_allowed_refuse_the_data(
    limit: str, bad: int, good: int, passes: bool, tmp_path: Path
) -> None:
    path = with_bad(tmp_path / "a.jsonl", bad, good)
    if passes:
        assert load(path, ReadOptions(max_bad_rows=limit)).row_counts == RowCounts(bad + good, good, quarantined=bad)
        return
    with pytest.raises(DataError) as error:
        load(path, ReadOptions(max_bad_rows=limit))
    assert error.value.exit_code == 3
    of = f" of {bad + good}" if "%" in limit else ""
    assert str(error.value).startswith(f"{path}:2:1 · broken JSON (Expecting value) · {bad} bad row")
    assert str(error.value).endswith(f"{of}, more than --max-bad-rows {limit}")


def test_a_number_stops_at_once_and_a_share_at_the_end(tmp_path: Path) -> None:
    path = with_bad(tmp_path / "a.jsonl", 3, 9)
    for limit, rows in (("1", 3), ("1%", 12)):
        row_reader = stream(path, ReadOptions(max_bad_rows=limit))
        with pytest.raises(DataError):
            list(row_reader)
        assert row_reader.row_counts.rows_in == rows
        assert balances(row_reader.row_counts)


@pytest.mark.parametrize("text", ["-1", "1.5", "x", "", "101%", "-1%", "%", "1e1", "1/2"])
def test_another_limit_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--max-bad-rows"):
        ReadOptions(max_bad_rows=text)


@pytest.mark.parametrize("text", ["prompt", "prompt=", "=x", "prompt=x,prompt=y", ","])
def test_columns_that_say_nothing_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="--columns"):
        ReadOptions(columns=text)


def test_columns_layout_and_limit(tmp_path: Path) -> None:
    fields = {"q": "Why?", "good": "So.", "bad": "No.", "id": "7"}
    path = saved(tmp_path / "a.jsonl", json.dumps(fields).encode(), line(1), b"x")
    row_reader = finished(path, ReadOptions(columns="prompt=q, chosen=good, rejected=bad", limit=1))
    assert row_reader.row_counts == RowCounts(rows_in=1, kept=1)
    with pytest.raises(UsageError, match=r"--layout hhh · no such layout · did you mean hh\?"):
        list(stream(path, ReadOptions(layout="hhh")))
    with pytest.raises(DataError, match=r"columns prompt, .* lack question"):
        list(stream(saved(path, line(1)), ReadOptions(layout="align-anything")))
    with pytest.raises(UsageError, match="--limit 0"):
        ReadOptions(limit=0)


# --- no row is lost -----------------------------------------------------------------------------------------------

KINDS = ("good", "bad", "empty", "same", "blank", "again")
DROPPED = {"empty": "empty_response", "same": "identical_responses", "again": "duplicate"}


def of_kind(kind: str, number: int) -> bytes:
    return {
        "good": line(number),
        "bad": b"{" + str(number).encode(),
        "empty": line(number, chosen=" \n"),
        "same": line(number, chosen="No. "),
        "blank": b" \t",
        "again": line(-1),
    }[kind]


@settings(max_examples=100, deadline=None)
@given(kinds=st.lists(st.sampled_from(KINDS), max_size=30))
def test_no_row_is_lost(kinds: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = saved(Path(folder, "a.jsonl"), line(-1), *(of_kind(kind, n) for n, kind in enumerate(kinds)))
        row_reader = stream(path, SKIP_BAD)
        kept = [record.id for record in row_reader]
        row_reader.quarantine.save(Path(folder, "quarantine.jsonl"))
        entries = [json.loads(text) for text in Path(folder, "quarantine.jsonl").read_bytes().splitlines()]
    assert balances(row_reader.row_counts)
    rows = [(place, kind) for place, kind in enumerate(kinds, start=2) if kind != "blank"]
    assert row_reader.row_counts.rows_in == len(rows) + 1
    assert kept == ["a:1", *(f"a:{n}" for n, (_, kind) in enumerate(rows, start=2) if kind == "good")]
    assert [(entry["line"], entry["verdict"], entry["code"]) for entry in entries] == [
        (place, "quarantined", "BROKEN_JSON") if kind == "bad" else (place, "dropped", DROPPED[kind])
        for place, kind in rows
        if kind != "good"
    ]
    assert list(row_reader.quarantine) == entries


def test_raw_text_is_capped_and_memory_too(tmp_path: Path) -> None:
    row_reader = finished(saved(tmp_path / "a.jsonl", line(0), b"x" * 5_000_000, "é".encode() * 5000, line(1)))
    assert [len(entry["raw"]) for entry in row_reader.quarantine] == [RAW_CHARACTERS, RAW_CHARACTERS]
    assert row_reader.row_counts.kept == 2


def test_row_counts_are_said_with_all_their_parts(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = saved(tmp_path / "a.jsonl", line(0), b"x", line(0), line(1))
    console.say_stages({"read": finished(path).row_counts})
    assert capsys.readouterr().err == "read: 4 rows in = 2 kept + 1 quarantined + 1 dropped (duplicate 1)\n"


# --- kinds of rows ------------------------------------------------------------------------------------------------


def test_candidates_and_labelled_responses_are_streamed_and_refused_as_preferences(tmp_path: Path) -> None:
    several = {"instruction": "Why?", "completions": [{"response": "a"}, {"response": "b"}]}
    labelled = {"prompt": "Why?", "completion": "So.", "label": True}
    for fields, kind, held in ((several, Candidates, "several responses"), (labelled, Unpaired, "single responses")):
        path = saved(tmp_path / "a.jsonl", json.dumps(fields).encode())
        (record,) = stream(path)
        assert type(record) is kind
        with pytest.raises(DataError, match=rf"a\.jsonl · holds {held} .*: .* \(has .*\) · expected pairs"):
            load(path)
    (record,) = stream(saved(path, line(0)))
    assert type(record) is Preference


def test_a_stream_reads_no_further_than_it_is_asked(tmp_path: Path) -> None:
    row_reader = stream(saved(tmp_path / "a.jsonl", line(0), b"x", line(1)))
    assert next(row_reader).id == "a:1"
    assert row_reader.row_counts.rows_in == 1
    with pytest.raises(DataError):
        next(row_reader)


def test_rows_as_they_are(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jsonl", line(0), b'{"a": 1}', b"[]")
    rows = read_rows(path)
    assert [next(rows), next(rows)] == [(f"{path}:1", row(0)), (f"{path}:2", {"a": 1})]
    with pytest.raises(DataError, match=r"a\.jsonl:3 · found a list"):
        next(rows)


# --- real data ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("name", "differ", "empty"), [("harmless-base_test", 5, 4), ("helpful-base_test", 9, 4)])
def test_what_hh_drops_is_named_by_line(name: str, differ: int, empty: int, shared_data: Path, tmp_path: Path) -> None:
    path = shared_data / "hh" / f"{name}.jsonl.gz"
    load(path).quarantine.save(tmp_path / "quarantine.jsonl")
    entries = [json.loads(text) for text in (tmp_path / "quarantine.jsonl").read_text("utf-8").splitlines()]
    by_code = {code: [e["line"] for e in entries if e["code"] == code] for code in ("prompts_differ", "empty_response")}
    assert [len(lines) for lines in by_code.values()] == [differ, empty]
    texts = [fields for _, fields in read_rows(path)]
    for number in by_code["empty_response"]:
        ends = [texts[number - 1][side].rpartition("\n\nAssistant:")[2].strip() for side in ("chosen", "rejected")]
        assert "" in ends
    for number in by_code["prompts_differ"]:
        starts = [texts[number - 1][side].rpartition("\n\nAssistant:")[0] for side in ("chosen", "rejected")]
        assert starts[0] != starts[1]
    assert {entry["file"] for entry in entries} == {str(path)}


REAL = {
    "llamafactory/dpo_en_demo.json.gz": ("preferences", 300),
    "llamafactory/kto_en_demo.json.gz": ("unpaired", 300),
    "alpaca_eval2/multi_response_preferences.jsonl.gz": ("candidates", 805),
    "alpaca_eval2/annotations_gpt4_0613_concise.json.gz": ("preferences", 805),
    "rewardbench_bon16/tulu2_dpo_13b_n16.jsonl.gz": ("candidates", 805),
    "llmbar/Natural_dataset.json": ("preferences", 100),
    "ultrafeedback_binarized/train_clean.jsonl.gz": ("preferences", 1000),
}


@pytest.mark.parametrize("name", REAL)
def test_every_real_preference_set_reads_with_balanced_counts(name: str, shared_data: Path) -> None:
    yields, rows = REAL[name]
    row_reader = finished(shared_data / name, ReadOptions())
    assert (row_reader.yields, row_reader.row_counts.rows_in, row_reader.row_counts.quarantined) == (yields, rows, 0)
    assert balances(row_reader.row_counts)
    assert row_reader.row_counts.kept > 0.97 * rows


@pytest.mark.parametrize(
    ("fields", "code"),
    [
        ({"prompt": [{"role": "wizard", "content": "a"}]}, "ROLE"),
        ({"chosen": [{"role": "user", "content": "a"}]}, "ROLE"),
        ({"prompt": [{"role": "system", "content": "a"}]}, "NO_USER_TURN"),
        ({"score_chosen": 1e999}, "BROKEN_JSON"),
        ({"chosen": None}, "MALFORMED"),
    ],
)
def test_what_a_layout_refuses_has_a_code(fields: dict[str, object], code: str, tmp_path: Path) -> None:
    row = {"prompt": "Why?", "chosen": "Because.", "rejected": "No."}
    path = tmp_path / "a.jsonl"
    path.write_text(json.dumps(row) + "\n" + json.dumps(row | fields) + "\n")
    row_reader = stream(path, ReadOptions(max_bad_rows="1"))
    assert len(list(row_reader)) == 1
    assert row_reader.quarantine.codes == {code: 1}
