"""Data in memory: lists of rows, data frames and data sets in place of a path."""

from __future__ import annotations

import datetime
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pandas as pd
import pyarrow
import pytest

from headwater.data import reading
from headwater.data.corpus import Corpus, generate
from headwater.data.preference import Preference
from headwater.data.reading import ReadOptions, RowReader, memory, stream
from headwater.data.reading.memory import held, is_rows
from headwater.errors import DataError, UsageError
from tests.conftest import ROOT

ROWS = [{"prompt": f"Why {n}?", "chosen": f"So {n}.", "rejected": "No.", "score_chosen": n} for n in range(5)]
CONTAINERS: dict[str, Callable[[list[dict[str, Any]]], Any]] = {
    "list": list,
    "tuple": tuple,
    "pandas": pd.DataFrame,
    "dataset": datasets.Dataset.from_list,
    "shuffled": lambda rows: datasets.Dataset.from_list(rows[::-1]).select(range(len(rows) - 1, -1, -1)),
    "table": pyarrow.Table.from_pylist,
    "numpy": lambda rows: datasets.Dataset.from_list(rows).with_format("numpy"),
}


def read(data: Any, **options: Any) -> tuple[RowReader, list[Any]]:
    with held(data) as place:
        row_reader = stream(place, ReadOptions(**options))
        return row_reader, list(row_reader)


@pytest.mark.parametrize("container", CONTAINERS)
def test_rows_are_the_same_as_in_a_file(container: str, tmp_path: Path) -> None:
    corpus = list(generate(Corpus(pairs=6)))
    reading.write(tmp_path / "pairs.jsonl", corpus)
    rows = [json.loads(line) for line in (tmp_path / "pairs.jsonl").read_text("utf-8").splitlines()]
    row_reader, found = read(CONTAINERS[container](rows))
    assert found == corpus == list(stream(tmp_path / "pairs.jsonl"))
    assert row_reader.row_counts.kept == 6


def test_records_are_rows_too() -> None:
    corpus = list(generate(Corpus(pairs=6)))
    assert read(corpus)[1] == corpus


@pytest.mark.parametrize("container", ["list", "pandas", "dataset"])
def test_rows_are_named_by_their_position(container: str) -> None:
    rows = [*ROWS[:3], {**ROWS[3], "chosen": None}, ROWS[4]]
    kind = {"list": "list", "pandas": "DataFrame", "dataset": "Dataset"}[container]
    with (
        held(CONTAINERS[container](rows)) as place,
        pytest.raises(DataError, match=f"row 3 of {kind} · chosen is null"),
    ):
        list(stream(place))
    row_reader, found = read(CONTAINERS[container](rows), max_bad_rows="1")
    assert [one.id for one in found] == [f"{kind}:{n}" for n in (0, 1, 2, 4)]
    (entry,) = row_reader.quarantine
    assert (entry["file"], entry["line"], json.loads(entry["raw"])["prompt"]) == (kind, 3, "Why 3?")
    assert row_reader.row_counts.quarantined == 1


def test_the_name_says_what_is_held_and_ends_with_the_block() -> None:
    with held(ROWS) as place:
        assert str(place).startswith("in memory: list, 5 rows, ") and memory.digest_of(place)
        assert memory.name_of(place) == "in-memory-list-" + str(place)[-12:]
        assert stream(place).files == (place,)
        with held(ROWS) as same, held(ROWS[:1]) as other:
            assert same == place and str(other).startswith("in memory: list, 1 row, ")
        assert memory.find(place)
    assert memory.digest_of(place) is None
    with pytest.raises(UsageError, match="was data in the memory of a Python program · pass the same data again"):
        stream(place)
    with held([*ROWS[:4], {**ROWS[4], "score_chosen": 5}]) as changed:
        assert changed != place


def test_data_that_is_changed_meanwhile_is_read_as_it_was() -> None:
    rows = [dict(row) for row in ROWS]
    frame = pd.DataFrame(ROWS)
    with held(rows) as of_list, held(frame) as of_frame:
        rows.clear()
        frame.loc[0, "prompt"] = "Who?"
        assert list(map(str, (len(list(stream(of_list))), next(stream(of_frame)).prompt[0].content))) == ["5", "Why 0?"]


def test_splits_are_chosen() -> None:
    for data in (
        datasets.DatasetDict(train=datasets.Dataset.from_list(ROWS[:2]), test=datasets.Dataset.from_list(ROWS[2:])),
        {"train": ROWS[:2], "test": pd.DataFrame(ROWS[2:])},
    ):
        row_reader, found = read(data)
        assert len(found) == 2 and row_reader.row_counts.split == "train (not test)"
        row_reader, found = read(data, split="test")
        assert [one.id for one in found] == ["test:0", "test:1", "test:2"]
        with pytest.raises(UsageError, match="has no split dev · choose one with --split: train, test"):
            read(data, split="dev")
    broken = {"train": ROWS, "test": [*ROWS, {**ROWS[0], "chosen": 3}]}
    with pytest.raises(DataError, match=r"row 5 of test \(dict\) · chosen is a int"):
        read(broken, split="test")
    with pytest.raises(UsageError, match=r"has several splits · choose one with --split: a, b"):
        read({"a": ROWS, "b": ROWS})


def test_options_of_files_and_of_the_hub_are_refused() -> None:
    for options in ({"split": "train"}, {"revision": "x"}, {"streaming": True}, {"dataset_config": "x"}):
        with pytest.raises(UsageError, match="leave"):
            read(ROWS, **options)


