"""A file, a directory, a pattern, a run, a folder saved by `datasets`, a name on the hub: the same rows."""

from __future__ import annotations

import gzip
import io
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest
from rich.console import Console

from headwater import console
from headwater.data.reading import Door, load, stream
from headwater.data.reading.formats import read_blocks
from headwater.errors import DataError, NetworkError, UsageError

datasets = pytest.importorskip("datasets")

ROWS = [{"prompt": f"Why {n}?", "chosen": f"Because {n}.", "rejected": "Nø."} for n in range(8)]


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def asked(place: Path | str, door: Door = Door()) -> list[str]:  # noqa: B008 - frozen
    return [preference.prompt[0].content for preference in load(place, door).preferences]


def directory(home: Path) -> Path:
    jsonl(home / "d" / "b.jsonl.gz", ROWS[3:6])
    jsonl(home / "d" / "a.jsonl", ROWS[:3])
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS[6:]), home / "d" / "c.parquet")
    (home / "d" / "README.md").write_text("no data")
    (home / "d" / "dataset_infos.json").write_text("{}")
    (home / "d" / ".hidden.jsonl").write_text("x")
    return home / "d"


def saved_to_disk(home: Path) -> Path:
    datasets.Dataset.from_list(ROWS).save_to_disk(home / "s", num_shards=3)
    return home / "s"


def saved_dict(home: Path) -> Path:
    datasets.DatasetDict({"train": datasets.Dataset.from_list(ROWS)}).save_to_disk(home / "s")
    return home / "s"


PLACES: dict[str, Callable[[Path], Path | str]] = {
    "directory": directory,
    "pattern": lambda home: str(directory(home) / "*.*[zlt]"),
    "pattern below": lambda home: str(directory(home).parent / "**" / "[abc].*"),
    "run": lambda home: jsonl(home / "run" / "preferences.jsonl", ROWS).parent,
    "saved by datasets": saved_to_disk,
    "saved by datasets, one split": saved_dict,
}


@pytest.mark.parametrize("kind", PLACES)
def test_every_place_gives_the_same_rows(kind: str, tmp_path: Path) -> None:
    place = PLACES[kind](tmp_path)
    loaded = load(place)
    assert [preference.prompt[0].content for preference in loaded.preferences] == [row["prompt"] for row in ROWS]
    assert len({preference.id for preference in loaded.preferences}) == 8
    assert loaded.files
    assert all(file.is_file() for file in loaded.files)


def test_rows_are_named_by_file(tmp_path: Path) -> None:
    ids = [preference.id for preference in load(directory(tmp_path)).preferences]
    assert ids == ["a:1", "a:2", "a:3", "b:1", "b:2", "b:3", "c:1", "c:2"]


def test_a_bad_row_is_named_in_its_own_file(tmp_path: Path) -> None:
    path = directory(tmp_path)
    jsonl(path / "b.jsonl.gz", [*ROWS[3:5], {"text": 1}])
    with pytest.raises(DataError) as error:
        load(path)
    assert str(error.value).startswith(f"{path / 'b.jsonl.gz'}:3 · no prompt, chosen, rejected · the first row has")


def test_the_parts_of_one_place_are_of_one_layout(tmp_path: Path) -> None:
    jsonl(tmp_path / "a.jsonl", ROWS)
    jsonl(tmp_path / "b.jsonl", [{"question": "a", "response_1": "b", "response_2": "c", "overall_response": 1}])
    with pytest.raises(DataError, match=r"b\.jsonl:1 · no prompt, chosen, rejected"):
        load(tmp_path)


@pytest.mark.parametrize("save", ["dict", "files"])
def test_splits_are_chosen_by_name(save: str, tmp_path: Path) -> None:
    if save == "dict":
        parts = {"train": datasets.Dataset.from_list(ROWS[:5]), "test": datasets.Dataset.from_list(ROWS[5:])}
        datasets.DatasetDict(parts).save_to_disk(tmp_path)
        with pytest.raises(UsageError, match=r"has several splits · choose one with --split: train, test"):
            load(tmp_path)
        with pytest.raises(UsageError, match=r"has no split dev · choose one with --split: train, test"):
            load(tmp_path, Door(split="dev"))
    else:
        jsonl(tmp_path / "data" / "train-00000-of-00001.jsonl", ROWS[:5])
        jsonl(tmp_path / "data" / "test-00000-of-00001.jsonl", ROWS[5:])
        with pytest.raises(UsageError, match=r"without preferences\.jsonl or data files of the split dev"):
            load(tmp_path, Door(split="dev"))
    assert asked(tmp_path, Door(split="test")) == [row["prompt"] for row in ROWS[5:]]


