"""The Python interface: commands as functions with keyword arguments."""

from __future__ import annotations

import inspect
import subprocess
import sys
from pathlib import Path

import pytest

import headwater
from headwater import interface
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
