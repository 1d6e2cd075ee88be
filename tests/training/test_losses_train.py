"""Every loss trains: thirty steps on the planted corpus raise held-out accuracy, from one small scratch model."""

from __future__ import annotations

import copy
import dataclasses
import json
import re
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

from headwater.cli import main
from headwater.data import reading
from headwater.data.corpus import Corpus, generate
from headwater.data.preference import Preference, Response
from headwater.data.tokens import PairTokens, tokenize
from headwater.forward.format_check import row_format_for
from headwater.forward.packing import RowFormat, collate
from headwater.forward.passes import with_reference
from headwater.forward.scores import (
    ScoreFunction,
    divergence_scores,
    policy_scores,
    reference_scores,
    reward_scores,
    score_for,
)
from headwater.losses import (
    AOT,
    CPO,
    DPO,
    KTO,
    LIVE_REFERENCE_LOSSES,
    ORPO,
    POLICY_LOSSES,
    REWARD_LOSSES,
    AOTUnpaired,
    LossBase,
    SimPO,
    SLiC,
)
from headwater.models import loading
from headwater.results import runs
from headwater.training.arguments import arguments_for
from headwater.training.kl_estimate import KLEstimate
from headwater.training.options import TrainingOptions
from headwater.training.trainer import PairTrainer

STEPS = 30
HELD_OUT = 200
GAIN = 0.1
"""Two standard errors of a difference of two accuracies near one half, each on 200 pairs."""
WORDS = 24
"""Words of a response that are kept: all the evidence of the planted corpus and little else."""
LOUDER = {"orpo": ORPO(beta=1.0), "cpo": CPO(alpha=0.1), "slic": SLiC(alpha=0.01)}
"""In a scratch model the likelihood of the chosen response drowns the preference for the first thirty steps."""


class Start(NamedTuple):
    """Where every loss begins: a scratch model, and pairs with its log-probabilities as the reference."""

    model: torch.nn.Module
    pairs: list[PairTokens]
    row_format: RowFormat


def corpus() -> list[Preference]:
    """Pairs whose labels never contradict the evidence, with scores; openings of responses only."""

    def opening(response: Response, score: float) -> Response:
        return Response(" ".join(response.text.split()[:WORDS]), score)

    drawn = generate(Corpus(pairs=500 + HELD_OUT, seed=1, flip=0.0))
    return [dataclasses.replace(p, chosen=opening(p.chosen, 4.0), rejected=opening(p.rejected, 3.0)) for p in drawn]


def start(head: loading.Head, score: ScoreFunction) -> Start:
    preferences = corpus()
    model, tokenizer = loading.load("scratch(hidden=64, layers=1, vocab=800)", head, preferences, seed=0)
    pairs = tokenize(preferences, tokenizer, 512).pairs
    return Start(model, pairs, row_format_for(model, pairs))


@pytest.fixture(scope="module")
def policy() -> Start:
    model, pairs, row_format = start("policy", policy_scores)
    return Start(model, with_reference(model, pairs, 8192, row_format), row_format)


@pytest.fixture(scope="module")
def reward_model() -> Start:
    return start("reward", reward_scores)


def accuracies(
    begin: Start, score: ScoreFunction, loss: Any, tmp_path: Path, figure: str = "accuracies", **others: Any
) -> tuple[float, float]:
    """Train a copy of the model and return its held-out accuracy (or another figure of rewards) before and after."""
    options = TrainingOptions(learning_rate=3e-3, precision="fp32", warmup_ratio=0.0, per_device_train_batch_size=8)
    arguments = arguments_for(options, str(tmp_path))
    arguments.max_steps = STEPS
    train, held_out = begin.pairs[:-HELD_OUT], begin.pairs[-HELD_OUT:]
    model = copy.deepcopy(begin.model)
    trainer = PairTrainer(model, score, loss, arguments, train, held_out, begin.row_format, lambda row: None, **others)
    before = trainer.evaluate()[f"eval_rewards/{figure}"]
    trainer.train()
    return before, trainer.evaluate()[f"eval_rewards/{figure}"]


