"""Layouts described by `--columns` or a YAML file of `--layout`."""

from __future__ import annotations

import itertools
import json
import random
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from headwater import cli
from headwater.data.layouts import Broken, Fields
from headwater.data.layouts.description import Description
from headwater.data.layouts.description_parser import of_file, parse
from headwater.data.layouts.paths import left_out, spelled, tree_of, value_at, written
from headwater.data.layouts.suggestion import suggest
from headwater.data.preference import Candidates, Message, Preference, Response, Unpaired
from headwater.data.reading import ReadOptions, RowReader, stream, write
from headwater.errors import DataError, UsageError
from tests.conftest import ROOT

ASKED = (Message("user", "Why?"),)
YES, NO = Response("Because."), Response("No.")


def read(path: Path, rows: list[Any], columns: str | None = None, **options: Any) -> tuple[RowReader, list[Any]]:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    row_reader = stream(path, ReadOptions(columns=columns, **options))
    return row_reader, list(row_reader)


# --- pairs under other names --------------------------------------------------------------------------------------


def test_described_columns_are_read_as_a_pair(tmp_path: Path) -> None:
    fields = {"q": "Why?", "good": "Because.", "bad": "No.", "g": 2, "note": "x", "id": 7, "instruction": "Hm?"}
    description = "prompt=q, chosen=good, rejected=bad, score_chosen=g"
    assert parse(description).row(fields) == {
        "id": 7,
        "prompt": "Why?",
        "chosen": "Because.",
        "rejected": "No.",
        "score_chosen": 2,
    }
    row_reader, (found,) = read(tmp_path / "file.jsonl", [fields], description)
    assert found == Preference(prompt=ASKED, chosen=Response("Because.", 2), rejected=NO, id="7", source="file")
    assert row_reader.layout == f"described ({description})"
    assert row_reader.row_counts.not_read == ["instruction", "note"]


def test_columns_that_have_their_name_need_no_naming() -> None:
    orca = {"system": "Be brief.", "question": "Why?", "chosen": "Because.", "rejected": "No."}
    given = {**orca, "prompt": "Why?"}
    del given["question"]
    assert parse("prompt=question").row(orca) == given


def test_a_response_that_is_replaced_loses_its_score() -> None:
    fields = {"prompt": "Why?", "completion": "Because.", "label": True, "score": 2, "complete": False, "other": "No."}
    assert parse("prompt=prompt").row(fields)["score"] == 2
    assert parse("completion=other").row(fields) == {"prompt": "Why?", "completion": "No.", "label": True}
    pair = {"prompt": "Why?", "chosen": "Because.", "rejected": "No.", "score_chosen": 9, "rejected_complete": False}
    flipped = parse("chosen=rejected,rejected=chosen").row(pair)
    assert flipped == {"prompt": "Why?", "chosen": "No.", "rejected": "Because."}
    assert parse("prompt=chosen").row({"chosen": "a", "rejected": "b"}) == {"prompt": "a", "rejected": "b"}


def test_texts_are_joined_and_null_is_left_out(tmp_path: Path) -> None:
    rows = [{"i": "Summarise.", "x": x, "good": f"So {n}.", "bad": "No."} for n, x in enumerate(["Cats.", "", None])]
    _, found = read(tmp_path / "a.jsonl", rows, "prompt=i+x, chosen=good, rejected=bad")
    assert [one.prompt[0].content for one in found] == ["Summarise.\nCats.", "Summarise.", "Summarise."]
    rows[0]["x"] = 3
    with pytest.raises(DataError, match="x is a int · expected a text, as \\+ joins texts"):
        read(tmp_path / "a.jsonl", rows, "prompt=i+x, chosen=good, rejected=bad")


# --- two answers and a verdict ------------------------------------------------------------------------------------


@pytest.mark.parametrize("label", [1, 1.0, "1", " 1 "])
def test_the_meaning_of_a_verdict_is_described(label: Any, tmp_path: Path) -> None:
    rows = [{"q": "Why?", "x": "Because.", "y": "No.", "label": label, "sx": 3}]
    _, (found,) = read(tmp_path / "file.jsonl", rows, "prompt=q, a=x, b=y, winner=label{1:b, 2:a}, score_a=sx")
    expected = Preference(prompt=ASKED, chosen=NO, rejected=Response("Because.", 3), id="file:1", source="file")
    assert found == expected