def test_a_folder_that_was_not_copied_whole_is_refused(tmp_path: Path) -> None:
    path = saved_to_disk(tmp_path)
    next(path.glob("data-00001*")).unlink()
    with pytest.raises(DataError, match=r"data-00001-of-00003\.arrow · is not there, but state\.json names it"):
        load(path)


@pytest.mark.parametrize("name", ["gone-*.jsonl", "gone.jsonl", "a/b/c", "gone"])
def test_what_is_not_there_is_a_usage_error(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=r"no (such )?file") as error:
        load(name)
    assert error.value.exit_code == 2


# --- CSV ----------------------------------------------------------------------------------------------------------


def test_cells_that_are_lists_or_numbers_are_decoded_and_texts_are_not(tmp_path: Path) -> None:
    messages = json.dumps([{"role": "user", "content": 'a "b",\nc'}]).replace('"', '""')
    path = tmp_path / "a.csv"
    path.write_text(
        f'prompt,chosen,rejected,score_chosen,score_rejected\n"{messages}",[sic] 1,42,2.5,\n', encoding="utf-8-sig"
    )
    (preference,) = load(path).preferences
    assert preference.prompt[0].content == 'a "b",\nc'
    assert (preference.chosen.text, preference.rejected.text) == ("[sic] 1", "42")
    assert (preference.chosen.score, preference.rejected.score) == (2.5, None)


def test_bad_rows_of_csv_are_named_by_their_first_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'prompt,chosen,rejected\n"Why\n0?",a,b\nWhy,a\nWhy \xff?,a,b\nWhy 1?,a,b\nWhy 2?,"a,b\n')
    intake = stream(path, Door(max_bad_rows="100%"))
    assert [record.prompt[0].content for record in intake] == ["Why\n0?", "Why 1?"]
    assert [(entry["line"], entry["code"]) for entry in intake.quarantine] == [
        (4, "BROKEN_CSV"),
        (5, "UNICODE"),
        (7, "TORN"),
    ]


def test_a_column_that_stands_twice_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("prompt,chosen,chosen\na,b,c\n")
    with pytest.raises(DataError, match=r"a\.csv:1 · a column stands twice"):
        load(tmp_path / "a.csv")


# --- the hub ------------------------------------------------------------------------------------------------------


class Hub:
    """Stands in for `datasets.load_dataset`, and remembers what it was asked."""

    def __init__(self, answer: Any) -> None:
        self.answer, self.asked = answer, {}

    def __call__(self, path: str, **options: Any) -> Any:
        self.asked = {"path": path, **options}
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], Hub]:
    def answering(answer: Any) -> Hub:
        stand_in = Hub(answer)
        monkeypatch.setattr(datasets, "load_dataset", stand_in)
        return stand_in

    return answering


@pytest.mark.parametrize("streaming", [False, True])
def test_a_name_on_the_hub_is_read_with_split_and_revision(streaming: bool, hub: Callable[[Any], Hub]) -> None:
    rows = datasets.Dataset.from_list(ROWS)
    stand_in = hub(rows.to_iterable_dataset() if streaming else rows)
    loaded = load(Path("someone/pairs"), Door(split="train", revision="abc", streaming=streaming))
    asked_for = {"path": "someone/pairs", "name": None, "split": "train", "revision": "abc", "streaming": streaming}
    assert stand_in.asked == asked_for
    assert [preference.prompt[0].content for preference in loaded.preferences] == [row["prompt"] for row in ROWS]
    assert loaded.preferences[2].id == "someone/pairs/train:3"
    assert loaded.files == ()


def test_the_only_split_of_a_name_is_taken_and_of_several_none(hub: Callable[[Any], Hub]) -> None:
    rows = datasets.Dataset.from_list(ROWS)
    hub(datasets.DatasetDict({"train": rows}))
    assert len(asked("someone/pairs")) == 8
    hub(datasets.DatasetDict({"train": rows, "test": rows}))
    with pytest.raises(UsageError, match="someone/pairs · has several splits · choose one with --split: train, test"):
        load("someone/pairs")
    hub(ValueError("Unknown split \"dev\". Should be one of ['train'].\nmore"))
    with pytest.raises(UsageError, match=r'--split dev · Unknown split "dev"\. Should be one of'):
        load("someone/pairs", Door(split="dev"))


