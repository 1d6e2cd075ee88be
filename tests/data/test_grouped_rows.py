"""Rows that belong together: rated responses to one prompt, and messages of one tree."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headwater.data.layouts import NoPreference, draft_to_record
from headwater.data.layouts.trees import DEEPEST, QUESTIONS_OF_TREES, message_row
from headwater.data.preference import Candidates, Message, Response
from headwater.data.reading import ReadOptions, RowReader, load, stream
from headwater.errors import DataError

SKIP_BAD = ReadOptions(max_bad_rows="100%")


def saved(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def read(path: Path, rows: list[dict[str, Any]], options: ReadOptions = SKIP_BAD) -> tuple[RowReader, list[Candidates]]:
    row_reader = stream(saved(path, rows), options)
    records = list(row_reader)
    counts = row_reader.row_counts
    assert counts.rows_in == counts.kept + counts.quarantined + counts.dropped.total()
    assert all(isinstance(record, Candidates) for record in records)
    return row_reader, records  # type: ignore[return-value]


def rated(prompt: str, response: str, helpfulness: Any, **more: Any) -> dict[str, Any]:
    ratings = {"helpfulness": helpfulness, "correctness": 3, "coherence": 4, "complexity": 1, "verbosity": 1}
    return {"prompt": prompt, "response": response} | ratings | more


def test_ratings_of_one_prompt_are_one_record_wherever_its_rows_stand(tmp_path: Path) -> None:
    rows = [rated("Why?", "So.", 3), rated("Who?", "You.", 1), rated("Why?", "No.", 0), rated("Who?", "Me.", "4")]
    rows += [rated("Who?", "They.", 2), rated("When?", "Now.", 4), rated("Why?", "Hm.", None)]
    row_reader, records = read(tmp_path / "a.jsonl", rows)
    assert records == [
        Candidates(
            prompt=(Message("user", "Why?"),),
            responses=(Response("So.", 3.0), Response("No.", 0.0), Response("Hm.")),
            id="a:1",
            source="a",
        ),
        Candidates(
            prompt=(Message("user", "Who?"),),
            responses=(Response("You.", 1.0), Response("They.", 2.0)),
            id="a:2",
            source="a",
        ),
    ]
    counts = row_reader.row_counts
    assert (counts.rows_in, counts.kept, counts.quarantined) == (4, 2, 1)
    assert counts.dropped == {"fewer_than_two_responses": 1} and counts.notes == {"rows_grouped_by_prompt": 6}
    assert [(entry["line"], entry["verdict"]) for entry in row_reader.quarantine] == [
        (4, "quarantined"),
        (6, "dropped"),
    ]
    assert counts.not_read == ["coherence", "complexity", "correctness", "verbosity"]


def test_bad_rows_are_a_share_of_the_rows_of_the_data(tmp_path: Path) -> None:
    rows = [rated("Why?", f"{n}", n % 5) for n in range(9)] + [rated("Why?", "So.", "4")]
    read(tmp_path / "a.jsonl", rows, ReadOptions(max_bad_rows="10%"))
    with pytest.raises(DataError, match=r"a.jsonl:10 · helpfulness is a str"):
        read(tmp_path / "a.jsonl", rows)[0].no_usable_rows()
        read(tmp_path / "a.jsonl", rows, ReadOptions(max_bad_rows="9%"))


def test_a_condition_parts_the_rows_of_a_prompt(tmp_path: Path) -> None:
    rows = [rated("Why?", f"{aspect} {n}", n, aspect=aspect) for n in range(2) for aspect in ("Be kind.", "Be brief.")]
    _, records = read(tmp_path / "a.jsonl", rows, ReadOptions(condition_column="aspect"))
    assert [(record.condition, record.responses[1].text) for record in records] == [
        ("Be kind.", "Be kind. 1"),
        ("Be brief.", "Be brief. 1"),
    ]


def test_groups_that_say_the_same_are_duplicates_and_pairs_are_asked_for(tmp_path: Path) -> None:
    rows = [rated("Why?", f"{n}", n, aspect=aspect) for aspect in "ab" for n in range(2)]
    assert len(read(tmp_path / "a.jsonl", rows, ReadOptions(condition_column="aspect"))[1]) == 2
    with pytest.raises(DataError, match="holds several responses a row: helpsteer-ratings"):
        load(tmp_path / "a.jsonl")


def said(name: str, role: str, rank: int | None = None, *replies: dict[str, Any]) -> dict[str, Any]:
    return {"message_id": name, "text": f"by {name}", "role": role, "rank": rank, "replies": list(replies)}


TREE = said(
    "q",
    "prompter",
    None,
    said("a", "assistant", 1),
    said(
        "b",
        "assistant",
        0,
        said("q2", "prompter", None, said("c", "assistant", 0), said("d", "assistant", 1)),
        said("q3", "prompter", None, said("e", "assistant")),
    ),
)


def flat(item: dict[str, Any], parent: str | None = None) -> list[dict[str, Any]]:
    row = {**item, "parent_id": parent, "message_tree_id": "t"}
    return [row | {"replies": None}, *(each for reply in item["replies"] for each in flat(reply, item["message_id"]))]


def test_every_question_of_a_tree_is_a_record_with_the_thread_before_it(tmp_path: Path) -> None:
    row_reader, records = read(tmp_path / "a.jsonl", [{"message_tree_id": "t", "tree_state": "ready", "prompt": TREE}])
    first, second = records
    assert first.prompt == (Message("user", "by q"),)
    assert first.responses == (Response("by a", -1.0), Response("by b", 0.0))
    assert second.prompt == (Message("user", "by q"), Message("assistant", "by b"), Message("user", "by q2"))
    assert second.responses == (Response("by c", 0.0), Response("by d", -1.0))
    assert [record.id for record in records] == ["a:1#1", "a:1#2"]
    counts = row_reader.row_counts
    assert counts.dropped == {"fewer_than_two_responses": 1} and counts.notes == {"rows_read_as_trees": 1}
    assert counts.not_read == ["tree_state"]


def test_messages_in_rows_of_their_own_are_the_same_tree(tmp_path: Path) -> None:
    whole = read(tmp_path / "a.jsonl", [{"message_tree_id": "t", "prompt": TREE}])[1]
    rows = flat(TREE)
    row_reader, records = read(tmp_path / "b.jsonl", [*rows, {**rows[0], "role": "user"}])
    assert [(record.prompt, record.responses) for record in records] == [
        (record.prompt, record.responses) for record in whole
    ]
    assert row_reader.quarantine.codes == {"ROLE": 1}
    assert row_reader.row_counts.notes == {"rows_read_as_trees": len(rows)}


def test_deleted_messages_of_trees_are_left_out_and_counted(tmp_path: Path) -> None:
    rows = [{**row, "deleted": row["message_id"] in ("q2", "e")} for row in flat(TREE)]
    row_reader, records = read(tmp_path / "a.jsonl", rows)
    (first,) = records
    assert first.responses == (Response("by a", -1.0), Response("by b", 0.0))
    counts = row_reader.row_counts
    assert counts.rows_in == 3 and counts.dropped == {"deleted": 1, "fewer_than_two_responses": 1}
    assert counts.notes == {"rows_read_as_trees": len(rows), "deleted_replies": 1} and not counts.not_read
    # A question that answers a deleted reply is dropped too, and a deleted reply is no candidate.
    rows = [{**row, "deleted": row["message_id"] == "b"} for row in flat(TREE)]
    row_reader, records = read(tmp_path / "b.jsonl", rows)
    assert not records and row_reader.row_counts.dropped == {"deleted": 2, "fewer_than_two_responses": 1}


def test_a_flag_that_says_neither_is_a_bad_row(tmp_path: Path) -> None:
    row_reader, _ = read(tmp_path / "a.jsonl", [{"message_tree_id": "t", "prompt": {**TREE, "deleted": "yes"}}])
    assert row_reader.quarantine.codes == {"MALFORMED": 1}


def test_replies_without_their_question_and_circles_are_dropped() -> None:
    for parent in ("missing", "x"):
        row = {"message_id": "x", "parent_id": parent, "message_tree_id": "t", "role": "assistant", "text": "Hm."}
        (draft,) = QUESTIONS_OF_TREES.join([message_row(row).content])
        with pytest.raises(NoPreference, match="fewer_than_two_responses"):
            draft_to_record(draft, {}, "a:1")


def test_a_tree_that_is_too_deep_is_bad(tmp_path: Path) -> None:
    deep = said("q", "prompter")
    for n in range(DEEPEST):
        deep = said(f"{n}", ("assistant", "prompter")[n % 2], None, deep)
    row_reader, records = read(tmp_path / "a.jsonl", [{"message_tree_id": "t", "prompt": deep}])
    assert not records and row_reader.quarantine.codes == {"MALFORMED": 1}
