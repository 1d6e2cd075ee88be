"""`headwater evaluate` on reward models: length bias, calibration, baselines, corrections, the rows it gets wrong."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from headwater import cli
from headwater.data import reading
from headwater.data.corpus import Corpus, generate
from headwater.results import runs
from headwater.results.evaluation import Diagnostics
from tests.support.commands import succeed

MODEL = "scratch(hidden=32, layers=1, vocab=400)"
QUICK = ["--per-device-train-batch-size", "16", "--precision", "fp32", "--eval-fraction", "0.25"]


def diagnostics(run: Path) -> Diagnostics:
    return Diagnostics.read(run)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("evaluate")
    reading.write(root / "train.jsonl", generate(Corpus(pairs=500, seed=2)))
    reading.write(root / "test.jsonl", generate(Corpus(pairs=200, seed=3)))
    for name, epochs in (("rm", 4), ("weak", 0.1)):
        call = ["--data", root / "train.jsonl", "--output", root / name, "--model", MODEL, *QUICK]
        succeed("train-reward", *call, "--num-train-epochs", epochs)
    judge = ["evaluate", "--allow-leakage", "--dataset"]
    succeed(*judge, root / "test.jsonl", "--model", root / "weak", "--output", root / "weak-eval")
    succeed(*judge, root / "train.jsonl", "--model", root / "rm", "--output", root / "rm-on-train")
    baselines = ["--against", root / "weak-eval", "--untrained"]
    succeed(*judge, root / "test.jsonl", "--model", root / "rm", "--output", root / "rm-eval", *baselines)
    return root


def test_every_group_holds_every_pair_once(study: Path) -> None:
    found, records = diagnostics(study / "rm-eval"), runs.load(study / "rm-eval").records()
    for groups in (found.by_length_difference, found.by_margin, found.reliability):
        assert sum(group.accuracy.n for group in groups) == len(records)
        assert len(groups) > 1
    assert sum(each.n for each in found.preferred_is.values()) == len(records)
    shorter = [r["chosen_reward"] > r["rejected_reward"] for r in records if r["chosen_tokens"] < r["rejected_tokens"]]
    assert found.preferred_is["shorter"].value == pytest.approx(np.mean(shorter))


def test_baselines_are_compared_on_the_same_pairs(study: Path) -> None:
    baselines = {baseline.name: baseline for baseline in diagnostics(study / "rm-eval").baselines}
    mine, theirs = (runs.load(study / name).metrics["accuracy"]["value"] for name in ("rm-eval", "weak-eval"))
    weak, untrained = baselines[str(study / "weak-eval")], baselines["untrained"]
    assert weak.difference.value == pytest.approx(mine - theirs)
    assert weak.accuracy == pytest.approx(theirs)
    for baseline in (weak, untrained):
        value, low, high, pairs, _ = baseline.difference
        assert (baseline.only_first - baseline.only_second) / pairs == pytest.approx(value)
        assert low is not None and high is not None
        assert low < value < high
    assert untrained.difference.low is not None and untrained.difference.low > 0
    records = runs.load(study / "rm-eval").records()
    before = np.mean([row["chosen_reward_untrained"] > row["rejected_reward_untrained"] for row in records])
    assert untrained.accuracy == pytest.approx(before)
    assert untrained.p_value < 0.01


def test_an_untrained_model_is_evaluated_as_any_other(study: Path) -> None:
    """It is the model that `--untrained` compares with, on rows that the trained one has not seen."""
    name, data = f"untrained({study / 'rm'})", ["--dataset", study / "test.jsonl", "--output", study / "before"]
    succeed("evaluate", "--allow-leakage", "--model", name, *data)
    before, after = runs.load(study / "before"), runs.load(study / "rm-eval")
    baselines = {baseline.name: baseline for baseline in diagnostics(study / "rm-eval").baselines}
    assert before.metrics["accuracy"]["value"] == pytest.approx(baselines["untrained"].accuracy)
    for figure in ("mean", "std"):
        found = before.metrics[f"reward_{figure}"]["value"]
        assert found == pytest.approx(after.metrics[f"untrained_reward_{figure}"]["value"], abs=1e-6)
    assert after.metrics["reward_std"]["value"] > 2 * before.metrics["reward_std"]["value"]
    assert before.facts["kind"] == "reward model, untrained", "no point of the curve of trained models"
    assert runs.trained_on(Path(name)) == runs.trained_on(study / "rm") != frozenset()


def test_an_untrained_policy_is_its_reference(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    reading.write(tmp_path / "few.jsonl", generate(Corpus(pairs=20, seed=2)))
    call = ["--data", tmp_path / "few.jsonl", "--output", tmp_path / "sft", "--model", MODEL, *QUICK]
    succeed("train-sft", *call, "--num-train-epochs", 0.1)
    name = f"untrained({tmp_path / 'sft'})"
    arguments = ["evaluate", "--model", name, "--dataset", tmp_path / "few.jsonl", "--output", tmp_path / "e"]
    assert cli.main([str(each) for each in arguments]) == 4
    assert "is of a policy: its reference is what it was before" in capsys.readouterr().err


def test_the_worst_and_the_closest_rows_are_shown_with_their_texts(study: Path) -> None:
    examples, records = diagnostics(study / "rm-eval").examples, runs.load(study / "rm-eval").records()
    by_id = {preference.id: preference for preference in reading.load(study / "test.jsonl").preferences}
    margins = sorted(record["chosen_reward"] - record["rejected_reward"] for record in records)
    assert [example.margin for example in examples.wrong] == [m for m in margins if m < 0][:5]
    assert examples.wrong
    assert [abs(e.margin) for e in examples.close] == sorted(map(abs, margins))[:5]
    for example in examples.wrong + examples.close:
        assert example.chosen.text == by_id[example.id].chosen.text
        assert example.chosen.reward - example.rejected.reward == pytest.approx(example.margin)


def test_a_correction_is_fitted_on_training_pairs_and_shown_before_and_after(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["evaluate", "--model", study / "rm", "--dataset", study / "test.jsonl", "--allow-leakage"]
    succeed(*call, "--output", tmp_path / "r", "--correct", f"regress(on='{study / 'rm-on-train'}')")
    assert "before" in capsys.readouterr().out
    plain = {record["id"]: record for record in runs.load(study / "rm-eval").records()}
    after = runs.load(tmp_path / "r").records()
    gained = np.array([r["chosen_reward"] - plain[r["id"]]["chosen_reward"] for r in after])
    tokens = np.array([r["chosen_tokens"] for r in after])
    assert np.ptp(gained / tokens) == pytest.approx(0, abs=1e-9), "a line through 0 in length"
    assert abs(gained).max() > 1e-3
    found = diagnostics(tmp_path / "r").corrected
    assert found is not None
    assert found["accuracy"].before.value == runs.load(study / "rm-eval").metrics["accuracy"]["value"]
    assert found["accuracy"].after.value == runs.load(tmp_path / "r").metrics["accuracy"]["value"]
    succeed(*call, "--output", tmp_path / "d", "--correct", "divide(alpha=50)")
    record = runs.load(tmp_path / "d").records()[0]
    before = plain[record["id"]]
    assert record["chosen_reward"] == pytest.approx(before["chosen_reward"] / (50 + before["chosen_tokens"]))


def test_what_cannot_be_compared_or_corrected_is_refused(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["evaluate", "--model", str(study / "rm"), "--dataset", str(study / "test.jsonl"), "--allow-leakage"]
    for flags, message in (
        (["--against", study / "rm-on-train"], "did not judge"),
        (["--against", study / "rm"], "recorded no rewards"),
        (["--correct", f"regress(on='{study / 'weak-eval'}')"], "holds the rewards of"),
        (["--correct", f"regress(on='{study / 'rm'}')"], "recorded no rewards"),
        (["--correct", "divide(alpha=-1)"], "0 or more"),
        (["--correct", "shorten(by=1)"], "unknown correction"),
    ):
        assert cli.main([*call, "--output", str(tmp_path / "e"), *map(str, flags)]) == 2
        assert message in capsys.readouterr().err
        assert not (tmp_path / "e").exists()


def test_llmbar_evaluates(study: Path, shared_data: Path, tmp_path: Path) -> None:
    """All five parts of LLMBar, 419 pairs; a model of a planted corpus knows nothing of them."""
    data = shared_data / "llmbar" / "*.json"
    succeed("evaluate", "--model", study / "rm", "--dataset", data, "--output", tmp_path / "llmbar")
    run = runs.load(tmp_path / "llmbar")
    assert run.row_counts[0]["rows_in"] == 419
    assert run.metrics["accuracy"]["n"] + sum(sum(stage["dropped"].values()) for stage in run.row_counts) == 419
    assert run.metrics["accuracy"]["n"] > 380
    assert 0.3 < run.metrics["accuracy"]["value"] < 0.7


def test_hidden_states_are_laid_out_for_the_report(study: Path, tmp_path: Path) -> None:
    call = ["evaluate", "--model", study / "rm", "--dataset", study / "test.jsonl", "--allow-leakage"]
    succeed(*call, "--output", tmp_path / "r", "--embed", 30)
    found = json.loads((tmp_path / "r" / "embedding.json").read_text())
    assert found["pairs"] == 30 and found["of"] == "last hidden states, 32 numbers"
    rewards = {record["id"]: record for record in runs.load(tmp_path / "r").records()}
    first = np.array([point["pca"][0] for point in found["points"]])
    reward = np.array([rewards[point["id"]][f"{point['side']}_reward"] for point in found["points"]])
    # A reward is a projection of the very state that is laid out; what varies most in a trained model is what it says.
    assert abs(np.corrcoef(first, reward)[0, 1]) > 0.5