def test_ties_and_rows_without_a_verdict_are_dropped(tmp_path: Path) -> None:
    labels = [2, 0, None, -1, "x"]
    rows = [{"q": f"Why {n}?", "x": "So.", "y": "No.", "l": label} for n, label in enumerate(labels)]
    given = {"max_bad_rows": "1"}
    row_reader, found = read(tmp_path / "a.jsonl", rows, "prompt=q,a=x,b=y,winner=l{2:a,0:tie,null:none,<0:b}", **given)
    assert [one.chosen.text for one in found] == ["So.", "No."]
    counts = row_reader.row_counts
    assert counts.dropped == {"tie": 1, "no_verdict": 1} and counts.quarantined == 1
    assert row_reader.quarantine.first.endswith(
        "l is 'x' · expected 2 or 0 or null or <0, as winner=l{2:a,0:tie,null:none,<0:b} says"
    )


@pytest.mark.parametrize(("verdict", "chosen"), [("A", "So."), ("model_b", "No."), ("second", "No."), ("B>A", "No.")])
def test_known_spellings_of_a_verdict_need_no_meaning(verdict: str, chosen: str, tmp_path: Path) -> None:
    rows = [{"q": "Why?", "x": "So.", "y": "No.", "l": verdict}, {"q": "Hm?", "x": "So.", "y": "No.", "l": "tie"}]
    row_reader, (found,) = read(tmp_path / "a.jsonl", rows, "prompt=q,a=x,b=y,winner=l")
    assert found.chosen.text == chosen and row_reader.row_counts.dropped == {"tie": 1}


def test_a_number_without_a_meaning_is_refused(tmp_path: Path) -> None:
    rows = [{"q": "Why?", "x": "So.", "y": "No.", "l": 1}]
    with pytest.raises(DataError, match=r"winner is 1 · .*such as winner=label\{1:a,2:b\}"):
        read(tmp_path / "a.jsonl", rows, "prompt=q,a=x,b=y,winner=l")


def test_answers_may_be_whole_conversations(tmp_path: Path) -> None:
    def talk(answer: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": answer}]

    rows = [{"one": talk("So."), "two": talk("No."), "winner": "second"}]
    _, (found,) = read(tmp_path / "a.jsonl", rows, "a=one,b=two")
    assert found.prompt == ASKED and found.chosen.text == "No."
    hh = [{"one": f"\n\nHuman: Why?\n\nAssistant: {text}", "two": "\n\nHuman: Why?\n\nAssistant: No."} for text in "S"]
    _, (found,) = read(tmp_path / "a.jsonl", [{**hh[0], "winner": "first"}], "a=one,b=two")
    assert found.prompt == ASKED and found.chosen.text == "S"


# --- candidates and single responses ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("columns", "scores"),
    [
        ("responses=answers[].text, scores=answers[].points", (4, None)),
        ("responses=answers[].text, ranks=answers[].points", (-4, None)),
        ("responses=texts, scores=numbers", (1, 2)),
        ("responses=texts[]", (None, None)),
        ("responses=one+two, scores=p1+p2", (7, 8.5)),
    ],
)
def test_candidates_are_described(columns: str, scores: tuple[float | None, ...], tmp_path: Path) -> None:
    answers = [{"text": "So.", "points": 4, "by": "me"}, {"text": "No.", "points": None, "by": "you"}]
    more = {"texts": ["So.", "No."], "numbers": [1, 2], "one": "So.", "two": "No.", "p1": 7, "p2": 8.5}
    row_reader, (found,) = read(
        tmp_path / "a.jsonl", [{"q": "Why?", "answers": answers, **more}], f"prompt=q,{columns}"
    )
    assert isinstance(found, Candidates) and row_reader.yields == "candidates"
    assert found.responses == tuple(map(Response, ("So.", "No."), scores))
    if "answers" in columns:
        assert "answers[].by" in row_reader.row_counts.not_read


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        ("responses=texts, scores=numbers", "2 responses and 1 scores · expected one for each"),
        ("responses=answers", "responses has 1 turns|responses holds|expected messages like"),
        ("responses=answers[].words", "no words in answers\\[\\] · answers\\[\\] has text"),
        ("responses=q", "responses is a str · expected a list, such as responses=answers\\[\\].text"),
        ("responses=q[]", "q is a str · expected a list, for q\\[\\]"),
    ],
)
def test_broken_candidates_say_why(columns: str, problem: str, tmp_path: Path) -> None:
    rows = [{"q": "Why?", "answers": [{"text": "So."}], "texts": ["So.", "No."], "numbers": [1]}]
    with pytest.raises(DataError, match=problem):
        read(tmp_path / "a.jsonl", rows, f"prompt=q,{columns}")


