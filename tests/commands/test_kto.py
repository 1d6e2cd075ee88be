"""KTO on labelled rows, from the command line to a finished run, and what such rows cannot be used for."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater.cli import main
from headwater.commands import preprocess, train_dpo
from headwater.commands.train_dpo import Config
from headwater.data import reading
from headwater.data.corpus import Corpus, generate
from headwater.data.preference import Unpaired
from headwater.data.truncation_options import TruncationOptions
from headwater.results import runs
from headwater.training.options import TrainingOptions
from tests.data.test_unpaired import labelled

MODEL = "scratch(hidden=64, layers=1, vocab=600)"
OPTIONS = TrainingOptions(
    precision="fp32", per_device_train_batch_size=16, learning_rate=4e-3, logging_steps=1, eval_fraction=0.2
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Labelled rows, every third bad one left out; and pairs, on other prompts for the most part."""
    root = tmp_path_factory.mktemp("kto")
    pairs = generate(Corpus(pairs=460, seed=4, flip=0.0))
    rows = [row for number, row in enumerate(labelled(pairs[:400])) if row.label or number % 3]
    reading.write(root / "labelled.jsonl", rows)
    reading.write(root / "few.jsonl", rows[::8])
    reading.write(root / "pairs.jsonl", pairs[400:])
    return root


@pytest.fixture(scope="module")
def trained(data: Path) -> Path:
    """Thirty steps or a few more on the beginnings of the responses, which hold all that tells."""
    config = Config(
        data=data / "labelled.jsonl",
        output=data / "run",
        model=MODEL,
        loss="kto(beta=0.1, undesirable_weight=1.2)",
        truncation=TruncationOptions(keep="30%"),
        training=OPTIONS,
    )
    return train_dpo.run(config)


def test_labelled_rows_train_from_the_command(trained: Path) -> None:
    run = runs.load(trained)
    steps = [row for row in run.history if "loss" in row]
    assert 30 <= len(steps) <= 50
    assert steps[0]["loss"] == pytest.approx((1 + 1.2) / 4, abs=0.05), "σ(0) = ½ of either label, by its weight"
    separation = [row["eval_rewards/auc"] for row in run.history if "eval_rewards/auc" in row]
    assert separation[-1] == run.metrics["eval_rewards/auc"] > 0.7
    assert run.metrics["eval_rewards/margins"] > 0
    assert not any("rewards/accuracies" in name for row in run.history for name in row), "there are no pairs"
    assert run.facts["kind"] == "kto"
    assert (run.facts["keep"], run.facts["layout"]) == (0.3, "shared")


def test_every_label_is_counted(trained: Path, data: Path) -> None:
    run, rows = runs.load(trained), reading.load_examples(data / "labelled.jsonl").preferences
    desirable, undesirable = run.facts["desirable"], run.facts["undesirable"]
    assert run.metrics["train_rows"] == desirable + undesirable
    assert run.metrics["train_desirable"] == desirable
    assert run.metrics["train_rows"] + run.metrics["held_out_rows"] == len(rows)
    assert run.metrics["held_out_desirable"] > 0
    assert run.facts["label_balance"] == pytest.approx(desirable / (1.2 * undesirable))
    held_out = run.metrics["held_out_rows"], run.metrics["held_out_desirable"]
    card = (trained / "README.md").read_text()
    assert "On {} responses ({} desirable) held out".format(*held_out) in card
    assert "`headwater evaluate` gives its interval" in card


