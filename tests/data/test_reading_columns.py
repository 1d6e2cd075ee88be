"""Rows read from columns are what they are when each is read by itself: records, account, quarantine, places."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import pyarrow
import pyarrow.compute
import pyarrow.parquet
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.data.layouts import LAYOUTS, dialogues, fields, texts
from headwater.data.reading import ReadOptions, RowCounts, blocks, columns, formats, reader, stream
from headwater.data.writing import row_of
from headwater.errors import DataError
from tests.data.test_reading_door import ANY_LINE

LET_ALL = ReadOptions(max_bad_rows="100%")

AS_TEXT = '[{"role": "assistant", "content": "So."}]'
WORDS = [
    "Sure",
    "I ",
    "",
    " ",
    "\n",
    "\xa0",
    "\x1c",
    "\u3000",
    "\0",
    "é",
    "🦉",
    "A",
    "a",
    "b",
    "\u2028",
    '"\\',
    ": {}",
    "[",
    AS_TEXT,
    "\n\nHuman: Hi\n\nAssistant:",
]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=4).map("".join)
DIALOGUES = st.lists(
    st.sampled_from([*WORDS, *["\n\nHuman:", "\n\nAssistant:"] * 5, "\n\nHuman: Why?\n\nAssistant: So."]), max_size=7
).map(lambda parts: "\n\nHuman: Hi" * (len(parts) % 3 > 0) + "".join(parts))
ROLES = st.sampled_from([*["user", "assistant"] * 4, "system", "bot", None, 7])
KEYS = {
    "name": st.sampled_from([None, "", "x"]),
    "tool_calls": st.sampled_from([None, [], [{"id": "1"}]]),
    "votes": st.sampled_from([None, 0, "", 2]),
}
MESSAGES = st.lists(st.fixed_dictionaries({"role": ROLES, "content": TEXTS | st.none()}, optional=KEYS), max_size=4)
ASKED = [{"role": "user", "content": "Why?"}]
ANSWERED = TEXTS.map(lambda text: [{"role": "assistant", "content": text}])
PROMPTS = st.sampled_from(
    [
        *(ASKED, ASKED, ASKED, [{"role": "system", "content": "Why?"}], [{"role": "user", "content": "Who?"}]),
        [{"role": "bot", "content": "Hi"}, *ASKED],
    ]
)
CONVERSATIONS = st.builds(lambda turns, answer: turns + answer, PROMPTS, ANSWERED)
NOT_TEXTS = st.sampled_from([None, 7, [], {}, ["a"], True])
NUMBERS = st.sampled_from([None, 1, 2, -0.0, 0.5, 10**30, 2**63, "high", True, [1]])
ALIKE = [[None, 1, 2], [0.5, -0.0, None], [1, 0.5, 10**30], ["high", None], [True, False], [[1], []], [None]]
BESIDE = {
    "id": st.sampled_from([None, "", "a", 7, 0, 2.5, True, 2**63, {"a": 1}]),
    "source": st.sampled_from([None, "", "lab", 3]),
    "system": st.sampled_from([None, "", "Be kind."]),
    "score_chosen": NUMBERS,
    "rejected_score": NUMBERS,
    "chosen-rating": NUMBERS,
    "rejected-rating": NUMBERS,
    "chosen_complete": st.sampled_from([None, True, False, 1]),
    "metadata": st.none() | st.fixed_dictionaries({}, optional={"score_chosen": NUMBERS, "other": NUMBERS}),
    "margin": NUMBERS,
    "tools": st.sampled_from([None, "", "[]", "[1]"]),
    "other": st.sampled_from(["", [], "2020-01-01", None, 1, {"a": [1.5]}]),
}


def rows(prompts: Any, sides: Any, first: dict[str, Any]) -> st.SearchStrategy[list[dict[str, Any]]]:
    """Rows of a layout, the first of which is good; all have what some have beside the texts, or only some."""
    texts = {"chosen": sides, "rejected": sides} | ({"prompt": prompts} if prompts is not None else {})
    odd = {name: values | NOT_TEXTS for name, values in texts.items()}
    several = st.fixed_dictionaries(texts) | st.fixed_dictionaries(texts) | st.fixed_dictionaries({}, optional=odd)

    def with_columns(columns: tuple[list[str], list[Any] | None]) -> st.SearchStrategy[list[dict[str, Any]]]:
        names, alike = columns
        beside = {name: st.sampled_from(alike) if alike else BESIDE[name] for name in names}
        if alike and "metadata" in names:
            beside["metadata"] = st.fixed_dictionaries({"score_chosen": st.sampled_from(alike)})
        whole = st.builds(lambda row, more: row | more, several, st.fixed_dictionaries(beside))
        begin = st.fixed_dictionaries(beside).map(lambda more: [first | more])
        return st.builds(lambda one, rest: one + rest, begin, st.lists(whole, max_size=12))

    names = st.lists(st.sampled_from(sorted(BESIDE)), max_size=3, unique=True)
    return st.tuples(names, st.none() | st.sampled_from(ALIKE)).flatmap(with_columns)


CASES = {
    "explicit-prompt, texts": rows(TEXTS, TEXTS, {"prompt": "Why?", "chosen": "So.", "rejected": "No."}),
    "explicit-prompt, messages": rows(
        MESSAGES | st.just(ASKED),
        ANSWERED | MESSAGES,
        {"prompt": ASKED, "chosen": [{"role": "assistant", "content": "So."}], "rejected": "No."},
    ),
    "implicit-prompt": rows(
        None,
        CONVERSATIONS | CONVERSATIONS | MESSAGES,
        {
            "chosen": [*ASKED, {"role": "assistant", "content": "So."}],
            "rejected": [*ASKED, {"role": "assistant", "content": "N"}],
        },
    ),
    "prompt-and-conversations": rows(
        TEXTS | st.just("Why?"),
        CONVERSATIONS | CONVERSATIONS | MESSAGES,
        {
            "prompt": "Why?",
            "chosen": [*ASKED, {"role": "assistant", "content": "So."}],
            "rejected": [*ASKED, {"role": "assistant", "content": "N"}],
        },
    ),
    "hh": rows(
        None,
        DIALOGUES,
        {"chosen": "\n\nHuman: Hi\n\nAssistant: So.", "rejected": "\n\nHuman: Hi\n\nAssistant: No."},
    ),
}


def everything(path: Path, read_options: ReadOptions = LET_ALL) -> tuple[Any, ...]:
    reading = stream(path, read_options)
    records = [orjson.dumps(row_of(record)) for record in reading]
    assert reading.row_counts.kept == len(records)
    return records, reading.row_counts, reading.layout, list(reading.quarantine), reading.quarantine.first


def one_by_one(path: Path, read_options: ReadOptions = LET_ALL) -> tuple[Any, ...]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reader.RowReader, "_sure", lambda self, block: None)
        return everything(path, read_options)


def saved(path: Path, fields: list[dict[str, Any]]) -> Path:
    path.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in fields))
    return path


@pytest.mark.parametrize("layout", CASES)
@settings(max_examples=150, deadline=None)
@given(data=st.data(), block=st.sampled_from([1, 300, 1 << 20]))
def test_columns_and_rows_say_the_same(layout: str, data: st.DataObject, block: int) -> None:
    fields = data.draw(CASES[layout])
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "FIRST", 1 << data.draw(st.integers(0, 9)))
        patch.setattr(formats, "BLOCK", block)
        path = saved(Path(folder, "a:b.jsonl"), fields)
        assert everything(path) == one_by_one(path)


@settings(max_examples=300, deadline=None)
@given(lines=st.lists(ANY_LINE, max_size=20), ended=st.booleans(), block=st.sampled_from([1, 300, 1 << 20]))
def test_broken_lines_among_columns_are_found(lines: list[bytes], ended: bool, block: int) -> None:
    good = b'{"prompt": "Why 8?", "chosen": "Because 8.", "rejected": "No."}'
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(formats, "FIRST", 1)
        patch.setattr(formats, "BLOCK", block)
        path = Path(folder, "a.jsonl")
        path.write_bytes(b"\n".join([good, *lines]) + b"\n" * ended)
        assert everything(path) == one_by_one(path)


GOOD = {
    "explicit": lambda n: {"prompt": f"Why {n}?", "chosen": f"So {n}.", "rejected": "No."},
    "scored": lambda n: GOOD["explicit"](n) | {"metadata": {"score_chosen": n, "score_rejected": 0.5}, "id": f"r{n}"},
    "messages": lambda n: {
        "prompt": [*ASKED, {"role": "assistant", "content": "é"}, {"role": "user", "content": f"{n}"}],
        "chosen": [{"role": "assistant", "content": "So."}],
        "rejected": [{"role": "assistant", "content": "No."}],
    },
    "implicit": lambda n: {
        side: [{"role": "user", "content": f"{n}"}, {"role": "assistant", "content": side}]
        for side in ("chosen", "rejected")
    },
    "prompt and conversations": lambda n: {"prompt": f"{n}"} | GOOD["implicit"](n),
    "hh": lambda n: {
        side: f"\n\nHuman: {n} \n\nAssistant: é\n\nHuman: And?\n\nAssistant: {side} " for side in ("chosen", "rejected")
    },
}


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
@pytest.mark.parametrize("kind", GOOD)
def test_good_rows_are_never_looked_at_one_by_one(
    kind: str, suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fields = [GOOD[kind](n) for n in range(3000)]
    path = tmp_path / f"a{suffix}"
    if suffix == ".jsonl":
        saved(path, fields)
    else:
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(fields), path)
    judged, alone = 0, reader.RowReader._judged

    def counted(self: reader.RowReader, *row: Any) -> Any:
        nonlocal judged
        judged += 1
        return alone(self, *row)

    monkeypatch.setattr(reader.RowReader, "_judged", counted)
    monkeypatch.setattr(formats, "BLOCK", 1 << 16)
    found = everything(path)
    assert found[1] == RowCounts(rows_in=3000, kept=3000)
    assert 0 < judged < 1500, "only the first block is read row by row"
    monkeypatch.undo()
    assert found == one_by_one(path)


def turns(*roles: str) -> list[dict[str, Any]]:
    return [{"role": role, "content": f"by {role}"} for role in roles]


ODD_TURNS = [
    turns("bot", "user", "assistant"),
    turns("user", "bot"),
    turns("user"),
    turns("assistant"),
    turns("system", "assistant"),
    turns("user", "user", "assistant"),
    [{"role": "user", "content": None}, *turns("assistant")],
    [{"role": None, "content": "a"}, *turns("assistant")],
    [None, *turns("user", "assistant")],
    [],
    None,
]


@pytest.mark.parametrize("odd", ODD_TURNS)
def test_odd_conversations_among_columns_are_found(odd: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "FIRST", 1)
    same, other = GOOD["implicit"](1), GOOD["implicit"](2)
    good, bad = (
        GOOD["implicit"](0),
        {"chosen": odd, "rejected": odd and [*odd[:-1], {"role": "assistant", "content": "B"}]},
    )
    path = saved(tmp_path / "a.jsonl", [good, good, same, bad, other])
    asked: list[Any] = []
    sure = reader.RowReader._sure
    monkeypatch.setattr(reader.RowReader, "_sure", lambda self, block: asked.append(block.columns) or sure(self, block))
    assert everything(path) == one_by_one(path)
    assert asked[1] is not None


def test_the_layouts_with_columns_are_the_commonest() -> None:
    with_columns = {name for name, source in LAYOUTS.items() if source.texts is not None}
    assert with_columns == {"explicit-prompt", "prompt-and-conversations", "implicit-prompt", "hh"}


def test_finishing_makes_no_records_and_counts_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fields = [GOOD["explicit"](n % 2900) for n in range(3000)]
    path = saved(tmp_path / "a.jsonl", fields)
    counted = everything(path)[1]
    monkeypatch.setattr(reader, "preference", lambda *texts: pytest.fail("made a record"))
    reading = stream(path)
    assert reading.finish() == counted == RowCounts(3000, 2900, dropped=counted.dropped)
    assert counted.dropped == {"duplicate": 100}


@pytest.mark.parametrize("limit", [1, 999, 1000, 1001, 2999, 3000, 4000])
def test_a_limit_ends_a_block(limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "BLOCK", 1 << 15)
    path = saved(tmp_path / "a.jsonl", [GOOD["explicit"](n) for n in range(3000)])
    reading = stream(path, ReadOptions(limit=limit))
    assert len(list(reading)) == reading.row_counts.rows_in == min(limit, 3000)


# --- what Arrow lets by -------------------------------------------------------------------------------------------

START = b'{"prompt": "Why?", "chosen": "So.", "rejected": "No."'
LET_BY = {
    "NaN": START + b', "score_chosen": NaN}',
    "a number beyond all numbers": START + b', "score_chosen": ' + b"9" * 400 + b"}",
    "bytes that are not UTF-8": START[:-2] + b'\xff"}',
    "two objects in a line, and none": START + b"}" + START + b"}\n",
    "an object on two lines, and two in one": START + b"\n}" + START + b"}",
    "a key that stands twice": START + b', "chosen": "a"}',
    "half a character": START[:-2] + b'\\ud83d"}',
    "a line break in a text": START[:-2] + b'\n"}',
    "brackets in brackets": START + b', "score_chosen": ' + b"[" * 1_000_000 + b"}",
    "objects in objects": START + b', "more": ' + b'{"a":' * 1_000_000 + b"}",
}


@pytest.mark.parametrize("case", LET_BY)
def test_what_arrow_would_let_by_or_crash_on_has_no_columns(case: str) -> None:
    good = {"prompt": "Why?", "chosen": "So.", "rejected": "No.", "score_chosen": 1.5}
    reader = columns.Columns()
    reader.learn([good, good])
    data = json.dumps(good).encode() + b"\n"
    whole, damaged = (blocks.Lines(text, 0, 0) for text in (data * 3, data + LET_BY[case] + b"\n" + data))
    reader.read(whole)
    reader.read(damaged)
    assert whole.columns.num_rows == 3
    assert damaged.columns is None


def test_columns_that_come_later_are_learned(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "BLOCK", 1 << 12)
    fields = [GOOD["explicit"](n) | ({"id": f"r{n}", "score_chosen": 1} if n > 1500 else {}) for n in range(3000)]
    used: list[bool] = []
    sure = reader.RowReader._sure
    monkeypatch.setattr(
        reader.RowReader, "_sure", lambda self, block: used.append(block.columns is not None) or sure(self, block)
    )
    assert everything(saved(tmp_path / "a.jsonl", fields))[1].kept == 3000
    assert used[0] is False
    begun = 2 * blocks.AT_ONCE + 1
    assert len(used) > 4 * begun
    assert 0 < used[1:].count(False) <= begun, "a block with new columns, and what was begun by then"


def test_arrow_and_python_call_the_same_characters_white_space() -> None:
    characters = [chr(code) for code in (*range(0xD800), *range(0xE000, 0x110000))]
    trimmed = pyarrow.compute.utf8_trim_whitespace(pyarrow.array(characters)).to_pylist()
    assert [text == "" for text in trimmed] == [text.isspace() for text in characters]


def test_white_space_beyond_ascii_is_known_by_its_bytes() -> None:
    wide = [chr(code) for code in (*range(0x80, 0xD800), *range(0xE000, 0x110000)) if chr(code).isspace()]
    assert {space for spaces in dialogues._WIDE_SPACES.values() for space in spaces} == {
        int.from_bytes(space.encode(), "big") for space in wide
    }
    assert all(len(space.encode()) in dialogues._WIDE_SPACES for space in wide)


SPLIT = {
    "a marker across the end of a row": (["\n\nHuman: a\n\nAssistant: b\n\nHu", "man: c"], [False, False]),
    "a line more before a marker": (["\n\nHuman: a\n\n\nAssistant: b"], [True]),
    "the same marker twice": (["\n\nHuman: a\n\nAssistant:\n\nAssistant: b"], [True]),
    "no answer": (["\n\nHuman: a", "\n\nAssistant: a", "", "\n\nHuman: a\n\nAssistant: b\n\nHuman: c"], [False] * 4),
    "text before the first turn": (["a\n\nHuman: a\n\nAssistant: b"], [False]),
    "nothing of the user": (["\n\nAssistant: a\n\nAssistant: b"], [False]),
    "spaces of all kinds": (["\n\nHuman:\xa0 \u3000a\t\n\nAssistant:" + " " * 9 + "b\u2028\u200a"], [True]),
    "nothing said": (["\n\nHuman: \n\nAssistant:  "], [True]),
}


@pytest.mark.parametrize("case", SPLIT)
def test_dialogues_are_split_as_texts_are(case: str) -> None:
    rows, sure = SPLIT[case]
    for column in (pyarrow.array(rows), pyarrow.array(["x", *rows, None])[1:], pyarrow.array(rows, "large_string")):
        found = dialogues.Dialogues.of(column)
        expected = [*sure, False] if len(column) > len(rows) else sure
        assert found.sure.tolist() == expected
        for row, prompt, answer in zip(rows, found.prompts().to_pylist(), found.answers().to_pylist(), strict=False):
            if sure[rows.index(row)]:
                before, said = fields.dialogue({"chosen": row}, "chosen")
                turns = fields.dialogue_turns(before, "chosen")
                assert answer == said
                assert prompt == b"".join(b"\xff%b\xff%b" % (t.role.encode(), t.content.encode()) for t in turns)


LETTERS = st.sampled_from(["a", "b", " ", "\n", "\xa0", "\x1c", "\x7f", "\0", "é", "abab"])
ANSWERS = st.lists(LETTERS, max_size=6).map("".join)


@settings(max_examples=500, deadline=None)
@given(pairs=st.lists(st.tuples(ANSWERS, ANSWERS), max_size=8))
def test_answers_that_surely_differ_are_neither_empty_nor_the_same(pairs: list[tuple[str, str]]) -> None:
    chosen, rejected = (pyarrow.array([pair[side] for pair in pairs], pyarrow.string()) for side in (0, 1))
    for (one, other), differ in zip(pairs, texts._surely_differ(chosen, rejected), strict=True):
        assert not differ or (one.split() != other.split() and one.strip() and other.strip())


ANSWERED_TWICE = {
    ("Sure.", "No."): True,
    ("It is.", "I am."): True,
    ("I am.", "I do!"): True,
    ("So one", "Son e"): True,
    ("a, b or c....", "a, b or d...."): False,
    ("one or two", "one or  two"): False,
    ("So", "So "): False,
    ("", "So"): False,
    ("\u3000So", "No"): False,
}


@pytest.mark.parametrize(("pair", "differ"), ANSWERED_TWICE.items())
def test_which_answers_surely_differ(pair: tuple[str, str], differ: bool) -> None:
    for answers in (pair, pair[::-1]):
        columns = (pyarrow.array(["a", text])[1:] for text in answers)
        assert texts._surely_differ(*columns).tolist() == [differ]


def test_a_row_whose_end_is_no_truth_value_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "FIRST", 1)
    path = saved(tmp_path / "a.jsonl", [GOOD["explicit"](n) | {"chosen_complete": 0.5} for n in range(3)])
    assert everything(path)[1] == RowCounts(rows_in=3, quarantined=3)
    assert everything(path) == one_by_one(path)


def test_dialogues_that_differ_inside_of_a_character_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "FIRST", 1)
    odd = {
        "chosen": "\n\nHuman: Hi there\n\nAssistant: a",
        "rejected": "\n\nHuman: Hi the\n\nAssistant:" + "\xa0" * 3 + "b",
    }
    path = saved(tmp_path / "a.jsonl", [GOOD["hh"](1), odd, GOOD["hh"](2)])
    assert everything(path) == one_by_one(path)


# --- blocks made ahead --------------------------------------------------------------------------------------------


def test_an_error_comes_after_what_was_read_before_it() -> None:
    def failing() -> Iterator[int]:
        yield from range(5)
        raise DataError("torn")

    found = []
    with pytest.raises(DataError, match="torn"):
        for number in blocks.ahead(failing(), abs):
            found.append(number)
    assert found == list(range(5))


def test_a_reader_that_is_given_up_closes_its_file(tmp_path: Path) -> None:
    closed = []

    def numbers() -> Iterator[int]:
        try:
            yield from range(100)
        finally:
            closed.append(True)

    some = blocks.ahead(numbers(), abs)
    assert [next(some), next(some)] == [0, 1]
    some.close()
    assert closed == [True]


def test_the_second_block_waits_for_what_the_first_one_teaches() -> None:
    learned: list[int] = []

    def numbers() -> Iterator[int]:
        for number in range(4):
            assert number == 0 or learned
            yield number

    for number in blocks.ahead(numbers(), abs):
        learned.append(number)
    assert learned == [0, 1, 2, 3]


def test_lines_that_look_like_objects() -> None:
    lines = blocks.Lines(b"{1}\n{22}\n{3}\n", 4, 100)
    assert lines.ends.tolist() == [3, 8, 12]
    assert columns._are_objects(lines)
    assert [lines.item(place)[2:] for place in (0, 1, 2)] == [(b"{1}\n", 100), (b"{22}\n", 104), (b"{3}\n", 109)]
    for odd in (b"", b"\n", b"{1}", b"{1}\n\n", b"\n{1}\n", b"{1} \n", b" {1}\n", b"{1}\r\n", b"{1}\n{2"):
        assert not columns._are_objects(blocks.Lines(odd, 0, 0))
