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
from headwater.data.preference import Response, Unpaired
from headwater.data.reading import ReadOptions, load, load_examples, stream
from headwater.data.reading.formats import read_file
from headwater.errors import DataError, NetworkError, UsageError

datasets = pytest.importorskip("datasets")

ROWS = [{"prompt": f"Why {n}?", "chosen": f"Because {n}.", "rejected": "Nø."} for n in range(8)]


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = "".join(json.dumps(row) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)
    return path


def asked(place: Path | str, read_options: ReadOptions = ReadOptions()) -> list[str]:  # noqa: B008 - frozen
    return [preference.prompt[0].content for preference in load(place, read_options).preferences]


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
        assert asked(tmp_path) == [row["prompt"] for row in ROWS[:5]]
        with pytest.raises(UsageError, match=r"has no split dev · choose one with --split: train, test"):
            load(tmp_path, ReadOptions(split="dev"))
    else:
        jsonl(tmp_path / "data" / "train-00000-of-00001.jsonl", ROWS[:5])
        jsonl(tmp_path / "data" / "test-00000-of-00001.jsonl", ROWS[5:])
        with pytest.raises(UsageError, match=r"no data files of the split dev · choose one with --split: test, train"):
            load(tmp_path, ReadOptions(split="dev"))
    assert asked(tmp_path, ReadOptions(split="test")) == [row["prompt"] for row in ROWS[5:]]


def folder(path: Path, *names: str) -> Path:
    """Make a folder of files, each with one row that asks for its own name."""
    for name in names:
        file = path / name
        file.parent.mkdir(parents=True, exist_ok=True)
        row = {"prompt": name, "chosen": "So.", "rejected": "No."}
        if name.endswith(".parquet"):
            pyarrow.parquet.write_table(pyarrow.Table.from_pylist([row]), file)
        elif name.endswith(".csv"):
            file.write_text(f"prompt,chosen,rejected\n{name},So.,No.\n")
        else:
            jsonl(file, [row])
    return path


PREFS = [f"data/{name}-00000-of-00001.parquet" for name in ("test_prefs", "train_prefs", "train_sft")]
SPLITS: dict[str, tuple[list[str], dict[str | None, list[str]]]] = {
    "files": (
        ["test.jsonl", "train.jsonl", "validation.jsonl"],
        {None: ["train.jsonl"], "test": ["test.jsonl"], "dev": ["validation.jsonl"]},
    ),
    "shards": (
        ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet", "test-00000-of-00001.parquet"],
        {None: ["train-00000-of-00002.parquet", "train-00001-of-00002.parquet"]},
    ),
    "longer names": (PREFS, {"train_prefs": PREFS[1:2], "train_sft": PREFS[2:], "test": PREFS[:1]}),
    "folders": (
        ["dev/a.jsonl", "train/a.jsonl", "train/b.csv"],
        {None: ["train/a.jsonl", "train/b.csv"], "validation": ["dev/a.jsonl"]},
    ),
    "converted": (
        ["default/test/0000.parquet", "default/train/0000.parquet", "default/train/0001.parquet"],
        {None: ["default/train/0000.parquet", "default/train/0001.parquet"], "test": ["default/test/0000.parquet"]},
    ),
    "converted, another name": (
        ["default/harmless/0000.parquet", "default/train/0000.parquet"],
        {None: ["default/train/0000.parquet"], "harmless": ["default/harmless/0000.parquet"]},
    ),
    "subsets": (
        ["harmless-base_test.jsonl", "harmless-base_train.jsonl", "helpful-base_train.jsonl"],
        {None: ["harmless-base_train.jsonl", "helpful-base_train.jsonl"], "harmless": ["harmless-base_test.jsonl"]},
    ),
    "numbers": (["eval.jsonl", "train_1.jsonl", "train_2.jsonl"], {None: ["train_1.jsonl", "train_2.jsonl"]}),
    "no splits": (["a.jsonl", "b.jsonl"], {None: ["a.jsonl", "b.jsonl"]}),
    "one split": (["test/a.jsonl", "test/b.jsonl"], {None: ["test/a.jsonl", "test/b.jsonl"]}),
}


