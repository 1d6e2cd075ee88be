"""Evaluation pairs from another file, and what happens when training data shares prompts with them."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from headwater import cli
from headwater.data import reading
from headwater.data.corpus import Corpus, generate
from headwater.data.preference import Message, Preference
from headwater.data.splitting import split
from headwater.results import runs
from tests.commands.test_main_job import MODEL

QUICK = ["--model", MODEL, "--per-device-train-batch-size", "16", "--precision", "fp32"]
COMMANDS = ["train-sft", "train-reward", "train-dpo"]


def renamed(preference: Preference, prefix: str) -> Preference:
    return dataclasses.replace(preference, id=f"{prefix}:{preference.id.rpartition(':')[2]}")


def continued(preference: Preference) -> Preference:
    """A longer dialogue that grows from the same question."""
    turns = (Message("assistant", "Do you mean today?"), Message("user", "Yes."))
    return dataclasses.replace(preference, prompt=preference.prompt + turns)


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Training pairs, pairs of other openings, and the latter with one copied and one continued training row."""
    root = tmp_path_factory.mktemp("leakage")
    pairs = [renamed(p, "train") for p in generate(Corpus(pairs=120, seed=2))]
    train, rest = split(pairs, 0.25, seed=0)
    other = [renamed(p, "test") for p in rest]
    once = [p for p in train if sum(p.conversation_id == q.conversation_id for q in train) == 1]
    leaked = [renamed(once[0], "copy"), renamed(continued(once[1]), "grown")]
    reading.write(root / "train.jsonl", train)
    reading.write(root / "other.jsonl", other)
    reading.write(root / "leaky.jsonl", [*other, *leaked])
    return root


def train(command: str, files: Path, evaluation: str, output: Path, *flags: str) -> int:
    places = ["--data", files / "train.jsonl", "--eval-data", files / evaluation, "--output", output]
    return cli.main([command, *map(str, places), *QUICK, *flags])


def stage(run: runs.Run, name: str) -> dict[str, object]:
    return next(found for found in run.row_counts if found["stage"] == name)


@pytest.mark.parametrize("command", COMMANDS)
def test_evaluation_pairs_from_another_file(command: str, files: Path, tmp_path: Path) -> None:
    assert train(command, files, "other.jsonl", tmp_path / "run") == 0
    run = runs.load(tmp_path / "run")
    rows = {name: len(reading.load(files / f"{name}.jsonl").preferences) for name in ("train", "other")}
    assert (run.metrics["train_pairs"], run.metrics["held_out_pairs"]) == (rows["train"], rows["other"])
    assert "eval_loss" in run.history[-1] or any("eval_loss" in row for row in run.history)
    assert stage(run, "read, evaluation data")["rows_in"] == rows["other"]
    assert {Path(name).name for name in run.environment["inputs"]} == {"train.jsonl", "other.jsonl"}
    assert run.config["eval_fraction"] is None
    assert cli.main([command, "--config", str(run.path / "config.yaml"), "--overwrite"]) == 0


@pytest.mark.parametrize("command", COMMANDS)
def test_training_refuses_on_leakage(
    command: str, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train(command, files, "leaky.jsonl", tmp_path / "run") == 3
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert " of " in error
    assert "exact 1, opening 1" in error
    for name in ("copy:", "grown:", "(training row train:", "--leakage drop", "--leakage allow"):
        assert name in error
    assert not (tmp_path / "run").exists()


def test_drop_leaves_out_training_rows_and_counts_them(files: Path, tmp_path: Path) -> None:
    assert train("train-reward", files, "leaky.jsonl", tmp_path / "run", "--leakage", "drop") == 0
    run = runs.load(tmp_path / "run")
    assert stage(run, "leakage")["dropped"] == {"seen_in_evaluation": 2}
    assert run.metrics["train_pairs"] == stage(run, "leakage")["kept"]
    trained = set((run.path / runs.TRAINED_ON).read_text("utf-8").split())
    judged = {p.conversation_id for p in reading.load(files / "leaky.jsonl").preferences}
    assert trained
    assert not trained & judged, "evaluate would leave rows out that training did not leak into"


def test_allow_trains_on_everything_and_stores_what_is_shared(files: Path, tmp_path: Path) -> None:
    assert train("train-reward", files, "leaky.jsonl", tmp_path / "run", "--leakage", "allow") == 0
    run = runs.load(tmp_path / "run")
    assert stage(run, "leakage")["dropped"] == {}
    shared = json.loads((run.path / "overlap.json").read_text("utf-8"))
    assert shared["evaluation_rows"] == run.metrics["held_out_pairs"]
    by_kind = {match["kind"]: match["id"] for match in shared["matches"]}
    assert by_kind["exact"].startswith("copy:")
    assert by_kind["opening"].startswith("grown:")


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--eval-data", "other.jsonl", "--eval-fraction", "0.2"], "--eval-fraction · has no effect with --eval-data"),
        (["--eval-data", "other.jsonl", "--eval-fraction", "0"], "--eval-fraction · has no effect with --eval-data"),
        (["--leakage", "drop"], "--leakage drop · has no effect without --eval-data"),
        (["--leakage", "allow"], "--leakage allow · has no effect without --eval-data"),
        (["--eval-data", "none.jsonl"], "none.jsonl · no such file"),
        (["--eval-split", "test"], "--eval-split test · has no effect without --eval-data"),
        (["--eval-data", "other.jsonl", "--eval-split", "test"], "leave --eval-split out"),
    ],
)
def test_flags_without_an_effect_are_refused(
    flags: list[str], message: str, files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = [str(files / flag) if flag.endswith(".jsonl") else flag for flag in flags]
    data = ["--data", str(files / "train.jsonl"), "--output", str(tmp_path / "run")]
    assert cli.main(["train-reward", *data, *QUICK, *flags]) == 2
    assert message in capsys.readouterr().err


def test_evaluation_pairs_are_a_split_of_the_data_itself(
    files: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for split_of, name in (("train", "train"), ("test", "other")):
        (tmp_path / "data").mkdir(exist_ok=True)
        (tmp_path / "data" / f"{split_of}-00000.jsonl").write_bytes((files / f"{name}.jsonl").read_bytes())
    data = ["--data", str(tmp_path / "data"), "--eval-data", str(tmp_path / "data"), "--split", "train"]
    call = ["train-reward", *data, "--output", str(tmp_path / "run"), *QUICK]
    assert cli.main([*call, "--eval-split", "dev"]) == 2
    assert "data files of the split dev" in capsys.readouterr().err
    assert cli.main([*call, "--eval-split", "test"]) == 0
    run = runs.load(tmp_path / "run")
    rows = {name: len(reading.load(files / f"{name}.jsonl").preferences) for name in ("train", "other")}
    assert (run.metrics["train_pairs"], run.metrics["held_out_pairs"]) == (rows["train"], rows["other"])
    assert cli.main(["train-reward", "--config", str(run.path / "config.yaml"), "--overwrite"]) == 0