def test_single_responses_are_described(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "Because."}]
    expected = Unpaired(prompt=ASKED, response=YES, label=True, id="file:1", source="file")
    for columns in (
        "prompt=turns[0].content, completion=turns[-1].content, label=ok{yes:true,no:false}",
        "completion=turns, label=ok{YES:true,no:false}",
    ):
        row_reader, (found,) = read(tmp_path / "file.jsonl", [{"turns": messages, "ok": "Yes"}], columns)
        assert found == expected
    assert row_reader.row_counts.not_read == []
    row_reader, _ = read(
        tmp_path / "file.jsonl",
        [{"turns": [*messages, {"role": "user", "content": "?"}], "ok": "no"}],
        "prompt=turns[0].content, completion=turns[1].content, label=ok{yes:true,no:false}",
    )
    assert row_reader.row_counts.not_read == ["turns[0].role", "turns[1].role", "turns[]"]


def test_a_response_without_a_label_is_a_demonstration_or_one_of_several(tmp_path: Path) -> None:
    rows = [{"q": "Why?", "x": text, "s": score} for text, score in (("So.", 2), ("No.", 1))]
    _, found = read(tmp_path / "file.jsonl", rows, "prompt=q, completion=x")
    assert [(one.response.text, one.label) for one in found] == [("So.", True), ("No.", True)]
    row_reader, (one,) = read(tmp_path / "file.jsonl", rows, "prompt=q, completion=x, score=s")
    assert one.responses == (Response("So.", 2), Response("No.", 1))
    assert row_reader.row_counts.notes == {"rows_grouped_by_prompt": 2}


def test_most_votes_decide(tmp_path: Path) -> None:
    rows = [
        {"q": f"Why {n}?", "x": "So.", "y": "No.", "votes": [{"by": v} for v in votes]}
        for n, votes in enumerate([[1, 2, 2], [1, 2], [], [1, None]])
    ]
    row_reader, found = read(tmp_path / "a.jsonl", rows, "prompt=q,a=x,b=y,winner=votes[].by{1:a,2:b,null:none}")
    assert [one.chosen.text for one in found] == ["No.", "So."]
    assert row_reader.row_counts.dropped == {"tie": 1, "no_verdict": 1}
    _, (one,) = read(
        tmp_path / "a.jsonl", [{"q": "Why?", "x": "So.", "y": "No.", "v": ["A", "B", "B"]}], "prompt=q,a=x,b=y,winner=v"
    )
    assert one.chosen.text == "No."


