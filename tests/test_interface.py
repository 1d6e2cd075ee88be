"""The Python interface: commands as functions with keyword arguments."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas
import pytest
import torch
import transformers

import headwater
from headwater import cli, interface
from headwater.cli import COMMANDS
from headwater.data import reading
from headwater.data.corpus import Corpus, generate
from headwater.data.preference import Response
from headwater.errors import DataError, HeadwaterError, UsageError
from headwater.interface import Pairs
from headwater.statistics import Estimate
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
    assert set(COMMANDS) - set(interface.FUNCTIONS.values()) == {"demo", "demo-real", "doctor", "run", "env", "tokens"}
    assert {*interface.FUNCTIONS, *interface.__all__, "losses"} - {"FUNCTIONS", "function"} == set(headwater.__all__)


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
    assert 0 <= found.metrics["accuracy"].value <= 1
    assert headwater.load_run(tmp_path / "evaluation").metrics == found.metrics
    compared = headwater.signal(pairs, output=tmp_path / "signal")
    assert compared.command == "signal"
    report = headwater.report(run, found, output=tmp_path / "report.html")
    assert report == tmp_path / "report.html" and report.is_file()


def test_data_goes_through_files_too(pairs: Path, tmp_path: Path) -> None:
    assert len(headwater.load(pairs, limit=10)) == 10
    run = headwater.preprocess(data=str(pairs), output=tmp_path / "cut.jsonl", keep="50%")
    assert run.command == "preprocess" and len(headwater.load(tmp_path / "cut.jsonl")) == 40


def test_errors_are_exceptions(pairs: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="unknown option bta"):
        headwater.train_dpo(pairs, output=tmp_path / "x", bta=1)
    with pytest.raises(UsageError, match="lr is another name of learning_rate"):
        headwater.train_dpo(pairs, output=tmp_path / "x", learning_rate=1e-3, lr=1e-3)
    with pytest.raises(TypeError, match="multiple values"):
        headwater.train_dpo(pairs, data=pairs, output=tmp_path / "x")
    with pytest.raises(HeadwaterError):
        headwater.load_run(tmp_path)
    (tmp_path / "bad.jsonl").write_text('{"prompt": "Why?"}\n')
    with pytest.raises(DataError):
        headwater.load(tmp_path / "bad.jsonl")
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
    rows = headwater.load(pairs, limit=8)
    given = {"output": tmp_path / "dpo", "model": TINY, "batch_size": 4, "eval_fraction": 0.0}
    done = headwater.train_sft(rows, **given)
    (done.path / "done").unlink()
    with pytest.raises(UsageError, match=r"already holds a run, begun with other settings · .*data"):
        headwater.train_sft(rows[:7], **given)
    assert headwater.train_sft(rows, **given).config["data"] == done.config["data"]


def test_every_function_that_reads_data_takes_it_in_memory(pairs: Path, tmp_path: Path) -> None:
    rows = headwater.load(pairs)
    of_file = headwater.inspect(pairs)
    frame = pandas.read_json(pairs, lines=True)
    for data in (rows, frame, {"train": rows, "test": frame}):
        found = headwater.inspect(data)
        assert found.row_counts.kept == of_file.row_counts.kept == 40
        assert replace(found, data=of_file.data, row_counts=of_file.row_counts) == of_file
    cut = headwater.preprocess(data=rows, output=tmp_path / "cut.jsonl", keep="50%", limit=10)
    assert cut.config["limit"] == 10 and len(headwater.load(tmp_path / "cut.jsonl")) == 10
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
        headwater.inspect(3)
    with pytest.raises(UsageError, match="data has 2 values · expected one"):
        headwater.inspect(["a.jsonl", "b.jsonl"])


# --- pairs and results --------------------------------------------------------------------------------------------


def test_pairs_are_a_sequence_with_an_account(pairs: Path) -> None:
    found = headwater.load(pairs)
    assert len(found) == 40 and found[0] == reading.load(pairs).preferences[0]
    assert isinstance(found[:3], Pairs) and list(found[:3]) == list(found)[:3]
    assert repr(found) == f"<40 pairs of {pairs} (read: 40 rows in, 40 kept)>"
    train, held_out = found.split(0.25, seed=1)
    assert len(train) + len(held_out) == 40
    assert not {row.conversation_id for row in train} & {row.conversation_id for row in held_out}
    assert list(headwater.load(found.to_pandas())) == list(found) == list(headwater.load(found))
    shown = Pairs([*held_out, replace(held_out[0], chosen=Response("<script>"))])._repr_html_()
    assert "<script>" not in shown and held_out[0].rejected.text[:20] in shown


def test_truncated_pairs_are_those_of_preprocess(pairs: Path, tmp_path: Path) -> None:
    """The same rows, the same account, and the same facts in what is trained on them."""
    cut = headwater.preprocess(pairs, output=tmp_path / "cut.jsonl", keep="10%")
    found = headwater.load(pairs).truncate("10%")
    assert list(found) == list(headwater.load(tmp_path / "cut.jsonl"))
    truncated = next(stage for stage in cut.row_counts if stage["stage"] == "truncate")
    assert found.row_counts["truncate to 10%"].kept == truncated["kept"] == len(found)
    assert {name: cut.facts[name] for name in found.facts} == found.facts
    given = {"model": TINY, "batch_size": 8, "eval_fraction": 0.0}
    of_pairs = headwater.train_dpo(found, output=tmp_path / "of-pairs", **given)
    of_file = headwater.train_dpo(tmp_path / "cut.jsonl", output=tmp_path / "of-file", **given)
    assert of_pairs.facts["keep"] == of_file.facts["keep"] == 0.1
    assert (of_pairs.path / "model.safetensors").read_bytes() == (of_file.path / "model.safetensors").read_bytes()


def test_a_result_shows_figures_records_and_history(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    trained = [headwater.train_reward(pairs, TINY, limit=24, batch_size=8) for _ in range(2)]
    assert [run.path.relative_to(tmp_path).as_posix() for run in trained] == [
        "runs/train-reward",
        "runs/train-reward-2",
    ]
    run = trained[0]
    assert repr(run).startswith(f"<train-reward {run.path} · held-out accuracy ") and "\n" not in repr(run)
    assert "loss" in run.figures and run.figures["loss"].to_dict()["title"] == "Loss"
    with pytest.raises(UsageError, match=r"is no figure of this train-reward run · did you mean loss"):
        _ = run.figures["los"]
    assert run.history.to_pandas()["loss"].notna().any() and len(run.history[:1]) == 1
    found = headwater.evaluate(run, pairs, allow_leakage=True)
    assert found.metrics["accuracy"] == Estimate(**found.run.metrics["accuracy"])
    assert len(found.records) == found.metrics["accuracy"].n == len(found.records.to_pandas())
    assert "<td>accuracy</td>" in found._repr_html_() and "read: 40 rows in, 40 kept" in found._repr_html_()


# --- models and losses in memory ----------------------------------------------------------------------------------


OWN_LOSSES = """
import torch