def test_missing_cells_of_a_frame_are_null() -> None:
    frame = pd.DataFrame(ROWS[:4])
    frame["score_chosen"] = [1.5, float("nan"), 3, 4]
    frame["score_rejected"] = pd.array([1, None, 2, 3], dtype="Int64")
    frame["system"] = ["Be brief.", None, pd.NA, float("nan")]
    frame["when"] = [pd.Timestamp("2026-01-02"), pd.NaT, pd.NaT, pd.NaT]
    frame["source"] = pd.Categorical(["a", "b", "a", None])
    row_reader, found = read(frame)
    assert [one.chosen.score for one in found] == [1.5, None, 3, 4]
    assert [one.rejected.score for one in found] == [1, None, 2, 3]
    assert [len(one.prompt) for one in found] == [2, 1, 1, 1]
    assert [one.source for one in found] == ["a", "b", "a", "DataFrame"]
    assert row_reader.row_counts.not_read == ["when"]


def test_nan_of_other_data_is_no_null() -> None:
    rows = [{**ROWS[0], "score_chosen": float("nan")}]
    for container in ("list", "dataset"):
        with pytest.raises(DataError, match="score_chosen is nan · expected a finite number, or null"):
            read(CONTAINERS[container](rows))


def test_cells_of_numpy_are_lists_and_numbers() -> None:
    answers = np.array([{"text": "So.", "points": np.float32(2)}, {"text": "No.", "points": np.int64(1)}], dtype=object)
    frame = pd.DataFrame({"q": ["Why?"], "answers": [answers], "ok": [np.bool_(True)]})
    _, (found,) = read(frame, columns="prompt=q, responses=answers[].text, scores=answers[].points")
    assert [one.score for one in found.responses] == [2, 1]
    _, (found,) = read(frame, columns="prompt=q, completion=answers[0].text, label=ok")
    assert found.label is True
    (row,) = memory._of_pandas(pd.DataFrame({"a": [np.array([[1.0, np.nan]])], 3: [datetime.date(2026, 1, 2)]}))
    assert row == {"a": [[1.0, None]], "3": "2026-01-02"}


def test_a_frame_keeps_a_named_index_and_positions() -> None:
    frame = pd.DataFrame(ROWS).set_index("prompt")
    assert len(read(frame)[1]) == 5
    frame = pd.DataFrame([*ROWS, {**ROWS[0], "chosen": None}]).iloc[::-1]
    with pytest.raises(DataError, match="row 0 of DataFrame · chosen is null"):
        read(frame)
    twice = pd.DataFrame([["a", "b"]], columns=["prompt", "prompt"])
    with pytest.raises(UsageError, match="a DataFrame with the column prompt twice"):
        read(twice)


def test_what_is_no_row_is_a_bad_row() -> None:
    row_reader, found = read([*ROWS, 3, None, "text", object()], max_bad_rows="4")
    assert len(found) == 5 and row_reader.quarantine.codes == {"NOT_OBJECT": 4}
    deep: list[Any] = []
    deep.append(deep)
    row_reader, _ = read([{**ROWS[0], "deep": deep}, *ROWS[1:]], max_bad_rows="1")
    assert row_reader.quarantine.codes == {"MALFORMED": 1}
    with held([]) as place, pytest.raises(DataError, match=r"in memory: list, 0 rows, \w+ · no usable rows among 0"):
        reading.load(place)


@pytest.mark.parametrize("data", [{"prompt": "Why?"}, {}, {"train": {"test": ROWS}}])
def test_a_dict_without_splits_is_refused(data: Any) -> None:
    with pytest.raises(UsageError, match="expected a list of rows, or splits by name"), held(data):
        pass


@pytest.mark.parametrize("data", [3, (row for row in ROWS), object()])
def test_other_objects_are_refused(data: Any) -> None:
    with (
        pytest.raises(UsageError, match="is no data · expected a path, a list of rows, a data frame or a data set"),
        held(data),
    ):
        pass


def test_a_stream_is_read_as_far_as_the_limit() -> None:
    def rows() -> Any:
        yield from [*ROWS, *ROWS]
        raise AssertionError("read too far")

    with held(datasets.IterableDataset.from_generator(rows), limit=5) as place:
        assert str(place).startswith("in memory: IterableDataset, 5 rows")
        assert len(list(stream(place))) == 5


def test_paths_are_told_from_rows() -> None:
    assert not any(map(is_rows, ("a.jsonl", Path("a"), ["a", Path("b")], ["a", ROWS], [pd.DataFrame(ROWS)], 3, None)))
    assert is_rows(list(generate(Corpus(pairs=2))))
    assert all(map(is_rows, (ROWS, [], (ROWS[0],), pd.DataFrame(ROWS), {"train": ROWS}, ["a", ROWS[0]])))


class Lazy:
    """Stands for a `polars.LazyFrame`, which is not installed here."""

    def __init__(self) -> None:
        self.columns = list(ROWS[0])

    def to_arrow(self) -> pyarrow.Table:
        return pyarrow.Table.from_pylist(ROWS)


def test_a_frame_of_polars_is_read_as_its_table() -> None:
    """With a stand-in that has the two methods that are used; the real library is a soft dependency."""
    found = read(Lazy())[1]
    assert len(found) == 5 and isinstance(found[0], Preference)


def test_the_page_of_the_documentation_runs() -> None:
    page = (ROOT / "docs" / "data.md").read_text(encoding="utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", page, flags=re.DOTALL)
    exec(compile(block, "docs/data.md", "exec"), {})
