"""R: what a crash, damage or a change leaves of a training, and how it goes on."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from headwater import cli, files
from headwater.commands import train_dpo
from headwater.data.corpus import Corpus, generate
from headwater.data.writing import write
from headwater.errors import DataError, ModelError, UsageError
from headwater.files import manifest
from headwater.models import fingerprint, saving
from headwater.results import runs
from headwater.training import checkpoints, trainer
from headwater.training import run as training_run
from tests.faults.training_runs import OPTIONS, config_of, history, same_weights, write_pairs


class KilledError(Exception):
    """Ends a training as a kill would, but for what is asked of it afterwards."""


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("data") / "pairs.jsonl")


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_dpo.run(config_of(data, tmp_path_factory.mktemp("whole") / "run"))


@pytest.fixture(scope="module")
def stopped(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was killed in its seventh step, with the checkpoints of steps 3 and 6."""
    run = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(checkpoints, "remove", lambda *others, **named: None)
        kill_in(6, patch)
        with pytest.raises(KilledError):
            train_dpo.run(config_of(data, run))
    assert sorted(path.name for path in run.glob("checkpoint-*")) == ["checkpoint-3", "checkpoint-6"]
    return run


def kill_in(step: int, patch: pytest.MonkeyPatch) -> None:
    step_as_is = trainer.PairTrainer.training_step

    def killed(self: Any, *others: Any, **named: Any) -> torch.Tensor:
        if self.state.global_step == step:
            raise KilledError
        return step_as_is(self, *others, **named)

    patch.setattr(trainer.PairTrainer, "training_step", killed)


def flip(path: Path) -> None:
    """Turn one bit, and nothing that a look at the folder shows."""
    before = path.stat()
    raw = bytearray(path.read_bytes())
    raw[-3] ^= 1
    path.write_bytes(raw)
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-10])


def empty(checkpoint: Path) -> None:
    for path in checkpoint.iterdir():
        path.unlink()


DAMAGE: dict[str, tuple[str, Callable[[Path], None], str]] = {
    "no state": ("R2", lambda at: (at / "state.safetensors").unlink(), "state.safetensors is missing"),
    "no position": ("R3", lambda at: (at / "position.json").unlink(), "position.json is missing"),
    "no trainer state": ("R2", lambda at: (at / "trainer_state.json").unlink(), "trainer_state.json is missing"),
    "cut": ("R4", lambda at: cut(at / "state.safetensors"), "state.safetensors has "),
    "flipped": ("R4", lambda at: flip(at / "state.safetensors"), "state.safetensors has other bytes"),
    "flipped position": ("R4", lambda at: flip(at / "position.json"), "position.json has other bytes"),
    "no manifest": ("R4", lambda at: (at / "manifest.json").unlink(), "has no manifest"),
    "torn manifest": ("R4", lambda at: cut(at / "manifest.json"), "has a manifest that cannot be read"),
    "empty": ("R5", empty, "is empty"),
}