@pytest.mark.parametrize("kind", SPLITS)
def test_files_of_several_splits_are_never_read_as_one(kind: str, tmp_path: Path) -> None:
    names, expected = SPLITS[kind]
    place = folder(tmp_path, *names)
    for split, files in expected.items():
        if (kind, split) == ("subsets", "harmless"):
            files = [*files, "harmless-base_train.jsonl"]
        loaded = load(place, ReadOptions(split=split))
        assert [preference.prompt[0].content for preference in loaded.preferences] == files
        assert bool(loaded.row_counts.split) == (len(files) < len(names) or split is not None)


@pytest.mark.parametrize(
    ("names", "split", "match"),
    [
        (PREFS, None, "has several splits of train · choose one with --split: train_prefs, train_sft"),
        (PREFS, "train", "has several splits of train · choose one with --split: train_prefs, train_sft"),
        (PREFS, "dev", "no data files of the split dev · choose one with --split: test_prefs, train_prefs, train_sft"),
        (PREFS[1:], None, "has several splits of train · choose one with --split: train_prefs, train_sft"),
        (["dev.jsonl", "test.jsonl"], None, "has several splits · choose one with --split: dev, test"),
        (["a.jsonl", "test.jsonl"], None, "has several splits · choose one with --split: files without a split, test"),
        (
            ["de/train/0000.parquet", "en/train/0000.parquet"],
            None,
            "has several configurations · choose one with --dataset-config: de, en",
        ),
    ],
)
def test_a_folder_that_leaves_a_choice_is_refused_with_the_splits(
    names: list[str], split: str | None, match: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=match):
        load(folder(tmp_path, *names), ReadOptions(split=split))


CARD = """---
license: mit
configs:
- config_name: de
  data_files:
  - split: train
    path: german/*.jsonl
  - split: test
    path: [one.jsonl]
- config_name: en
  default: true
  data_files:
    train: "english/*"
    test: ./two.jsonl
---
# Pairs
"""


@pytest.mark.parametrize(
    ("read_options", "files"),
    [
        (ReadOptions(), ["english/a.jsonl", "english/test.jsonl"]),
        (ReadOptions(split="test"), ["two.jsonl"]),
        (ReadOptions(dataset_config="de"), ["german/a.jsonl"]),
        (ReadOptions(dataset_config="de", split="test"), ["one.jsonl"]),
    ],
)
def test_the_card_of_a_data_set_says_which_files_are_read(
    read_options: ReadOptions, files: list[str], tmp_path: Path
) -> None:
    names = ["english/a.jsonl", "english/test.jsonl", "german/a.jsonl", "one.jsonl", "two.jsonl"]
    place = folder(tmp_path, *names)
    (place / "README.md").write_text(CARD)
    assert asked(place, read_options) == files
    with pytest.raises(UsageError, match=r"has no configuration fr · choose one with --dataset-config: de, en"):
        load(place, ReadOptions(dataset_config="fr"))
    (place / "two.jsonl").unlink()
    with pytest.raises(DataError, match=r"README\.md · names two\.jsonl"):
        load(place)


def test_a_pattern_over_several_splits_is_said(tmp_path: Path) -> None:
    pattern = str(folder(tmp_path, "train.jsonl", "test.jsonl") / "*.jsonl")
    assert load(pattern).row_counts.split == "test and train"
    assert asked(pattern, ReadOptions(split="test")) == ["test.jsonl"]


def test_files_of_one_name_in_several_folders_give_different_ids(tmp_path: Path) -> None:
    loaded = load(folder(tmp_path, "a/0.jsonl", "b/0.jsonl"))
    assert [preference.id for preference in loaded.preferences] == ["a/0:1", "b/0:1"]


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


