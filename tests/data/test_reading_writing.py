"""Canonical rows of every kind read back equal; shards; and the form for other libraries."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.data.preference import Candidates, Message, Preference, Response, Unpaired
from headwater.data.reading import export, load, stream, write
from headwater.data.writing import ROW_GROUP, SUFFIXES
from headwater.errors import ResourceError, UsageError

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
ANSWERS = st.tuples(st.text("ab\u202eé🦉", min_size=1, max_size=3), TEXTS).map("".join)
SCORES = st.none() | st.floats(allow_nan=False, allow_infinity=False)
NAMES = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
PROMPTS = st.tuples(
    st.builds(Message, st.just("system"), TEXTS), st.builds(Message, st.just("user"), TEXTS)
) | st.tuples(st.builds(Message, st.just("user"), TEXTS))
RESPONSES = st.builds(Response, ANSWERS, SCORES, st.booleans())
ANY_RESPONSE = RESPONSES | st.builds(Response, st.just(""), SCORES, st.booleans())
UNPAIRED = st.builds(Unpaired, prompt=PROMPTS, response=RESPONSES, label=st.booleans(), id=NAMES, source=NAMES)
CANDIDATES = st.builds(
    Candidates,
    prompt=PROMPTS,
    responses=st.tuples(RESPONSES, RESPONSES, st.lists(ANY_RESPONSE, max_size=2)).map(lambda of: (*of[2], *of[:2])),
    id=NAMES,
    source=NAMES,
)


def texts(record: Any) -> Any:
    if isinstance(record, Unpaired):
        return record.prompt, record.response.text
    return record.prompt, tuple(response.text for response in record.responses)


@pytest.mark.parametrize("suffix", SUFFIXES)
@settings(max_examples=40, deadline=None)
@given(
    records=st.lists(UNPAIRED, min_size=1, max_size=4, unique_by=texts)
    | st.lists(CANDIDATES, min_size=1, max_size=4, unique_by=texts)
)
def test_other_kinds_of_rows_read_back_equal_and_again_give_the_same_bytes(suffix: str, records: list[Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, f"a{suffix}")
        write(path, records)
        first = path.read_bytes()
        again = list(stream(path))
        assert again == records
        write(path, again)
        assert path.read_bytes() == first


def pairs(count: int) -> list[Preference]:
    return [
        Preference(
            prompt=(Message("user", f"Why {n}?"),),
            chosen=Response("So.", 1.5 if n > 2 * ROW_GROUP else None, complete=n % 2 == 0),
            rejected=Response(f"No {n}."),
            id=f"x:{n}",
            source="x",
        )
        for n in range(count)
    ]


def test_parquet_has_row_groups_whose_types_agree(tmp_path: Path) -> None:
    import pyarrow.parquet

    records = pairs(2 * ROW_GROUP + 10)  # the first groups hold no score
    write(tmp_path / "a.parquet", iter(records))
    assert pyarrow.parquet.ParquetFile(tmp_path / "a.parquet").num_row_groups == 3
    assert load(tmp_path / "a.parquet").preferences == records


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_shards_hold_every_row_once_and_are_named_by_their_number(suffix: str, tmp_path: Path) -> None:
    records = pairs(10)
    paths = write(tmp_path / f"a.b{suffix}", iter(records), shards=3)
    assert [path.name for path in paths] == [f"a.b-0000{n}-of-00003{suffix}" for n in (1, 2, 3)]
    assert sorted(tmp_path.iterdir()) == paths
    assert [len(load(path).preferences) for path in paths] == [4, 3, 3]
    assert sorted(load(tmp_path).preferences, key=lambda p: int(p.id[2:])) == records


def test_shards_appear_together_or_not_at_all(tmp_path: Path) -> None:
    def full() -> Iterator[Preference]:
        yield from pairs(5)
        raise OSError(28, "No space left on device")

    for suffix in SUFFIXES:
        with pytest.raises(ResourceError, match="No space"):
            write(tmp_path / f"a{suffix}", full(), shards=2)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("shards", [0, -1, 201])
def test_another_number_of_shards_is_refused(shards: int, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=f"--shards {shards}"):
        write(tmp_path / "a.jsonl", pairs(1), shards=shards)


def test_more_shards_than_rows_leave_some_empty(tmp_path: Path) -> None:
    for suffix in SUFFIXES:
        paths = write(tmp_path / f"a{suffix}", pairs(1), shards=2)
        assert len(load(paths[0]).preferences) == 1
        assert list(stream(paths[1])) == []


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_an_export_is_read_by_datasets_and_by_us(suffix: str, tmp_path: Path) -> None:
    (path,) = export(tmp_path / f"a{suffix}", pairs(3))
    loader = "json" if suffix == ".jsonl" else "parquet"
    found = datasets.load_dataset(loader, data_files=str(path), split="train", cache_dir=str(tmp_path / "cache"))
    assert found.column_names == ["prompt", "chosen", "rejected"]
    assert found[2] == {
        "prompt": [{"role": "user", "content": "Why 2?"}],
        "chosen": [{"role": "assistant", "content": "So."}],
        "rejected": [{"role": "assistant", "content": "No 2."}],
    }
    assert [p.rejected.text for p in load(path).preferences] == ["No 0.", "No 1.", "No 2."]


def test_a_score_of_more_than_64_bits_is_written(tmp_path: Path) -> None:
    record = Candidates(
        prompt=(Message("user", "a"),), responses=(Response("b", 10**30), Response("c")), id="1", source="s"
    )
    write(tmp_path / "a.jsonl", [record])
    assert json.loads((tmp_path / "a.jsonl").read_text("utf-8"))["completions"][0]["overall_score"] == 10**30