def test_csv_is_described_too(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('q,x,y,l,s\nWhy?,So.,No.,True,3\n"{""text"": ""Hm?""}",So.,No.,False,\n', encoding="utf-8")
    (one, other) = stream(path, ReadOptions(columns="prompt=q,a=x,b=y,winner=l{true:a,false:b},score_a=s"))
    assert one.chosen == Response("So.", 3) and other.chosen.text == "No."
    path.write_text('d,x,y\n"{""q"": ""Hm?""}",So.,No.\n', encoding="utf-8")
    (found,) = stream(path, ReadOptions(columns="prompt=d.q,chosen=x,rejected=y"))
    assert found.prompt[0].content == "Hm?"


# --- what is not described ----------------------------------------------------------------------------------------


def test_what_is_left_out_is_named_or_refused(tmp_path: Path) -> None:
    row = {"data": {"q": "Why?", "lang": "en", "id": 3, "more": {"x": 1}}, "good": "So.", "bad": "No.", "none": None}
    columns = "prompt=data.q, chosen=good, rejected=bad"
    row_reader, _ = read(tmp_path / "a.jsonl", [row], columns)
    assert row_reader.row_counts.not_read == ["data.lang", "data.more"]
    row["data"]["system"] = "Be brief."
    with pytest.raises(DataError, match=r"data.system changes what the row means .* --ignore-columns system"):
        read(tmp_path / "a.jsonl", [row], columns)
    for ignored in ("system", "data.system"):
        row_reader, _ = read(tmp_path / "a.jsonl", [row], columns, ignore_columns=ignored)
        assert row_reader.row_counts.not_read == ["data.lang", "data.more", "data.system"]
    _, (found,) = read(tmp_path / "a.jsonl", [row], columns + ", system=data.system")
    assert found.prompt == (Message("system", "Be brief."), *ASKED)


def test_items_are_counted_from_both_ends() -> None:
    row = {"turns": [{"who": "me", "text": "a"}, {"who": "bot", "text": "b"}]}
    left = left_out(row, tree_of([("turns", 0, "text"), ("turns", -1, "text")]))
    assert left == [("turns[0].who", "me"), ("turns[-1].who", "bot")]
    assert left_out({"turns": row["turns"][:1]}, tree_of([("turns", 0, "text"), ("turns", -1, "who")])) == []
    assert left_out(row, tree_of([("turns", None, "text"), ("turns", 1)])) == [("turns[].who", "me")]


def test_a_limit_is_not_below_itself(tmp_path: Path) -> None:
    rows = [{"q": f"Why {n}?", "x": "So.", "y": "No.", "l": n} for n in (-1, 0, 1)]
    row_reader, found = read(tmp_path / "a.jsonl", rows, "prompt=q,a=x,b=y,winner=l{<0:a,>0:b,0:tie}")
    assert [one.chosen.text for one in found] == ["So.", "No."] and row_reader.row_counts.dropped == {"tie": 1}
    with pytest.raises(DataError, match="l is 0 · expected <0 or >0"):
        read(tmp_path / "a.jsonl", rows, "prompt=q,a=x,b=y,winner=l{<0:a,>0:b}")


# --- descriptions that cannot be read -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "--columns, character 1 · found the end · expected a name, such as prompt"),
        ("prompt", "--columns, character 7 · found the end · expected = behind prompt"),
        ("prompt=", "--columns, character 8 · found the end · expected the name of a column"),
        ("=x", "--columns, character 1 · found '=x' · expected a name, such as prompt"),
        ("prompt=x,", "--columns, character 10 · found the end · expected a name, such as prompt"),
        ("prompt=x,prompt=y", "--columns prompt=… · is given twice · leave one of them out"),
        ("chosne=a", "--columns chosne=… · no such name · did you mean chosen?"),
        (
            "prompt=x y=z",
            "--columns, character 11 · found '=z' · expected a comma or the end; quote a name with signs in it",
        ),
        ("prompt=a..b", "--columns, character 10 · found '.b' · expected a key behind the dot"),
        (
            "prompt=a[x]",
            "--columns, character 9 · found [x] · expected [] for every item, or its place, such as [0] or [-1]",
        ),
        ("prompt=a[1", "--columns, character 11 · found the end · expected ] behind ["),
        (
            "prompt=a[]",
            "--columns, character 9 · found [] in prompt · expected the place of an item, such as [0] or [-1]",
        ),
        ("responses=a[]+b", "--columns, character 11 · found [] beside + · write one of them"),
        ('prompt="a', "--columns, character 8 · found '\"a' · expected another \" behind it"),
        ("prompt=x{1:a}", "--columns, character 9 · found { · only winner and label say what values mean"),
        ("winner=x{1:c}", "--columns, character 10 · found 1:c · expected a or b or tie or none"),
        ("label=x{1:a}", "--columns, character 9 · found 1:a · expected true or false"),
        ("winner=x{1:a,1.0:b}", "--columns, character 14 · found 1.0 again · each value means one thing"),
        ("winner=x{<y:a}", "--columns, character 10 · found <y · expected a number behind <"),
        ("winner=x{1}", "--columns, character 11 · found '}' · expected : and what 1 means (a, b, tie, none)"),
        ("winner=x{1:a", "--columns, character 13 · found the end · expected } behind the values"),
        ("id=x+y", "--columns, character 5 · found + · id has one column"),
    ],
)  # fmt: skip
def test_a_broken_description_is_refused_with_its_place(text: str, problem: str) -> None:
    with pytest.raises(UsageError) as error:
        ReadOptions(columns=text)
    assert str(error.value) == problem


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        (
            "prompt=questions,chosen=x,rejected=y",
            "no column questions · the row has question, data, a.b, x, y, l · did you mean question?",
        ),
        ("prompt=zz,chosen=ww,rejected=y", "no column zz, ww · the row has question, data, a.b, x, y, l"),
        ("prompt=data.txt,chosen=x,rejected=y", "no txt in data · data has text, list · did you mean text?"),
        ("prompt=data.list[2],chosen=x,rejected=y", "no data.list[2] · data.list has 2 items"),
        ("prompt=data[0],chosen=x,rejected=y", "data is a dict · expected a list, for data[0]"),
        ("prompt=x.y,chosen=x,rejected=y", "x is a str · expected an object with y"),
        (
            "prompt=a.b,chosen=x,rejected=y",
            'no column a · the row has question, data, a.b, x, y, l · write a name with a dot in quotes: "a.b"',
        ),
        ("prompt=question,a=x,b=y,winner=l{1:a,2:b}", "l is 3 · expected 1 or 2, as winner=l{1:a,2:b} says"),
        ("prompt=question,a=x", "--columns names no b and no winner · expected a, b, winner · add b=COLUMN"),
        ("prompt=question,a=l,b=y,winner=x{So.:a}", "chosen is a int · expected a text or a list of messages"),
    ],
)  # fmt: skip
def test_a_row_that_does_not_fit_says_why(columns: str, problem: str, tmp_path: Path) -> None:
    row = {"question": "Why?", "data": {"text": "Hm?", "list": ["a", "b"]}, "a.b": "c", "x": "So.", "y": "No.", "l": 3}
    with pytest.raises(DataError) as error:
        read(tmp_path / "a.jsonl", [row], columns)
    assert f"a.jsonl:1 · {problem} · 1 bad row" in str(error.value)