def test_cells_are_what_their_layout_makes_of_them(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('question,better_response,rating\nHow many?,16,x\nHow long?,"[0]",y\nWho?,"{""legs"": 16}",z\n')
    loaded = load(path, ReadOptions(columns="prompt=question,chosen=better_response,rejected=rating"))
    assert [preference.chosen.text for preference in loaded.preferences] == ["16", "[0]", '{"legs": 16}']
    path.write_text("prompt,completion,label,score,complete\nHi,16,True,1e3,True\nHo,2,False,,False\nHu,3,1,,\n")
    rows = load_examples(path).preferences
    assert [(row.label, row.response) for row in rows if isinstance(row, Unpaired)] == [
        (True, Response("16", 1000.0)),
        (False, Response("2", None, False)),
        (True, Response("3")),
    ]
    path.write_text(
        "prompt,response_a,response_b,winner_model_a,winner_model_b,winner_tie\n"
        '"[""Hi"", ""Why?""]","[""A"", ""B""]","[""A"", ""C""]",0,1,0\n'
        '"[""Hi""]","[""A""]","[""B""]",0.0,0.0,1.0\n'
    )
    loaded = load(path)
    (pair,) = loaded.preferences
    assert (len(pair.prompt), pair.chosen.text) == (3, "C") and loaded.row_counts.dropped == {"tie": 1}


@pytest.mark.parametrize(("cell", "code"), [("high", "MALFORMED"), ("nan", "SCORE"), ("1_000", "MALFORMED")])
def test_cells_that_are_no_numbers_are_bad(cell: str, code: str, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text(f"prompt,chosen,rejected,score_chosen\nHi,a,b,{cell}\n")
    row_reader = stream(tmp_path / "a.csv", ReadOptions(max_bad_rows="1"))
    assert not list(row_reader) and row_reader.quarantine.codes == {code: 1}


def test_bad_rows_of_csv_are_named_by_their_first_line(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b'prompt,chosen,rejected\n"Why\n0?",a,b\nWhy,a\nWhy \xff?,a,b\nWhy 1?,a,b\nWhy 2?,"a,b\n')
    row_reader = stream(path, ReadOptions(max_bad_rows="100%"))
    assert [record.prompt[0].content for record in row_reader] == ["Why\n0?", "Why 1?"]
    assert [(entry["line"], entry["code"]) for entry in row_reader.quarantine] == [
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
    loaded = load(Path("someone/pairs"), ReadOptions(split="train", revision="abc", streaming=streaming))
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
        load("someone/pairs", ReadOptions(split="dev"))


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
        loaded = load(several_configs, ReadOptions(dataset_config=name, split="train", streaming=streaming))
        assert [preference.prompt[0].content for preference in loaded.preferences] == [row["prompt"] for row in rows]
        assert loaded.preferences[0].id == f"someone/pairs/{name}/train:1"


@pytest.mark.parametrize(("name", "found"), [(None, "has several configurations"), ("fr", "has no configuration fr")])
def test_a_configuration_that_is_needed_or_unknown_is_asked_for(
    name: str | None, found: str, several_configs: str
) -> None:
    with pytest.raises(UsageError) as error:
        load(several_configs, ReadOptions(dataset_config=name))
    assert str(error.value) == f"someone/pairs · {found} · choose one with --dataset-config: en, de"


def test_an_unknown_split_of_a_configuration_is_refused(several_configs: str) -> None:
    with pytest.raises(UsageError, match=r'--split dev · Unknown split "dev"'):
        load(several_configs, ReadOptions(dataset_config="de", split="dev"))


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
    assert sum(1 for _ in read_file(path, told.append)) > 0
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
    "read_options",
    [
        ReadOptions(split="train"),
        ReadOptions(dataset_config="en"),
        ReadOptions(revision="main"),
        ReadOptions(streaming=True),
    ],
)
def test_flags_that_a_local_file_cannot_answer_are_refused(read_options: ReadOptions, tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"prompt": "Why?", "chosen": "Because.", "rejected": "No."}\n')
    assert len(load(path).preferences) == 1
    with pytest.raises(UsageError, match="leave"):
        load(path, read_options)
