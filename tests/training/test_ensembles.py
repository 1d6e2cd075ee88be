"""Ensembles: members are ordinary runs on the same pairs, a stopped command goes on, and rewards are averaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headwater import config
from headwater.data import reading
from headwater.data.corpus import Corpus, generate
from headwater.results import runs
from headwater.results.evaluation import Diagnostics
from headwater.rewards.responses import Reading, load_response_scorer
from headwater.training import ensembles
from tests.support.commands import headwater

SMALL = ["--model", "scratch(hidden=32, layers=1, vocab=400)", "--precision", "fp32", "--eval-fraction", "0.25"]
SMALL += ["--per-device-train-batch-size", "16", "--seed", "5"]


def rewards_of(run: Path) -> np.ndarray[Any, Any]:
    rows = sorted(runs.load(run).records(), key=lambda row: row["id"])
    return np.array([(row["chosen_reward"], row["rejected_reward"]) for row in rows])


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("ensemble")
    reading.write(root / "pairs.jsonl", generate(Corpus(pairs=80, seed=6)))
    call = ["train-reward", "--data", root / "pairs.jsonl", *SMALL, "--seeds", 3]
    assert headwater(*call, "--output", root / "three") == 0
    return root


def test_members_are_ordinary_runs_that_hold_out_the_same_pairs(study: Path, tmp_path: Path) -> None:
    run = runs.load(study / "three")
    assert run.facts["members"] == ["member-5", "member-6", "member-7"]
    members = [runs.load(study / "three" / name) for name in run.facts["members"]]
    seen = {(member.path / runs.TRAINED_ON).read_text() for member in members}
    assert seen == {(run.path / runs.TRAINED_ON).read_text()}
    accuracies = [member.metrics["eval_rewards/accuracies"] for member in members]
    assert run.metrics["eval_rewards/accuracies"] == pytest.approx(np.mean(accuracies))
    assert run.metrics["eval_rewards/accuracies_std"] == pytest.approx(np.std(accuracies, ddof=1))
    again = config.read_yaml(members[1].path / "config.yaml")
    assert (again["seeds"], again["seed"], again["split_seed"]) == (1, 6, 5)
    call = ["train-reward", "--config", members[1].path / "config.yaml", "--output", tmp_path / "again"]
    assert headwater(*call) == 0
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (
        members[1].path / "model.safetensors"
    ).read_bytes()


def test_evaluate_and_score_give_mean_and_spread_of_the_members(study: Path, tmp_path: Path) -> None:
    call = ["evaluate", "--dataset", study / "pairs.jsonl", "--model"]
    names = runs.load(study / "three").facts["members"]
    for name in names:
        assert headwater(*call, study / "three" / name, "--output", tmp_path / name) == 0
    assert headwater(*call, study / "three", "--output", tmp_path / "all") == 0
    each = np.stack([rewards_of(tmp_path / name) for name in names])
    assert each.std(axis=0).max() > 1e-3, "members are all alike: nothing tested"
    np.testing.assert_allclose(rewards_of(tmp_path / "all"), each.mean(axis=0), atol=1e-6)
    run = runs.load(tmp_path / "all")
    spread = [row["chosen_reward_std"] for row in sorted(run.records(), key=lambda row: row["id"])]
    np.testing.assert_allclose(spread, each[:, :, 0].std(axis=0, ddof=1), atol=1e-6)
    assert run.metrics["ensemble_std"]["value"] == pytest.approx(each.std(axis=0, ddof=1).mean(), abs=1e-6)
    baselines = Diagnostics.read(tmp_path / "all").baselines
    by_name = {baseline.name: baseline.accuracy for baseline in baselines}
    assert by_name == {name: pytest.approx(runs.load(tmp_path / name).metrics["accuracy"]["value"]) for name in names}

    score = ["score", "--input", study / "pairs.jsonl", "--model", study / "three", "--output", tmp_path / "s.jsonl"]
    assert headwater(*score) == 0
    judge = load_response_scorer(str(study / "three"), None, None, Reading("complete", 2048, 4096), 0)
    rows = list(reading.stream(tmp_path / "s.jsonl"))
    for row, (chosen, rejected) in zip(rows, judge(rows), strict=True):  # type: ignore[arg-type]
        assert (row.chosen.score, row.rejected.score) == pytest.approx((chosen, rejected), abs=1e-5)  # type: ignore[union-attr]
    records = runs.load(tmp_path / "s.jsonl.run").records()
    assert len(records) == 3 * len(rows)
    assert all(record["reward_std"] for record in records)


def test_a_stopped_ensemble_goes_on_with_what_is_missing(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    trained: list[str] = []
    train = ensembles.train

    def counted(member: Any, task: Any) -> Path:
        if len(trained) == 1 and "killed" not in trained:
            trained.append("killed")
            raise KeyboardInterrupt
        trained.append(member.output.name)
        return train(member, task)

    monkeypatch.setattr(ensembles, "train", counted)
    call = ["train-reward", "--data", study / "pairs.jsonl", *SMALL, "--seeds", 2, "--output", tmp_path / "two"]
    assert headwater(*call) == 130
    assert not (tmp_path / "two" / "done").exists()
    assert headwater(*call, "--learning-rate", "0.5") == 2
    assert "already holds a run" in capsys.readouterr().err
    assert headwater(*call) == 0
    assert trained == ["member-5", "killed", "member-6"]
    for name in ("member-5", "member-6"):
        one, other = (root / name / "model.safetensors" for root in (study / "three", tmp_path / "two"))
        assert one.read_bytes() == other.read_bytes()


def test_what_cannot_work_is_refused_and_leaves_nothing(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["train-reward", "--data", tmp_path / "missing.jsonl", *SMALL, "--output", tmp_path / "none"]
    assert headwater(*call, "--seeds", 2) == 2
    assert not (tmp_path / "none").exists()
    assert headwater(*call, "--seeds", 0) == 2
    assert headwater("signal", study / "pairs.jsonl", "--model", study / "three", "--output", tmp_path / "s") == 4
    assert "name one of its members" in capsys.readouterr().err