# --- a description as YAML ----------------------------------------------------------------------------------------


def test_a_file_describes_a_layout(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("# ours\nprompt: [i, '\"in.put\"']\na: x\nb: data.y\nwinner: label{1:a, 2:b}\n", encoding="utf-8")
    rows = [{"i": "Why?", "in.put": "Cats.", "x": "So.", "data": {"y": "No."}, "label": 2}]
    row_reader, (found,) = read(tmp_path / "a.jsonl", rows, layout=str(path))
    assert found.prompt[0].content == "Why?\nCats." and found.chosen.text == "No."
    assert row_reader.layout == 'described (prompt=i+"in.put", a=x, b=data.y, winner=label{1:a, 2:b})'


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("promt: x\n", "{path}:1 · promt · no such name · did you mean prompt?"),
        ("prompt: x\nchosen:\n", "{path}:2 · chosen names no column · leave the line out, or name one"),
        ("prompt: a[1\n", "{path}:1 · prompt: a[1, character 4 · found the end · expected ] behind ["),
        (
            "prompt: a, b\n",
            "{path}:1 · prompt: a, b, character 2 · found ', b' · "
            "expected a comma or the end; quote a name with signs in it",
        ),
        ("", "--layout {path} · describes nothing · write one `name: column` a line"),
        ("- a\n", "{path}:1 · is not a mapping · write one `key: value` a line"),
    ],
)  # fmt: skip
def test_a_broken_file_is_refused_with_its_line(text: str, problem: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as error:
        ReadOptions(layout=str(path))
    assert str(error.value) == problem.format(path=path)


def test_a_missing_file_and_two_descriptions_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"--layout .*none.yaml · No such file"):
        ReadOptions(layout=str(tmp_path / "none.yaml"))
    with pytest.raises(UsageError, match=r"--layout a.yaml · describes the layout, and so does --columns"):
        ReadOptions(layout="a.yaml", columns="prompt=x")


def test_the_page_of_the_documentation_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    ran = 0
    for language, block in re.findall(r"```(json|yaml|sh)\n(.*?)```", page, flags=re.DOTALL):
        if language != "sh":
            (tmp_path / {"json": "other.jsonl", "yaml": "mine.yaml"}[language]).write_text(block, encoding="utf-8")
            continue
        for line in block.splitlines():
            assert cli.main([*shlex.split(line)[1:], "--json", "--max-bad-rows", "0"]) == 0, line
            ran += 1
    assert ran == 4


# --- suggestions --------------------------------------------------------------------------------------------------

