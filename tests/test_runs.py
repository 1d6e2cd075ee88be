from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from headwater import files
from headwater.errors import ResourceError, UsageError
from headwater.results import runs
from headwater.statistics import Estimate


@dataclass(frozen=True)
class Config:
    size: int = 3


def finished(path: Path) -> Path:
    writer = runs.start(path, "test", Config(), facts={"keep": 0.5})
    writer.count("read", 5, 3, {"empty_response": 2})
    writer.log({"step": 1, "loss": float("nan")})
    writer.write_metrics({"accuracy": Estimate(0.5, 0.4, 0.6, 10, 9), "pairs": 3})
    writer.write_records([{"id": "a", "chosen_reward": 1.5}])
    return writer.finish()


def test_a_run_reads_back_as_it_was_written(tmp_path: Path) -> None:
    run = runs.load(finished(tmp_path / "r"))
    assert (run.command, run.config, run.facts) == ("test", {"size": 3}, {"keep": 0.5})
    assert run.row_counts == [
        {"stage": "read", "rows_in": 5, "kept": 3, "quarantined": 0, "dropped": {"empty_response": 2}}
    ]
    assert run.metrics["accuracy"] == {"value": 0.5, "low": 0.4, "high": 0.6, "n": 10, "clusters": 9}
    assert run.history == [{"step": 1, "loss": None}]
    assert run.records() == [{"id": "a", "chosen_reward": 1.5}]
    assert "torch" in run.environment["versions"]


def test_the_manifest_holds_every_file_and_its_hash(tmp_path: Path) -> None:
    path = finished(tmp_path / "r")
    manifest = json.loads((path / "manifest.json").read_text())
    assert set(manifest) == {p.name for p in path.iterdir()} - {"manifest.json", "done"}
    assert manifest["config.yaml"]["sha256"] == files.sha256(path / "config.yaml")


def test_a_run_without_its_done_marker_is_refused(tmp_path: Path) -> None:
    path = finished(tmp_path / "r")
    (path / "done").unlink()
    with pytest.raises(UsageError, match="did not finish"):
        runs.load(path)
    with pytest.raises(UsageError, match="not a run directory"):
        runs.load(tmp_path)


def test_an_account_that_does_not_balance_is_a_bug(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="5 rows in"):
        runs.start(tmp_path / "r", "test", Config()).count("read", 5, 3, {"empty": 1})


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "a.txt"
    files.write_text(target, "old")

    def fail(path: Path) -> None:
        path.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(ResourceError, match=r"no room to write it: .*No space"):
        files.write_atomically(target, fail)
    assert [p.name for p in tmp_path.iterdir()] == ["a.txt"]
    assert target.read_text() == "old"


def test_an_output_that_is_taken_is_refused(tmp_path: Path) -> None:
    path = finished(tmp_path / "r")
    with pytest.raises(UsageError, match="--overwrite"):
        runs.check_free(path, overwrite=False)
    runs.check_free(path, overwrite=True)
    other = tmp_path / "photos"
    other.mkdir()
    (other / "me.png").touch()
    with pytest.raises(UsageError, match="not a run"):
        runs.check_free(other, overwrite=True)
    with pytest.raises(UsageError, match="is a file"):
        runs.check_free(other / "me.png", overwrite=True)


def test_facts_are_found_beside_a_data_file(tmp_path: Path) -> None:
    data = tmp_path / "cut.jsonl"
    finished(runs.beside(data))
    assert runs.facts_of(data) == {"keep": 0.5}
    assert runs.facts_of(tmp_path / "other.jsonl") == {}