@pytest.mark.parametrize(
    ("damage", "said"),
    [pytest.param(*rest, id=name, marks=pytest.mark.fault(case)) for name, (case, *rest) in DAMAGE.items()],
)
def test_a_damaged_checkpoint_is_passed_over(
    damage: Callable[[Path], None], said: str, stopped: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    damage(run / "checkpoint-6")
    assert checkpoints.latest(run) == run / "checkpoint-3"
    assert f"checkpoint-6: {said}" in capsys.readouterr().err


@pytest.mark.fault("R5")
def test_the_training_goes_on_from_the_one_before(
    stopped: Path, data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a folder that was being written. Whatever it goes on from, the end is the same, bit for bit."""
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    empty(run / "checkpoint-6")
    (run / ".tmp-checkpoint-9-0").mkdir()
    monkeypatch.setattr(training_run, "say", lambda line: None)
    train_dpo.run(config_of(data, run))
    assert same_weights(whole, run)
    assert history(run) == history(whole)
    assert not [path.name for path in run.iterdir() if path.name.startswith((".tmp-", "checkpoint-"))]


@pytest.mark.fault("R5")
def test_a_run_without_a_checkpoint_starts_over_by_itself(
    stopped: Path, data: Path, whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(stopped, run, ignore=shutil.ignore_patterns("checkpoint-*"))
    (run / "history.jsonl").write_text('{"step": 1, "lo')
    train_dpo.run(config_of(data, run))
    assert "was stopped before it had a checkpoint, and starts over" in capsys.readouterr().err
    assert same_weights(whole, run)


@pytest.mark.fault("R1")
def test_after_the_last_step_nothing_is_trained_again(
    data: Path, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed while the finished model was written: the checkpoint of the last step is still there."""
    config = config_of(data, tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(saving, "save", lambda *others: (_ for _ in ()).throw(KilledError()))
        patch.setattr(training_run, "_keep_reference", lambda *others: None)
        with pytest.raises(KilledError):
            train_dpo.run(config)
    assert [path.name for path in config.output.glob("checkpoint-*")] == ["checkpoint-8"]
    kill_in(8, monkeypatch)
    assert same_weights(whole, train_dpo.run(config))
    assert history(config.output) == history(whole)


# What a training depends on, and how each change is named.
@pytest.mark.fault("R11")
def test_other_settings_are_refused_by_name(stopped: Path, data: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    with pytest.raises(UsageError, match=r"--learning-rate 0\.001 → 0\.002.*--allow-changes"):
        train_dpo.run(config_of(data, run, learning_rate=2e-3))
    changed = train_dpo.run(config_of(data, run, learning_rate=2e-3, allow_changes=True))
    assert json.loads((changed / "facts.json").read_text())["changes"] == ["--learning-rate 0.001 → 0.002"]
    assert runs.config_of(changed)["learning_rate"] == 2e-3


@pytest.mark.fault("R11")
def test_settings_that_change_nothing_are_free(stopped: Path, data: Path, whole: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    shutil.copytree(stopped, run)
    train_dpo.run(config_of(data, run, save_steps=100, nan_policy="skip"))
    assert same_weights(whole, run)


@pytest.mark.fault("R11")
@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("data", "pairs.jsonl has changed"),
        ("model", "the content of the model has changed"),
        ("template", "the content of the tokenizer has changed"),
        ("versions", r"torch 1\.0 → "),
        ("processes", "processes 2 → 1"),
    ],
)
def test_other_contents_are_refused_by_name(
    change: str, said: str, stopped: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, own = tmp_path / "run", tmp_path / "pairs.jsonl"
    shutil.copytree(stopped, run)
    shutil.copy(data, own)
    about = json.loads((run / "checkpoint-6" / "manifest.json").read_text())
    prints = about["fingerprints"]
    # As if it had been begun with the copy, and something else than what is there now.
    prints["data"] = {str(own): files.digest(own)}
    prints["settings"]["data"] = str(own)
    if change == "versions":
        prints["versions"]["torch"] = "1.0"
    if change == "processes":
        prints["processes"] = 2
    if change == "model":
        monkeypatch.setattr(fingerprint, "of_weights", lambda model: "0" * 32)
    if change == "template":
        monkeypatch.setattr(fingerprint, "of_tokenizer", lambda tokenizer: "0" * 32)
    if change == "data":
        write(own, generate(Corpus(pairs=32, seed=4)))
    (run / "checkpoint-6" / "manifest.json").write_text(json.dumps(about))
    config = (run / "config.yaml").read_text().replace(str(data), str(own))
    (run / "config.yaml").write_text(config)
    with pytest.raises((UsageError, DataError), match=said):
        train_dpo.run(dataclasses.replace(config_of(data, run), data=own))


@pytest.mark.fault("R11")
def test_a_fingerprint_of_model_files_sees_a_retrained_base_under_adapters(tmp_path: Path) -> None:
    base, adapter = tmp_path / "base", tmp_path / "adapter"
    for folder in (base, adapter):
        folder.mkdir()
    (base / "model.safetensors").write_bytes(b"one")
    (adapter / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": str(base)}))
    before = fingerprint.of_model_files(str(adapter))
    assert fingerprint.of_model_files(str(adapter)) == before
    (base / "model.safetensors").write_bytes(b"two")
    assert fingerprint.of_model_files(str(adapter)) != before


@pytest.mark.fault("D22")
def test_data_that_is_written_while_it_is_read_is_refused(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from headwater.data.reading import reader

    own = tmp_path / "pairs.jsonl"
    shutil.copy(data, own)
    check_as_is = reader.RowReader._check_bad_rows

    def written(self: Any, at_end: bool = False) -> None:
        if at_end:
            with own.open("a") as handle:
                handle.write("\n")
        check_as_is(self, at_end=at_end)

    monkeypatch.setattr(reader.RowReader, "_check_bad_rows", written)
    with pytest.raises(DataError, match=r"pairs\.jsonl · changed while it was read"):
        train_dpo.run(config_of(own, tmp_path / "run"))
    assert not (tmp_path / "run").exists()


# Finished models
@pytest.mark.fault("R4")
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda run: flip(run / "model.safetensors"), "has other bytes than were written"),
        (lambda run: cut(run / "model.safetensors"), r"has \d+ bytes, not \d+"),
        (lambda run: (run / "model.safetensors").unlink(), "is missing"),
        (lambda run: flip(run / "tokenizer.json"), "has other bytes than were written"),
        (lambda run: (run / "done").unlink(), "did not finish"),
    ],
    ids=["flipped", "cut", "missing", "tokenizer", "not done"],
)
def test_a_finished_model_is_what_its_run_wrote(
    damage: Callable[[Path], None], said: str, whole: Path, data: Path, tmp_path: Path
) -> None:
    from headwater.models import finished

    run = tmp_path / "run"
    shutil.copytree(whole, run)
    finished.check(run)
    damage(run)
    with pytest.raises(ModelError, match=said):
        finished.check(run)


@pytest.mark.fault("R4")
def test_trusted_files_are_compared_by_size(
    whole: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    flip(run / "model.safetensors")
    monkeypatch.setenv("HEADWATER_TRUST_FILES", "")
    typed = [
        "evaluate",
        "--model",
        str(run),
        "--dataset",
        str(data),
        "--allow-leakage",
        "--output",
        str(tmp_path / "e"),
    ]
    assert cli.main(typed) == 4
    assert "model.safetensors" in capsys.readouterr().err
    assert cli.main([*typed, "--trust-files"]) == 0
    cut(run / "model.safetensors")
    assert cli.main([*typed, "--trust-files", "--overwrite"]) == 4


@pytest.mark.fault("R5")
def test_a_staged_folder_is_gone_when_filling_it_fails(tmp_path: Path) -> None:
    def fill(staged: Path) -> None:
        (staged / "a").write_text("a")
        raise KilledError

    with pytest.raises(KilledError):
        manifest.commit(tmp_path / "checkpoint-1", fill, {})
    assert not list(tmp_path.iterdir())
    assert OPTIONS.save_steps == 3


@pytest.mark.fault("R11")
def test_scores_of_a_model_that_was_trained_anew_are_not_mixed(
    whole: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The ledger of a stopped command was written by another model under the same name."""
    from headwater.commands import score
    from headwater.evaluation import scoring
    from headwater.rewards.responses import ResponseScorer

    run = tmp_path / "run"
    shutil.copytree(whole, run)
    call_as_is, called = ResponseScorer.__call__, []

    def stopped(self: ResponseScorer, records: Any) -> Any:
        called.append(1)
        if len(called) == 2:
            raise KilledError
        return call_as_is(self, records)

    config = score.Config(input=data, output=tmp_path / "scored.jsonl", model=(str(run),), value="log_prob")
    with monkeypatch.context() as patch:
        patch.setattr(scoring, "WINDOW", 20)
        patch.setattr(ResponseScorer, "__call__", stopped)
        with pytest.raises(KilledError):
            score.run(config)
        shutil.copy(run / "reference" / "model.safetensors", run / "model.safetensors")
        with pytest.raises(UsageError, match=f"was begun with other settings: the content of {run} has changed"):
            score.run(config)