@pytest.fixture
def several_configs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A name on the hub with two configurations: `datasets` itself is asked, about a folder."""
    jsonl(tmp_path / "hub" / "en.jsonl", ROWS[:5])
    jsonl(tmp_path / "hub" / "de.jsonl", ROWS[5:])
    configs = [f"- config_name: {name}\n  data_files: {name}.jsonl\n" for name in ("en", "de")]
    (tmp_path / "hub" / "README.md").write_text("---\nconfigs:\n" + "".join(configs) + "---\n")
    load_dataset, get_names = datasets.load_dataset, datasets.get_dataset_config_names

    def loaded(path: str, revision: str | None, **options: Any) -> Any:
        return load_dataset(str(tmp_path / "hub"), cache_dir=str(tmp_path / "cache"), **options)

    monkeypatch.setattr(datasets, "load_dataset", loaded)
    monkeypatch.setattr(datasets, "get_dataset_config_names", lambda path, revision: get_names(str(tmp_path / "hub")))
    return "someone/pairs"


@pytest.mark.parametrize("streaming", [False, True])
def test_a_configuration_of_a_name_is_chosen_by_its_own_name(streaming: bool, several_configs: str) -> None:
    for name, rows in (("en", ROWS[:5]), ("de", ROWS[5:])):
        loaded = load(several_configs, Door(dataset_config=name, split="train", streaming=streaming))
        assert [preference.prompt[0].content for preference in loaded.preferences] == [row["prompt"] for row in rows]
        assert loaded.preferences[0].id == f"someone/pairs/{name}/train:1"


@pytest.mark.parametrize(("name", "found"), [(None, "has several configurations"), ("fr", "has no configuration fr")])
def test_a_configuration_that_is_needed_or_unknown_is_asked_for(
    name: str | None, found: str, several_configs: str
) -> None:
    with pytest.raises(UsageError) as error:
        load(several_configs, Door(dataset_config=name))
    assert str(error.value) == f"someone/pairs · {found} · choose one with --dataset-config: en, de"


def test_an_unknown_split_of_a_configuration_is_refused(several_configs: str) -> None:
    with pytest.raises(UsageError, match=r'--split dev · Unknown split "dev"'):
        load(several_configs, Door(dataset_config="de", split="dev"))


@pytest.mark.parametrize("problem", [ConnectionError("no route\nto host"), FileNotFoundError("not on the hub")])
def test_a_hub_that_does_not_answer_is_a_network_error_in_one_line(
    problem: Exception, hub: Callable[[Any], Hub]
) -> None:
    hub(problem)
    with pytest.raises(NetworkError, match=rf"someone/pairs · .*: {re.escape(str(problem).splitlines()[0])}") as error:
        load("someone/pairs")
    assert error.value.exit_code == 6
    assert "\n" not in str(error.value)


def test_the_hub_offline_is_a_network_error(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(NetworkError, match=r"someone/gone · no such file here, and not to be had from the hub: "):
        load("someone/gone")


# --- progress -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz", "c.parquet"])
def test_the_bytes_of_a_file_are_told_as_they_are_read(name: str, tmp_path: Path) -> None:
    path = directory(tmp_path) / name
    if name != "c.parquet":
        jsonl(path, [{"text": str(number)} for number in range(100_000)])
    told: list[int] = []
    assert sum(1 for block in read_blocks(path, told.append) for _ in block) > 0
    assert sum(told) == path.stat().st_size
    assert name != "a.jsonl" or len(told) > 1


def test_a_bar_is_drawn_on_a_terminal_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = directory(tmp_path)
    screen = Console(file=io.StringIO(), force_terminal=True, width=80)
    monkeypatch.setattr(console, "_stderr", screen)
    load(path)
    assert "reading" in screen.file.getvalue()  # type: ignore[attr-defined]
    plain = Console(file=io.StringIO(), force_terminal=False)
    monkeypatch.setattr(console, "_stderr", plain)
    load(path)
    assert plain.file.getvalue() == ""  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    "door", [Door(split="train"), Door(dataset_config="en"), Door(revision="main"), Door(streaming=True)]
)
def test_flags_that_a_local_file_cannot_answer_are_refused(door: Door, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "Why?", "chosen": "Because.", "rejected": "No."}\n')
    assert len(load(path).preferences) == 1
    with pytest.raises(UsageError, match="leave"):
        load(path, door)