LONG = "an answer that is long enough"
TALK = [{"role": "user", "content": "Why is it so?"}, {"role": "assistant", "content": LONG}]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        (
            {"question": "Why is it so?", "answer x": LONG, "answer_y": LONG + "!", "label": 1, "lang": "en"},
            "prompt=question, a=answer x, b=answer_y, winner=label{1:a,2:b}",
        ),
        (
            {"data": {"q.text": "Why is it so?"}, "best_one": LONG, "worst_one": LONG + "!"},
            'prompt=data."q.text", chosen=best_one, rejected=worst_one',
        ),
        (
            {
                "user_query": "Why is it so?",
                "answers": [{"body": LONG, "score": 3, "n": 1}, {"body": LONG, "score": 2}],
            },
            "prompt=user_query, responses=answers[].body, scores=answers[].score",
        ),
        (
            {"task": "Why is it so?", "outs": [LONG, LONG + "!"], "rewards": [0.5, 1]},
            "prompt=task, responses=outs, scores=rewards",
        ),
        ({"task": "Why is it so?", "text": LONG, "good": True}, "prompt=task, completion=text, label=good"),
        ({"x": "Why is it so?", "y": LONG, "verdict": "thumbs_up"}, None),
        (
            {"instruction": "Why is it so?", "out_1": LONG, "out_2": LONG + "!", "preference": 1.3},
            "prompt=instruction, a=out_1, b=out_2, winner=preference{<1.5:a,>1.5:b,1.5:tie}",
        ),
        ({"good": TALK, "bad": [*TALK[:1], {**TALK[1], "content": LONG + "!"}]}, "chosen=good, rejected=bad"),
        (
            {"q": "Why is it so?", "left text": LONG, "right text": LONG + "!", "m": "base", "pick": "L"},
            "prompt=q, a=left text, b=right text, winner=pick{L:a,…:b}",
        ),
        (
            {"q": "Why is it so?", "left text": LONG, "right text": LONG + "!", "winner": "model_b"},
            "prompt=q, a=left text, b=right text, winner=winner",
        ),
        (
            {"id": 7, "ask": "Why is it so?", "first": LONG, "other": LONG + "!", "code": "1"},
            "prompt=ask, a=first, b=other, winner=code{1:a,2:b}",
        ),
        ({"turns": TALK, "ok": True}, "completion=turns, label=ok"),
        ({"uid": "f" * 32, "query": "Why is it so?", "text": LONG}, "prompt=query, completion=text"),
    ],
)
def test_the_refusal_of_an_unknown_layout_prints_a_description(
    fields: Fields, expected: str | None, tmp_path: Path
) -> None:
    with pytest.raises(DataError) as error:
        read(tmp_path / "a.jsonl", [fields])
    assert "or describe it, such as --columns " in str(error.value)
    text = shlex.split(str(error.value).partition("or describe it, such as ")[2].partition(" · ")[0])[1]
    if expected is not None:
        assert text == expected
        _, records = read(tmp_path / "a.jsonl", [fields], text)
        assert len(records) == 1


@pytest.mark.parametrize(
    "fields", [{}, {"a": 1}, {"a": None}, {"a": [[]]}, {"a": {"b": [{}]}}, {"": "x y", "b": [1, {}]}]
)
def test_a_suggestion_is_made_for_any_row(fields: Fields) -> None:
    assert suggest(fields).startswith("--columns 'prompt=")


# --- any row, any description -------------------------------------------------------------------------------------

KEYS = ["q", "a b", "x.y", "c,d", 'quo"te', "it's", "ü", "k[0]", "{z}", " s ", "<1", "a:b", "a+b", "=", "\n"]


def nested(chance: random.Random, depth: int) -> Any:
    kinds = [lambda: chance.choice([1, -2.5, None, True, "t" * chance.randint(0, 3)])]
    if depth:
        kinds.append(lambda: {key: nested(chance, depth - 1) for key in chance.sample(KEYS, 2)})
        kinds.append(lambda: [nested(chance, depth - 1) for _ in range(chance.randint(1, 3))])
    return chance.choice(kinds)()