@pytest.mark.parametrize("make", POLICY_LOSSES.values(), ids=POLICY_LOSSES)
def test_a_policy_learns(make: type[LossBase], policy: Start, tmp_path: Path) -> None:
    loss = LOUDER.get(make.name) or make()
    before, after = accuracies(policy, score_for(loss), loss, tmp_path)
    assert after > before + GAIN


@pytest.mark.parametrize("name", [name for name, loss in LIVE_REFERENCE_LOSSES.items() if "divergence" in loss.needs])
def test_a_policy_learns_with_its_reference_at_hand(name: str, policy: Start, tmp_path: Path) -> None:
    reference = copy.deepcopy(policy.model).requires_grad_(False)
    before, after = accuracies(policy, divergence_scores(reference), LIVE_REFERENCE_LOSSES[name](), tmp_path)
    assert after > before + GAIN


def one_side(pair: PairTokens, label: bool) -> PairTokens:
    """Keep one response of a pair, as a row of labelled responses has it."""
    assert pair.chosen_reference is not None
    assert pair.rejected_reference is not None
    if label:
        return pair._replace(rejected=pair.rejected[:0], rejected_reference=pair.rejected_reference[:0])
    return pair._replace(chosen=pair.chosen[:0], chosen_reference=pair.chosen_reference[:0])


@pytest.mark.parametrize("rows", ["pairs", "labelled responses"])
def test_a_policy_learns_by_kto(rows: str, policy: Start, tmp_path: Path) -> None:
    pairs, figure = policy.pairs, "accuracies"
    if rows == "labelled responses":
        pairs, figure = [one_side(pair, label=index % 2 == 0) for index, pair in enumerate(pairs)], "auc"
    kl_estimate = KLEstimate(copy.deepcopy(policy.model).requires_grad_(False), 512)
    before, after = accuracies(
        policy._replace(pairs=pairs), policy_scores, KTO(), tmp_path, figure, kl_estimate=kl_estimate
    )
    assert after > before + GAIN


@pytest.mark.parametrize("make", REWARD_LOSSES.values(), ids=REWARD_LOSSES)
def test_a_reward_model_learns(make: type[LossBase], reward_model: Start, tmp_path: Path) -> None:
    before, after = accuracies(reward_model, reward_scores, make(), tmp_path)
    assert after > before + GAIN


def test_the_notebook_of_the_documentation_trains_a_loss_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "losses.md").read_text(encoding="utf-8")
    own, notebook = re.findall(r"```python\n(.*?)```", text, flags=re.DOTALL)
    assert len([line for line in own.splitlines() if line]) <= 6
    reading.write(tmp_path / "pairs.jsonl", corpus()[:500])
    monkeypatch.chdir(tmp_path)
    names: dict[str, Any] = {}
    exec(own, names)
    found = runs.load(tmp_path / "runs" / "exponential")
    assert found.config["loss"] == "in memory: exponential"
    assert found.metrics["eval_rewards/accuracies"] > 0.5 + GAIN
    exec(notebook, names)
    assert names["trainer"].last_evaluation["eval_rewards/accuracies"] > 0.5 + GAIN