def half(policy, reference):
    margin = policy.chosen.value - policy.rejected.value - (reference.chosen.value - reference.rejected.value)
    return -torch.nn.functional.logsigmoid(0.5 * margin)

def plain(policy, reference):
    assert reference is None
    return -torch.nn.functional.logsigmoid(policy.chosen.value - policy.rejected.value)

def mean(policy, reference):
    return policy.chosen.value.mean()
"""


def half(policy: Any, reference: Any) -> Any:
    margin = policy.chosen.value - policy.rejected.value - (reference.chosen.value - reference.rejected.value)
    return -torch.nn.functional.logsigmoid(0.5 * margin)


def test_a_model_in_memory_is_trained_as_its_folder(
    pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "cache"))
    base = headwater.train_sft(pairs, TINY, output=tmp_path / "sft", batch_size=8, limit=16)
    tokenizer = transformers.AutoTokenizer.from_pretrained(base)
    model = transformers.AutoModelForCausalLM.from_pretrained(base)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    given = {"batch_size": 8, "limit": 16, "eval_fraction": 0.0, "learning_rate": 1e-3}
    runs = [
        headwater.train_dpo(pairs, (model, tokenizer), output=tmp_path / "of-object", **given),
        headwater.train_dpo(pairs, base, output=tmp_path / "of-folder", **given),
    ]
    weights = [(run.path / "model.safetensors").read_bytes() for run in runs]
    assert weights[0] == weights[1]
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert [path.name for path in (tmp_path / "cache" / "models").iterdir()] == [Path(runs[0].config["model"]).name]
    found = headwater.evaluate(runs[0], pairs, limit=30, allow_leakage=True)  # its reference is found again
    assert found.metrics["accuracy"].n == 30
    with pytest.raises(UsageError, match=r"a torch\.Linear · is no model with its tokenizer"):
        headwater.train_dpo(pairs, torch.nn.Linear(1, 1))


def test_a_function_is_a_loss(pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    given = {"model": TINY, "batch_size": 8, "limit": 16, "eval_fraction": 0.0}
    ours = headwater.train_dpo(pairs, loss=headwater.losses.DPO(beta=0.5), output=tmp_path / "ours", **given)
    theirs = headwater.train_dpo(pairs, loss=half, output=tmp_path / "theirs", **given)
    assert ours.config["loss"] == "dpo(beta=0.5, label_smoothing=0.0)" and theirs.config["loss"] == "in memory: half"
    assert theirs.facts["kind"] == "in memory: half", "a function is never taken for a loss of its name"
    assert theirs.history[0]["loss"] == pytest.approx(ours.history[0]["loss"], rel=1e-6)
    with pytest.raises(UsageError, match="was a loss in the memory of a Python program · pass the same function again"):
        headwater.train_dpo(pairs, loss="in memory: half", output=tmp_path / "x", **given)
    (tmp_path / "own_losses.py").write_text(OWN_LOSSES)
    monkeypatch.chdir(tmp_path)
    flags = [str(pairs), "--model", TINY, "--batch-size", "8", "--limit", "16", "--eval-fraction", "0", "--output"]
    assert cli.main(["train-dpo", *flags, "named", "--loss", "own_losses:half"]) == 0
    weights = [(home / "model.safetensors").read_bytes() for home in (theirs.path, tmp_path / "named")]
    assert weights[0] == weights[1]
    assert cli.main(["train-reward", *flags, "reward", "--loss", "own_losses:plain"]) == 0


@pytest.mark.parametrize(
    ("loss", "problem"),
    [
        ("own_losses:mean", r"returned shape \[\] · expected the loss of each pair, \[8\]"),
        ("own_losses:none", "own_losses has no callable none"),
        ("no_such_module:loss", "no_such_module cannot be imported: ModuleNotFoundError"),
        ("os:remove(path='x')", "is not a constructor call"),
    ],
)
def test_losses_that_cannot_be_used_are_refused(
    loss: str, problem: str, pairs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_losses.py").write_text(OWN_LOSSES)
    monkeypatch.delitem(sys.modules, "own_losses", raising=False)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError, match=problem):
        headwater.train_dpo(pairs, TINY, loss=loss, output=tmp_path / "x", batch_size=8, eval_fraction=0.0)
    monkeypatch.delitem(sys.modules, "own_losses", raising=False)