def test_the_imbalance_of_labels_is_said_with_the_weight_that_mends_it(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    options = ["--per-device-train-batch-size", "100", "--precision", "fp32", "--loss", "kto()"]
    command = ["train-dpo", "--data", str(data / "few.jsonl"), "--output", str(tmp_path / "run"), *options]
    assert main([*command, "--model", "scratch(hidden=32, layers=1)"]) == 0
    facts = runs.load(tmp_path / "run").facts
    weight = facts["desirable"] / facts["undesirable"]
    said = capsys.readouterr().err
    assert f"labels: {facts['desirable']} desirable, {facts['undesirable']} undesirable" in said
    assert f"1 to 1.33 is advised: undesirable_weight={weight:.3g} makes it 1" in said


def test_a_model_trained_on_labels_is_judged_on_pairs(trained: Path, data: Path, tmp_path: Path) -> None:
    command = ["evaluate", "--model", str(trained), "--dataset", str(data / "pairs.jsonl")]
    assert main([*command, "--output", str(tmp_path / "judged")]) == 0
    accuracy = runs.load(tmp_path / "judged").metrics["accuracy"]
    assert accuracy["low"] > 0.5
    command = ["score", "--model", str(trained), "--input", str(data / "pairs.jsonl")]
    assert main([*command, "--output", str(tmp_path / "scored.jsonl")]) == 0
    scored = {row.id: row for row in reading.load(tmp_path / "scored.jsonl").preferences}
    for record in runs.load(tmp_path / "judged").records():
        row = scored[record["id"]]
        assert record["chosen_reward"] == pytest.approx(row.chosen.score, rel=1e-6)
        assert record["rejected_reward"] == pytest.approx(row.rejected.score, rel=1e-6)


def test_pairs_can_be_held_out_of_a_training_on_labels(data: Path, tmp_path: Path) -> None:
    options = TrainingOptions(
        eval_data=data / "pairs.jsonl", leakage="drop", precision="fp32", per_device_train_batch_size=64
    )
    model = "scratch(hidden=32, layers=1)"
    config = Config(data=data / "few.jsonl", output=tmp_path / "r", model=model, loss="kto()", training=options)
    metrics = runs.load(train_dpo.run(config)).metrics
    assert "eval_rewards/accuracies" in metrics
    assert metrics["held_out_pairs"] == 60


REFUSED = {
    "a loss of pairs": (
        ["train-dpo", "--loss", "dpo(beta=0.1)"],
        "--loss dpo(beta=0.1, label_smoothing=0.0) · compares",
    ),
    "rewards": (["train-reward"], 'headwater train-dpo --loss "kto()" takes such rows'),
    "tail": (["train-dpo", "--loss", "kto()", "--weights", "tail(alpha=0.5)"], "--weights tail · weighs"),
    "down_sample": (["train-dpo", "--loss", "kto()", "--weights", "down_sample()"], "use first, decay or mean"),
    "equal": (["train-dpo", "--loss", "kto()", "--cut", "equal"], "--cut equal · labelled rows have one response"),
    "one": (["train-dpo", "--loss", "kto()", "--per-device-train-batch-size", "1"], "needs responses to other prompts"),
    "held out": (
        ["train-dpo", "--loss", "dpo()", "--eval-data", "LABELLED", "--leakage", "drop"],
        "compares two responses",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_compares_two_responses_is_refused(
    case: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags, said = REFUSED[case]
    flags = [flag.replace("LABELLED", str(data / "labelled.jsonl")) for flag in flags]
    source = data / ("pairs.jsonl" if case == "held out" else "labelled.jsonl")
    output = tmp_path / "run"
    assert (
        main([*flags, "--data", str(source), "--output", str(output), "--model", "scratch(hidden=32, layers=1)"]) == 2
    )
    assert said in capsys.readouterr().err
    assert not output.exists()


def test_labelled_rows_are_cut_on_disk_as_on_the_fly(data: Path, trained: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.jsonl"
    config = preprocess.Config(input=data / "labelled.jsonl", output=cut, keep="50%", tokenizer=str(trained))
    preprocess.run(config)
    rows = reading.load_examples(cut).preferences
    whole = reading.load_examples(data / "labelled.jsonl").preferences
    assert all(isinstance(row, Unpaired) and not row.response.complete for row in rows)
    for row, other in zip(rows, whole, strict=True):
        assert (row.id, row.sides, row.prompt) == (other.id, other.sides, other.prompt)
        assert other.responses[0].text.startswith(row.responses[0].text)
    metrics = runs.load(tmp_path / "cut.jsonl.run").metrics
    assert (metrics["desirable"], metrics["desirable"] + metrics["undesirable"]) == (400, len(rows))
    assert metrics["tokens_after"] == pytest.approx(metrics["tokens_before"] / 2, rel=0.02)
    assert "longer_won_before" not in metrics
    again = Config(
        data=cut, output=tmp_path / "run", model=str(trained), loss="kto(beta=0.1)", overwrite=True,
        training=TrainingOptions(precision="fp32", per_device_train_batch_size=100),
    )  # fmt: skip
    assert runs.load(train_dpo.run(again)).facts["keep"] == 0.5


def test_a_cut_by_the_other_response_is_refused_on_disk(data: Path, tmp_path: Path) -> None:
    command = ["preprocess", "--input", str(data / "labelled.jsonl"), "--output", str(tmp_path / "cut.jsonl")]
    assert main([*command, "--keep", "50%", "--cut", "equal"]) == 2
    assert not (tmp_path / "cut.jsonl").exists()