@pytest.mark.parametrize(
    "call", ["simpo(beta=2.0, gamma=1.0)", "wpo(beta=0.2)", "mix(dpo()*0.8 + sft())", "aot(beta=0.2)"]
)
def test_train_dpo_takes_the_call(call: str, tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    reading.write(data, corpus()[:60])
    command = ["train-dpo", "--data", str(data), "--output", str(tmp_path / "run"), "--loss", call]
    assert main([*command, "--model", "scratch(hidden=32, layers=1, vocab=300)"]) == 0
    run = runs.load(tmp_path / "run")
    assert run.config["loss"] == call
    assert run.facts["kind"] == call.split("(")[0], "policies of two losses are not one curve in a report"
    assert run.history[-1]["rewards/margins"] != run.history[0]["rewards/margins"]


def test_a_margin_that_the_loss_does_not_use_is_said_and_recorded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "pairs.jsonl"
    rows = [
        {"prompt": f"What is {i} and {i}?", "chosen": f"It is {2 * i}.", "rejected": f"It is {i}.", "margin": 0.5 + i}
        for i in range(1, 41)
    ]
    data.write_text("".join(f"{json.dumps(row)}\n" for row in rows), encoding="utf-8")
    for loss, notes in (("dpo()", {"margin not used by dpo(beta=0.1, label_smoothing=0.0)": 40}), ("rpo_sq()", {})):
        output = tmp_path / loss[:3]
        command = ["train-dpo", "--data", str(data), "--output", str(output), "--loss", loss]
        assert main([*command, "--model", "scratch(hidden=32, layers=1, vocab=300)"]) == 0
        assert runs.load(output).facts["notes"] == notes
        assert ("margin not used by dpo" in capsys.readouterr().err) == bool(notes)


@pytest.mark.parametrize("make", [AOT, AOTUnpaired])
def test_a_loss_of_the_sorted_batch_does_not_depend_on_the_passes(
    make: type[LossBase], policy: Start, tmp_path: Path
) -> None:
    """Rows of the history, in one pass a batch and in several: they differ by rounding."""
    histories = []
    for max_tokens in (100_000, 200):
        rows: list[dict[str, Any]] = []
        options = TrainingOptions(learning_rate=3e-3, precision="fp32", warmup_ratio=0.0, logging_steps=1)
        arguments = arguments_for(options, str(tmp_path / str(max_tokens)))
        arguments.max_steps = 3
        model, (train, held_out) = copy.deepcopy(policy.model), (policy.pairs[:60], policy.pairs[-40:])
        trainer = PairTrainer(
            model, policy_scores, make(beta=2.0), arguments, train, held_out, policy.row_format, rows.append,
            max_tokens=max_tokens,
        )  # fmt: skip
        trainer.train()
        trainer.evaluate()
        histories.append([row[name] for row in rows for name in ("loss", "grad_norm", "eval_loss") if name in row])
    assert len(histories[0]) >= 7
    assert histories[0] == pytest.approx(histories[1], rel=1e-4)


def test_data_without_scores_is_refused_where_a_loss_needs_them(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = tmp_path / "pairs.jsonl"
    reading.write(data, generate(Corpus(pairs=20)))
    command = ["train-dpo", "--data", str(data), "--output", str(tmp_path / "run"), "--loss", "rpo_sq"]
    assert main([*command, "--model", "scratch(hidden=32, layers=1, vocab=300)"]) == 3
    assert "pairs have no score of both responses" in capsys.readouterr().err
    assert not (tmp_path / "run").exists(), "refused before a run is started"


@pytest.mark.parametrize("loss", [DPO(), SimPO()], ids=repr)
def test_history_holds_the_change_of_the_chosen_log_probability_against_a_reference(
    loss: LossBase, policy: Start, tmp_path: Path
) -> None:
    rows: list[dict[str, Any]] = []
    options = TrainingOptions(learning_rate=3e-3, precision="fp32", warmup_ratio=0.0, logging_steps=1)
    arguments = arguments_for(options, str(tmp_path))
    arguments.max_steps = 3
    pairs = policy.pairs
    if not loss.needs_reference:
        pairs = [pair._replace(chosen_reference=None, rejected_reference=None) for pair in pairs]
    model, held_out = copy.deepcopy(policy.model), pairs[-20:]
    PairTrainer(model, policy_scores, loss, arguments, pairs[:40], held_out, policy.row_format, rows.append).train()
    trainer_rows = [row for row in rows if "loss" in row]
    if not loss.needs_reference:
        assert not any("logps/chosen_change" in row for row in trainer_rows)
        return
    assert trainer_rows[0]["logps/chosen_change"] == pytest.approx(0, abs=1e-3), "nothing before the first step"
    batch = collate(held_out, policy.row_format)
    reference = reference_scores(batch)
    assert reference is not None
    with torch.no_grad():
        change = (policy_scores(model, batch).chosen.value - reference.chosen.value).mean().item()
    (found,) = (row["eval_logps/chosen_change"] for row in rows if "eval_logps/chosen_change" in row)
    assert found == pytest.approx(change, rel=1e-3)
    assert abs(change) > 0.1
