"""Losses that want more than two scores, from the command line to a finished run."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch

from headwater.commands import evaluate, score, train_dpo
from headwater.commands.train_dpo import Config
from headwater.data import reading
from headwater.data.corpus import Corpus, generate
from headwater.data.tokens import tokenize
from headwater.data.writing import write
from headwater.errors import DataError, UsageError
from headwater.models import loading
from headwater.results import runs
from headwater.training.options import TrainingOptions
from headwater.training.order import Shares

MODEL = "scratch(hidden=64, layers=2, vocab=600)"
OPTIONS = TrainingOptions(
    precision="fp32", num_train_epochs=4, per_device_train_batch_size=8, learning_rate=2e-3, logging_steps=1
)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("data") / "pairs.jsonl"
    write(path, generate(Corpus(pairs=80, seed=4)))
    return path


def history(run: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (run / "history.jsonl").read_text().splitlines()]


@pytest.mark.parametrize("loss", ["kto(beta=0.1)", "tdpo2(beta=0.1, alpha=0.5)"])
def test_a_live_reference_trains_from_the_command(loss: str, data: Path, tmp_path: Path) -> None:
    run = train_dpo.run(Config(data=data, output=tmp_path / "run", model=MODEL, loss=loss, training=OPTIONS))
    rows = [row for row in history(run) if "loss" in row]
    # A policy at its reference: KTO's σ(0) = ½ on either side, TDPO's −log σ(0).
    assert rows[0]["loss"] == pytest.approx(0.5 if "kto" in loss else math.log(2), abs=1e-4)
    last = rows[-8:]
    assert sum(row["rewards/accuracies"] for row in last) / len(last) > 0.8
    assert "eval_loss" in json.loads((run / "metrics.json").read_text())
    assert json.loads((run / "facts.json").read_text())["kind"] == loss.partition("(")[0]


def test_kto_in_batches_of_one_is_refused(data: Path, tmp_path: Path) -> None:
    options = TrainingOptions(per_device_train_batch_size=1)
    with pytest.raises(UsageError, match="--per-device-train-batch-size 1"):
        train_dpo.run(Config(data=data, output=tmp_path / "run", model=MODEL, loss="kto()", training=options))
    assert not (tmp_path / "run").exists()


def test_a_loss_of_scores_is_refused_before_a_run_is_started(data: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="pairs have no score of both responses"):
        train_dpo.run(Config(data=data, output=tmp_path / "run", model=MODEL, loss="rpo_sq()", training=OPTIONS))
    assert not (tmp_path / "run").exists()


def test_a_policy_without_a_reference_is_judged_by_the_rewards_of_its_loss(data: Path, tmp_path: Path) -> None:
    loss = "simpo(beta=2.0, gamma=1.0)"
    run = train_dpo.run(Config(data=data, output=tmp_path / "run", model=MODEL, loss=loss, training=OPTIONS))
    judged = evaluate.run(evaluate.Config(model=str(run), dataset=data, output=tmp_path / "judged", allow_leakage=True))
    record = runs.load(judged).records()[0]
    model, tokenizer = loading.load(str(run), "policy", (), 0)
    preference = next(row for row in reading.load(data).preferences if row.id == record["id"])
    (pair,) = tokenize([preference], tokenizer, 2048).pairs
    for response, reward in ((pair.chosen, "chosen_reward"), (pair.rejected, "rejected_reward")):
        ids = torch.tensor([[*pair.prompt, *response]])
        with torch.no_grad():
            by_token = model(input_ids=ids).logits.double().log_softmax(-1)[0, :-1].gather(1, ids[0, 1:, None])
        assert record[reward] == pytest.approx(2.0 * by_token[len(pair.prompt) - 1 :].mean().item(), abs=1e-4)
    scored = score.run(score.Config(input=data, output=tmp_path / "scored.jsonl", model=(str(run),)))
    row = next(row for row in reading.load(scored).preferences if row.id == record["id"])
    assert row.chosen.score == pytest.approx(record["chosen_reward"], abs=1e-5)
    assert row.rejected.score == pytest.approx(record["rejected_reward"], abs=1e-5)
    with pytest.raises(UsageError, match="is a policy without a known reference"):
        evaluate.run(evaluate.Config(model=str(run), dataset=data, output=tmp_path / "other", beta=0.5))


def test_a_last_batch_of_one_row_goes_with_the_batch_before() -> None:
    assert [len(part) for part in Shares(9, 4, 0, least=2)] == [4, 5]
    assert [len(part) for part in Shares(9, 4, 0)] == [4, 4, 1]
    assert [len(part) for part in Shares(10, 2, 0, 0, 2, least=2)] == [2, 3]
