"""Rows of the commonest layouts: what each becomes, whatever stands in the rows around it."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.data.preference import Message, Preference, Response
from headwater.data.reading import ReadOptions, RowCounts, formats, stream
from headwater.data.writing import row_of
from tests.data.test_reading_counts import ANY_LINE

SKIP_BAD = ReadOptions(max_bad_rows="100%")

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


def everything(path: Path) -> tuple[Any, ...]:
    reading = stream(path, SKIP_BAD)
    records = [orjson.dumps(row_of(record)) for record in reading]
    counts = reading.row_counts
    assert counts.kept == len(records)
    assert counts.rows_in == counts.kept + counts.quarantined + counts.dropped.total()
    entries = [entry | {"file": "", "offset": 0, "raw": ""} for entry in reading.quarantine]
    return records, counts, reading.layout, entries


def saved(path: Path, fields: list[dict[str, Any]]) -> Path:
    path.write_bytes(b"".join(json.dumps(row).encode() + b"\n" for row in fields))
    return path


def read(folder: Path, fields: list[dict[str, Any]]) -> tuple[list[Preference], list[tuple[int, str]]]:
    """The records, and line and code of every row that was left out."""
    reading = stream(saved(folder / "a.jsonl", fields), SKIP_BAD)
    records = [record for record in reading if isinstance(record, Preference)]
    return records, [(entry["line"], entry["code"]) for entry in reading.quarantine]


@pytest.mark.parametrize("layout", CASES)
@settings(max_examples=100, deadline=None)
@given(data=st.data(), block=st.sampled_from([1, 300]))
def test_a_row_is_read_alike_whatever_its_file_and_block(layout: str, data: st.DataObject, block: int) -> None:
    fields = data.draw(CASES[layout])
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        lines = saved(Path(folder, "a.jsonl"), fields)
        array = Path(folder, "a.json")
        array.write_text(json.dumps(fields))
        found = everything(lines)
        assert everything(array) == found
        patch.setattr(formats, "BLOCK", block)
        assert everything(lines) == found


@settings(max_examples=100, deadline=None)
@given(lines=st.lists(ANY_LINE, max_size=20), ended=st.booleans(), block=st.sampled_from([1, 300]))
def test_broken_lines_are_found_whatever_the_block(lines: list[bytes], ended: bool, block: int) -> None:
    good = b'{"prompt": "Why 8?", "chosen": "Because 8.", "rejected": "No."}'
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        path = Path(folder, "a.jsonl")
        path.write_bytes(b"\n".join([good, *lines]) + b"\n" * ended)
        found = everything(path)
        patch.setattr(formats, "BLOCK", block)
        assert everything(path) == found


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
QUESTION = (Message("user", "7"),)
READ = {
    "explicit": ((Message("user", "Why 7?"),), Response("So 7."), Response("No.")),
    "scored": ((Message("user", "Why 7?"),), Response("So 7.", 7.0), Response("No.", 0.5)),
    "messages": ((Message("user", "Why?"), Message("assistant", "é"), *QUESTION), Response("So."), Response("No.")),
    "implicit": (QUESTION, Response("chosen"), Response("rejected")),
    "prompt and conversations": (QUESTION, Response("chosen"), Response("rejected")),
    "hh": ((*QUESTION, Message("assistant", "é"), Message("user", "And?")), Response("chosen"), Response("rejected")),
}


@pytest.mark.parametrize("kind", GOOD)
def test_a_good_row_of_many_is_read(kind: str, tmp_path: Path) -> None:
    records, left_out = read(tmp_path, [GOOD[kind](n) for n in range(3000)])
    assert (len(records), left_out) == (3000, [])
    seventh = records[7]
    assert (seventh.prompt, seventh.chosen, seventh.rejected) == READ[kind]
    assert (seventh.id, seventh.source) == ("r7" if kind == "scored" else "a:8", "a")


def turns(*roles: str) -> list[dict[str, Any]]:
    return [{"role": role, "content": f"by {role}"} for role in roles]


ODD_TURNS: list[tuple[Any, str]] = [
    (turns("bot", "user", "assistant"), "ROLE"),
    (turns("user", "bot"), "ROLE"),
    (turns("user"), "NO_ASSISTANT_TURN"),
    (turns("assistant"), "NO_USER_TURN"),
    (turns("system", "assistant"), "NO_USER_TURN"),
    (turns("user", "user", "assistant"), ""),
    ([{"role": "user", "content": None}, *turns("assistant")], "MALFORMED"),
    ([{"role": None, "content": "a"}, *turns("assistant")], "ROLE"),
    ([None, *turns("user", "assistant")], "MALFORMED"),
    ([], "MALFORMED"),
    (None, "MALFORMED"),
]


@pytest.mark.parametrize(("odd", "code"), ODD_TURNS)
def test_odd_conversations_are_found(odd: Any, code: str, tmp_path: Path) -> None:
    row = {"chosen": odd, "rejected": odd and [*odd[:-1], {"role": "assistant", "content": "B"}]}
    records, left_out = read(tmp_path, [GOOD["implicit"](0), GOOD["implicit"](1), row, GOOD["implicit"](2)])
    assert left_out == ([(3, code)] if code else [])
    assert len(records) == 4 - len(left_out)


@pytest.mark.parametrize("limit", [1, 999, 1000, 1001, 2999, 3000, 4000])
def test_a_limit_ends_a_block(limit: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(formats, "BLOCK", 1 << 15)
    path = saved(tmp_path / "a.jsonl", [GOOD["explicit"](n) for n in range(3000)])
    reading = stream(path, ReadOptions(limit=limit))
    assert len(list(reading)) == reading.row_counts.rows_in == min(limit, 3000)


# --- lines that other parsers accept ------------------------------------------------------------------------------

START = b'{"prompt": "Why?", "chosen": "So.", "rejected": "No."'
REFUSED = {
    "NaN": (START + b', "score_chosen": NaN}', ["BROKEN_JSON"]),
    "a number beyond all numbers": (START + b', "score_chosen": ' + b"9" * 400 + b"}", ["BROKEN_JSON"]),
    "bytes that are not UTF-8": (START[:-2] + b'\xff"}', ["UNICODE"]),
    "two objects in a line, and none": (START + b"}" + START + b"}\n", ["BROKEN_JSON"]),
    "an object on two lines, and two in one": (START + b"\n}" + START + b"}", ["BROKEN_JSON", "BROKEN_JSON"]),
    "a key that stands twice": (START + b', "chosen": "a"}', ["DUPLICATE_KEY"]),
    "half a character": (START[:-2] + b'\\ud83d"}', ["UNICODE"]),
    "a line break in a text": (START[:-2] + b'\n"}', ["BROKEN_JSON", "BROKEN_JSON"]),
    "brackets in brackets": (START + b', "score_chosen": ' + b"[" * 1_000_000 + b"}", ["BROKEN_JSON"]),
    "objects in objects": (START + b', "more": ' + b'{"a":' * 1_000_000 + b"}", ["BROKEN_JSON"]),
}


@pytest.mark.parametrize("case", REFUSED)
def test_lines_that_other_parsers_accept_are_refused(case: str, tmp_path: Path) -> None:
    line, codes = REFUSED[case]
    good = {"prompt": "Why?", "chosen": "So.", "rejected": "No.", "score_chosen": 1.5}
    first, last = (json.dumps(row).encode() for row in (good, good | {"prompt": "Who?"}))
    path = tmp_path / "a.jsonl"
    path.write_bytes(b"\n".join([first, line, last]) + b"\n")
    records, counts, _, entries = everything(path)
    assert [entry["code"] for entry in entries] == codes
    assert (len(records), counts.quarantined) == (2, len(codes))


def test_columns_that_come_later_are_read(tmp_path: Path) -> None:
    fields = [GOOD["explicit"](n) | ({"id": f"r{n}", "score_chosen": 1} if n > 1500 else {}) for n in range(3000)]
    records, left_out = read(tmp_path, fields)
    assert not left_out
    assert [(record.id, record.chosen.score) for record in records[1500:1502]] == [("a:1501", None), ("r1501", 1.0)]


# --- dialogues as one text ----------------------------------------------------------------------------------------

HUMAN, EMPTY = Message("user", "a"), Message("assistant", "")
SPLIT: dict[str, tuple[str, Any]] = {
    "a marker cut at the end": ("\n\nHuman: a\n\nAssistant: b\n\nHu", ((HUMAN,), "b\n\nHu")),
    "a line more before a marker": ("\n\nHuman: a\n\n\nAssistant: b", ((HUMAN,), "b")),
    "the same marker twice": ("\n\nHuman: a\n\nAssistant:\n\nAssistant: b", ((HUMAN, EMPTY), "b")),
    "spaces of all kinds": ("\n\nHuman:\xa0 \u3000a\t\n\nAssistant:" + " " * 9 + "\u2028\u200ab", ((HUMAN,), "b")),
    "no answer": ("\n\nHuman: a", "NO_ASSISTANT_TURN"),
    "nothing": ("", "NO_ASSISTANT_TURN"),
    "a question last": ("\n\nHuman: a\n\nAssistant: b\n\nHuman: c", "NO_ASSISTANT_TURN"),
    "an answer alone": ("\n\nAssistant: a", "NO_USER_TURN"),
    "nothing of the user": ("\n\nAssistant: a\n\nAssistant: b", "NO_USER_TURN"),
    "text before the first turn": ("a\n\nHuman: a\n\nAssistant: b", "MALFORMED"),
    "an empty answer": ("\n\nHuman: \n\nAssistant:  ", "empty_response"),
}


@pytest.mark.parametrize("case", SPLIT)
def test_a_dialogue_is_split_at_its_last_answer(case: str, tmp_path: Path) -> None:
    text, expected = SPLIT[case]
    records, left_out = read(tmp_path, [GOOD["hh"](0), {"chosen": text, "rejected": f"{text} other"}])
    if isinstance(expected, str):
        assert left_out == [(2, expected)]
    else:
        prompt, answer = expected
        assert (records[1].prompt, records[1].chosen.text, records[1].rejected.text) == (
            prompt,
            answer,
            f"{answer} other",
        )


def test_dialogues_that_differ_inside_of_a_word_have_two_prompts(tmp_path: Path) -> None:
    odd = {
        "chosen": "\n\nHuman: Hi there\n\nAssistant: a",
        "rejected": "\n\nHuman: Hi the\n\nAssistant:" + "\xa0" * 3 + "b",
    }
    records, left_out = read(tmp_path, [GOOD["hh"](1), odd, GOOD["hh"](2)])
    assert (len(records), left_out) == (2, [(2, "prompts_differ")])


ANSWERED_TWICE = {
    ("Sure.", "No."): "",
    ("It is.", "I am."): "",
    ("So one", "Son e"): "",
    ("a, b or c....", "a, b or d...."): "",
    ("\u3000So", "No"): "",
    ("a\0", "a"): "",
    ("one or two", "one or  two"): "identical_responses",
    ("So", "So "): "identical_responses",
    ("\x1ca", "a"): "identical_responses",
    ("a\x0bb", "a b"): "identical_responses",
    ("", "So"): "empty_response",
    ("\u3000", "So"): "empty_response",
}


@pytest.mark.parametrize(("pair", "reason"), ANSWERED_TWICE.items())
def test_answers_that_are_the_same_but_for_white_space_are_no_preference(
    pair: tuple[str, str], reason: str, tmp_path: Path
) -> None:
    for chosen, rejected in (pair, pair[::-1]):
        _, left_out = read(tmp_path, [{"prompt": "Why?", "chosen": chosen, "rejected": rejected}])
        assert left_out == ([(1, reason)] if reason else [])


def test_a_row_whose_end_is_no_truth_value_is_found(tmp_path: Path) -> None:
    path = saved(tmp_path / "a.jsonl", [GOOD["explicit"](n) | {"chosen_complete": 0.5} for n in range(3)])
    assert everything(path)[1] == RowCounts(rows_in=3, quarantined=3)


def test_rows_that_are_not_read_to_the_end_close_their_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[Any] = []
    real = formats._opened
    monkeypatch.setattr(formats, "_opened", lambda *given: opened.append(real(*given)) or opened[-1])
    rows = formats.read_file(saved(tmp_path / "a.jsonl", [GOOD["explicit"](n) for n in range(3)]))
    assert next(rows).number == 1
    rows.close()
    assert opened[0].closed