def leaves(value: Any, steps: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    if isinstance(value, dict):
        return [path for key, inner in value.items() for path in leaves(inner, (*steps, key))]
    if isinstance(value, list):
        return [path for place, inner in enumerate(value) for path in leaves(inner, (*steps, place))]
    return [steps]


def from_the_end(row: Any, steps: tuple[Any, ...]) -> tuple[Any, ...]:
    """The same path, with the items of lists counted from the end."""
    found = []
    for step in steps:
        found.append(step - len(row) if isinstance(step, int) else step)
        row = row[step]
    return tuple(found)


@pytest.mark.parametrize("seed", range(60))
def test_every_leaf_is_read_by_its_path_or_named(seed: int) -> None:
    """Random rows: a path that is written and parsed finds its value, and what no path reads is left out by name."""
    chance = random.Random(seed)
    row = {key: nested(chance, 3) for key in chance.sample(KEYS, 4)}
    paths = leaves(row)
    read = chance.sample(paths, min(len(paths), 3))
    read = [from_the_end(row, steps) if chance.random() < 0.5 else steps for steps in read]
    names = ["prompt", "chosen", "rejected"][: len(read)]
    text = ", ".join(f"{name} = {spelled(steps)}" for name, steps in zip(names, read, strict=True))
    description = parse(text)
    assert [source.paths for source in description.sources.values()] == [(steps,) for steps in read]
    found = description.row(row)
    for name, steps in zip(names, read, strict=True):
        value: Any = row
        for step in steps:
            value = value[step]
        assert found[name] == value == value_at(row, steps)
    left = left_out(row, tree_of(read))
    values = sum(len(leaves(value)) for _, value in left)
    assert values + len(read) == len(paths)
    assert left_out(row, tree_of(paths)) == []


def with_words(value: Any, words: Iterator[str]) -> Any:
    """The same value with another word in place of every leaf."""
    if isinstance(value, dict):
        return {key: with_words(inner, words) for key, inner in value.items()}
    return [with_words(inner, words) for inner in value] if isinstance(value, list) else next(words)


@pytest.mark.parametrize("seed", range(40))
def test_no_text_of_a_described_row_is_lost(seed: int, tmp_path: Path) -> None:
    """Every word of a row is in the record, or stands at a place that the row counts name as not read."""
    chance = random.Random(seed)
    row = with_words({key: nested(chance, 3) for key in chance.sample(KEYS, 4)}, (f"w{n}" for n in itertools.count()))
    paths = leaves(row)
    if len(paths) < 4:
        paths = leaves(row := row | {"more": [f"m{n}" for n in range(4)]})
    asked, first, second, label = (spelled(steps) for steps in chance.sample(paths, 4))
    form = chance.choice(["prompt={0}, chosen={1}, rejected={2}", "prompt={0}+{3}, responses={1}+{2}"])
    row_reader, (found,) = read(tmp_path / "a.jsonl", [row], form.format(asked, first, second, label))
    read_texts = [turn.content for turn in found.prompt] + [response.text for response in found.responses]
    read_words = {word for text in read_texts for word in text.split()}
    for steps in paths:
        value: Any = row
        for step in steps:
            value = value[step]
        here = "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in steps).removeprefix(".")
        places = [re.sub(r"\[-?\d+\]", "[]", name) for name in (here, *row_reader.row_counts.not_read)]
        assert value in read_words or places[0].startswith(tuple(places[1:])), (value, places)


@pytest.mark.parametrize("name", [*KEYS, "plain", "two words", "-1", "%"])
def test_a_name_is_written_so_that_it_is_read_back(name: str) -> None:
    assert parse(f"prompt={written(name)}").sources["prompt"].paths == ((name,),)


def test_a_description_survives_writing(tmp_path: Path) -> None:
    """Rows that were read by a description are written in headwater's own form, and read back equal."""
    rows = [{"q": f"Why {n}?", "x": f"So {n}.", "y": "No.", "l": 1 + n % 2} for n in range(6)]
    _, found = read(tmp_path / "a.jsonl", rows, "prompt=q,a=x,b=y,winner=l{1:a,2:b}")
    write(tmp_path / "b.jsonl", found)
    assert list(stream(tmp_path / "b.jsonl")) == found


def test_yaml_and_text_are_one_description(tmp_path: Path) -> None:
    text = "prompt=data.q+x, responses=a[].t, scores=a[].s"
    lines = [part.split("=", 1) for part in text.split(", ")]
    (tmp_path / "d.yaml").write_text("".join(f"{name}: {source}\n" for name, source in lines), encoding="utf-8")
    one, other = parse(text), of_file(tmp_path / "d.yaml")
    assert (one.text, one.sources) == (other.text, other.sources) and isinstance(other, Description)


def test_an_unknown_key_is_never_lost() -> None:
    with pytest.raises(Broken, match="no column b"):
        parse("prompt=b").row({"a": 1})
