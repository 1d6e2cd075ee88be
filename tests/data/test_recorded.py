"""What runs recorded is found by the texts of rows; an id serves only where it names one row alone."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from headwater.data import reading
from headwater.data.preference import Candidates, Message, Preference, Response, Unpaired
from headwater.data.recorded import Recorded, RowName
from headwater.errors import DataError


def pair(name: str, chosen: str = "So.", prompt: str = "Why?", **more: str) -> Preference:
    answers = Response(chosen), Response("No.")
    return Preference(prompt=(Message("user", prompt),), chosen=answers[0], rejected=answers[1], id=name, **more)


def recorded(*rows: Preference, keys: bool = True) -> Recorded[int]:
    names = [RowName.of(row) for row in rows]
    return Recorded("run", [(one if keys else one._replace(key=None), row) for row, one in enumerate(names)])


def test_a_key_stands_for_the_texts_alone() -> None:
    one = pair("a")
    assert one.key == pair("b").key == replace(one, source="x").key
    assert one.key == replace(one, chosen=replace(one.chosen, score=1.0)).key
    others = [
        pair("a", chosen="So"),
        pair("a", prompt="Why? "),
        pair("a", condition="Be brief."),
        one.answered([one.rejected, one.chosen]),
        Candidates(prompt=one.prompt, responses=one.responses, id="a"),
        Unpaired(prompt=one.prompt, response=one.chosen, label=True, id="a"),
        Unpaired(prompt=one.prompt, response=one.chosen, label=False, id="a"),
    ]
    keys = {replace(other, uncut_key="").key for other in others}
    assert len(keys) == len(others) and one.key not in keys


def test_a_cut_keeps_the_key() -> None:
    whole = pair("a", chosen="So it is.")
    cut = whole.answered([replace(whole.chosen, text="So", complete=False), whole.rejected])
    assert cut.key == whole.key == cut.answered([replace(cut.chosen, text="S"), cut.rejected]).key
    assert cut == replace(cut, uncut_key="")  # what is written and read back is equal


def test_rows_of_one_id_are_told_apart() -> None:
    first, second = pair("p"), pair("p", chosen="Because.")
    run = recorded(first, second)
    assert [run.of(RowName.of(row)) for row in (second, first)] == [1, 0]
    assert run.of(RowName.of(pair("p", chosen="Never."))) is None  # the id alone says nothing
    assert recorded(second).of(RowName.of(first)) is None


def test_an_id_serves_where_texts_may_differ_and_it_is_the_only_one() -> None:
    whole = pair("a", chosen="So it is.")
    read_again = pair("a", chosen="So")
    read_again = replace(read_again, chosen=replace(read_again.chosen, complete=False))
    assert recorded(whole).of(RowName.of(read_again)) == 0  # cut in a file of its own
    assert recorded(read_again).of(RowName.of(whole)) == 0
    assert recorded(replace(whole, condition="Be brief.")).of(RowName.of(whole)) == 0
    assert recorded(whole).of(RowName.of(replace(read_again, prompt=(Message("user", "How?"),)))) is None
    with pytest.raises(DataError, match="several rows in that run have the id a"):
        recorded(whole, pair("a")).of(RowName.of(read_again))
    run = recorded(whole)
    assert run.of(RowName.of(whole)) == 0
    with pytest.raises(DataError, match="several rows in this data have the id a"):
        run.of(RowName.of(read_again))


def test_runs_that_recorded_no_keys_serve_where_ids_are_unique() -> None:
    first, second = pair("1"), pair("2")
    run = recorded(first, second, keys=False)
    assert [run.of(RowName.of(row)) for row in (second, first)] == [1, 0]
    with pytest.raises(DataError, match="several rows in that run have the id p"):
        recorded(pair("p"), pair("p", chosen="Because."), keys=False).of(RowName.of(pair("p")))


def test_ids_of_files_with_one_name_hold_their_folder(tmp_path: Path) -> None:
    places = ["a/data.jsonl", "b/data.jsonl", "b/data.csv", "c.jsonl"]
    for number, place in enumerate(places):
        path = tmp_path / place
        path.parent.mkdir(exist_ok=True)
        row = {"prompt": f"Why {number}?", "chosen": "So.", "rejected": "No."}
        text = "\n".join(",".join(cells) for cells in (row.keys(), row.values()))
        path.write_text(json.dumps(row) if path.suffix == ".jsonl" else text, encoding="utf-8")
    for asked in (tmp_path, f"{tmp_path}/**/*.*"):
        ids = [row.id for row in reading.load(asked).preferences]
        assert sorted(ids) == ["a/data:1", "b/data.csv:1", "b/data.jsonl:1", "c:1"], asked
    assert [row.id for row in reading.load(tmp_path / "a" / "data.jsonl").preferences] == ["data:1"]


def test_ids_of_the_data_are_kept_as_they_are(tmp_path: Path) -> None:
    given = [0, 0, "0", "data:1", "", None, 7]
    rows = [{"id": name, "prompt": f"Why {n}?", "chosen": "So.", "rejected": "No."} for n, name in enumerate(given)]
    path = tmp_path / "data.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    ids = [row.id for row in reading.load(path).preferences]
    assert ids == ["0", "0", "0", "data:1", "data:5", "data:6", "7"]
    reading.write(tmp_path / "again.jsonl", reading.load(path).preferences)
    assert [row.id for row in reading.load(tmp_path / "again.jsonl").preferences] == ids
