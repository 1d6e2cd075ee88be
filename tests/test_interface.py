"""The Python interface: commands as functions with keyword arguments."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pandas
import pytest

import headwater
from headwater import cli, interface
from headwater.cli import COMMANDS
from headwater.data import reading
from headwater.data.corpus import Corpus, generate
from headwater.errors import DataError, HeadwaterError, UsageError
from tests.support import stub

TINY = "scratch(hidden=32, layers=1, vocab=300)"


@pytest.fixture(scope="module")
def pairs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    reading.write(path, generate(Corpus(pairs=40)))
    return path


def test_import_is_instant_and_functions_are_made_without_torch() -> None:
    code = (
        "import sys, headwater; assert not [name for name in sys.modules if name.startswith('headwater.')]\n"
        "assert 'train_dpo' in dir(headwater); headwater.train_dpo; assert 'torch' not in sys.modules"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr


def test_every_command_but_those_for_the_terminal_is_a_function() -> None:
    assert set(COMMANDS) - set(interface.FUNCTIONS.values()) == {"demo", "doctor", "env", "tokens"}
    assert {*interface.FUNCTIONS, "load_pairs", "load_run"} == set(headwater.__all__)


@pytest.mark.parametrize("name", interface.FUNCTIONS)
def test_functions_document_every_parameter(name: str) -> None:
    function = getattr(headwater, name)
    parameters = inspect.signature(function).parameters
    assert function.__name__ == name and parameters
    documented = (function.__doc__ or "").splitlines()
    for parameter in parameters:
        assert documented[documented.index(parameter) + 1].startswith("    "), parameter


def test_the_stub_has_the_signatures_of_the_commands() -> None:
    assert stub.STUB.read_text(encoding="utf-8") == stub.of_the_code(), "run python -m tests.support.stub"


def test_a_tiny_model_is_trained_and_evaluated(pairs: Path, tmp_path: Path) -> None:
    run = headwater.train_dpo(pairs, output=tmp_path / "dpo", model=TINY, lr=1e-3, batch_size=4, limit=24)
    assert run.command == "train-dpo" and run.config["learning_rate"] == 1e-3 and run.config["limit"] == 24
    assert run.config["per_device_train_batch_size"] == 4
    found = headwater.evaluate(run.path, data=pairs, output=tmp_path / "evaluation", allow_leakage=True)
    assert 0 <= found.metrics["accuracy"]["value"] <= 1
    assert headwater.load_run(tmp_path / "evaluation").metrics == found.metrics
    compared = headwater.measure_signal(pairs, output=tmp_path / "signal")
    assert compared.command == "signal"
    report = headwater.write_report(run.path, output=tmp_path / "report.html")
    assert report == tmp_path / "report.html" and report.is_file()


def test_data_goes_through_files_too(pairs: Path, tmp_path: Path) -> None:
    assert len(headwater.load_pairs(pairs, limit=10)) == 10
    run = headwater.preprocess(data=str(pairs), output=tmp_path / "cut.jsonl", keep="50%")
    assert run.command == "preprocess" and len(headwater.load_pairs(tmp_path / "cut.jsonl")) == 40


def test_errors_are_exceptions(pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown option bta"):
        headwater.train_dpo(pairs, output=tmp_path / "x", bta=1)
    with pytest.raises(UsageError, match="output is missing"):
        headwater.train_dpo(pairs)
    with pytest.raises(UsageError, match="lr is another name of learning_rate"):
        headwater.train_dpo(pairs, output=tmp_path / "x", learning_rate=1e-3, lr=1e-3)
    with pytest.raises(TypeError, match="multiple values"):
        headwater.train_dpo(pairs, data=pairs, output=tmp_path / "x")
    with pytest.raises(HeadwaterError):
        headwater.load_run(tmp_path)
    (tmp_path / "bad.jsonl").write_text('{"prompt": "Why?"}\n')
    with pytest.raises(DataError):
        headwater.load_pairs(tmp_path / "bad.jsonl")
    with pytest.raises(AttributeError):
        _ = headwater.train_ppo


# --- data in memory -----------------------------------------------------------------------------------------------


def test_numbers_are_those_of_the_same_rows_in_a_file(pairs: Path, tmp_path: Path) -> None:
    """Two steps of train-dpo end with the same weights, and evaluate gives the same figures."""
    rows = [json.loads(line) for line in pairs.read_text(encoding="utf-8").splitlines()[:8]]
    (tmp_path / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    frame = pandas.DataFrame(rows)
    given = {"model": TINY, "batch_size": 4, "eval_fraction": 0.0, "learning_rate": 1e-3}
    of_file = headwater.train_dpo(tmp_path / "few.jsonl", output=tmp_path / "of-file", **given)
    of_rows = headwater.train_dpo(rows, output=tmp_path / "of-rows", eval_data=None, **given)
    weights = [(run.path / "model.safetensors").read_bytes() for run in (of_file, of_rows)]
    assert weights[0] == weights[1] and len(of_rows.history) == len(of_file.history)
    label = of_rows.config["data"]
    assert label.startswith("in memory: list, 8 rows, ")
    assert of_rows.environment["inputs"][label].startswith(label.rpartition(" ")[2])
    more = {"allow_leakage": True, "overwrite": True}
    found = [headwater.evaluate(of_rows.path, data=data, **more) for data in (tmp_path / "few.jsonl", frame)]
    assert found[0].metrics == found[1].metrics
    assert found[1].path.parent == tmp_path and found[1].name.startswith("of-rows-on-in-memory-DataFrame-")
    with pytest.raises(UsageError, match="was data in the memory of a Python program · pass the same data again"):
        headwater.train_dpo(label, output=tmp_path / "again", **given)
    assert cli.main(["train-dpo", "--config", str(of_rows.path / "config.yaml"), "--output", str(tmp_path / "b")]) == 2


def test_a_training_of_rows_in_memory_is_resumed_with_the_same_rows(pairs: Path, tmp_path: Path) -> None:
    rows = headwater.load_pairs(pairs, limit=8)
    given = {"output": tmp_path / "dpo", "model": TINY, "batch_size": 4, "eval_fraction": 0.0}
    done = headwater.train_sft(rows, **given)
    (done.path / "done").unlink()
    with pytest.raises(UsageError, match=r"already holds a run, begun with other settings · .*data"):
        headwater.train_sft(rows[:7], **given)
    assert headwater.train_sft(rows, **given).config["data"] == done.config["data"]


def test_every_function_that_reads_data_takes_it_in_memory(pairs: Path, tmp_path: Path) -> None:
    rows = headwater.load_pairs(pairs)
    of_file = headwater.inspect_data(pairs)
    frame = pandas.read_json(pairs, lines=True)
    for data in (rows, frame, {"train": rows, "test": frame}):
        found = headwater.inspect_data(data)
        assert found.row_counts.kept == of_file.row_counts.kept == 40
        assert replace(found, data=of_file.data, row_counts=of_file.row_counts) == of_file
    cut = headwater.preprocess(data=rows, output=tmp_path / "cut.jsonl", keep="50%", limit=10)
    assert cut.config["limit"] == 10 and len(headwater.load_pairs(tmp_path / "cut.jsonl")) == 10
    judgements = [
        {"instruction": f"Why {n}?", "output_1": "So.", "output_2": "No.", "generator_1": "base", "generator_2": "dpo"}
        | {"annotator": "me", "preference": 1 + n % 2}
        for n in range(6)
    ]
    for place in ("one", "two"):
        given = judgements if place == "one" else [judgements, tmp_path / "j.json"]
        (tmp_path / "j.json").write_text(json.dumps([{**row, "annotator": "you"} for row in judgements]))
        compared = headwater.compare(given, output=tmp_path / place)
        assert compared.config["judgements"][0].startswith("in memory: list, 6 rows")
    assert compared.row_counts[0]["kept"] == 6


def test_other_objects_are_refused_by_their_type() -> None:
    with pytest.raises(UsageError, match=r"a builtins.int · is no data"):
        headwater.inspect_data(3)
    with pytest.raises(UsageError, match="data has 2 values · expected one"):
        headwater.inspect_data(["a.jsonl", "b.jsonl"])
