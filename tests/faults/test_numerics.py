"""N: losses, gradients, scores and weights that are not finite."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from headwater import cli
from headwater.commands import train_dpo, train_reward
from headwater.errors import ModelError, NumericalError
from headwater.forward import finite
from headwater.forward.finite import check_logits, check_scores
from headwater.models import loading
from tests.faults.training_runs import MODEL, OPTIONS, STEPS, at_step, config_of, history, same_weights, write_pairs


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("data") / "pairs.jsonl")


@pytest.fixture(scope="module")
def whole(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_dpo.run(config_of(data, tmp_path_factory.mktemp("whole") / "run"))


def undefined_loss(trainer: Any, losses: torch.Tensor) -> torch.Tensor:
    return losses * torch.ones_like(losses).index_fill(0, torch.tensor([2]), torch.nan)


def infinite_gradient(trainer: Any, losses: torch.Tensor) -> torch.Tensor:
    losses.register_hook(lambda gradient: gradient * torch.inf)
    return losses


FAULTS = [
    pytest.param(undefined_loss, "loss and gradient", 1, id="N1", marks=pytest.mark.fault("N1")),
    pytest.param(infinite_gradient, "gradient", 8, id="N2", marks=pytest.mark.fault("N2")),
]


@pytest.mark.parametrize(("happens", "found", "rows"), FAULTS)
def test_a_bad_step_is_not_taken_and_the_one_before_is_kept(
    happens: Any, found: str, rows: int, data: Path, whole: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """Between two log lines too. Once the cause is gone, the same command ends with the undisturbed weights."""
    step = 1 if happens is infinite_gradient else 4  # the first of an epoch; in an epoch
    config = config_of(data, tmp_path / "run")
    with monkeypatch.context() as patch:
        at_step(step, happens, patch)
        with pytest.raises(NumericalError) as stopped:
            train_dpo.run(config)
    kept = config.output / f"checkpoint-{step}"
    assert f"step {step + 1} · {found} not finite" in str(stopped.value)
    assert f"the last good checkpoint is {kept}" in str(stopped.value)
    assert str(stopped.value).count("demo:") == min(rows, 5), "the rows to blame, by their ids"
    assert stopped.value.exit_code == 5
    assert not (config.output / "model.safetensors").exists()
    assert all(torch.isfinite(each.float()).all() for each in load_file(kept / "state.safetensors").values())
    assert same_weights(whole, train_dpo.run(config))
    assert history(config.output) == history(whole)


@pytest.mark.parametrize(("happens", "found", "rows"), FAULTS)
def test_skipped_steps_are_counted_and_change_nothing(
    happens: Any, found: str, rows: int, data: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    config = config_of(data, tmp_path / "run", nan_policy="skip", logging_steps=1)
    before: list[torch.Tensor] = []

    def note(trainer: Any) -> None:
        before.append(torch.cat([each.detach().flatten().clone() for each in trainer.model.parameters()]))

    def step(trainer: Any, loss: torch.Tensor) -> torch.Tensor:
        note(trainer)
        return happens(trainer, loss)

    with monkeypatch.context() as patch:
        at_step(2, step, patch)
        at_step(3, lambda trainer, loss: note(trainer) or loss, patch)
        run = train_dpo.run(config)
    assert torch.equal(*before), "neither gradient, momentum nor weight decay moved a weight"
    rows_of = {row["step"]: row for row in history(run)}
    assert "loss" not in rows_of[3] or happens is infinite_gradient
    assert all(math.isfinite(value) for row in rows_of.values() for value in row.values())
    assert rows_of[STEPS]["skipped_steps"] == 1
    assert json.loads((run / "metrics.json").read_text())["skipped_steps"] == 1
    (skipped,) = json.loads((run / "facts.json").read_text())["skipped_steps"]
    assert (skipped["step"], len(skipped["rows"])) == (3, rows)
    row_counts = json.loads((run / "account.json").read_text())
    assert {"stage": "optimizer steps", "rows_in": STEPS, "kept": STEPS - 1, "quarantined": 0,
            "dropped": {"not_finite": 1}} in row_counts  # fmt: skip


@pytest.mark.fault("N1")
def test_skips_are_bounded(data: Path, tmp_path: Path, monkeypatch: Any) -> None:
    config = config_of(data, tmp_path / "run", nan_policy="skip", max_skips=1)
    for step in (2, 4):
        at_step(step, undefined_loss, monkeypatch)
    with pytest.raises(NumericalError, match="step 5, after 1 skipped steps · loss and gradient not finite"):
        train_dpo.run(config)
    assert (config.output / "checkpoint-4").is_dir()


@pytest.fixture(scope="module")
def broken(data: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A reward model and a policy whose weights are finite and whose scores are not."""
    home = tmp_path_factory.mktemp("broken")
    found = {"policy": train_dpo.run(config_of(data, home / "policy", num_train_epochs=1, save_steps=None))}
    reward = train_reward.Config(data=data, output=home / "reward", model=MODEL, training=OPTIONS)
    found["reward"] = train_reward.run(reward)
    for head, path in found.items():
        model, _ = loading.load(str(path), head, (), 0)  # type: ignore[arg-type]
        with torch.no_grad():
            for each in model.model.layers[0].mlp.parameters():
                each.fill_(1e20)
        model.save_pretrained(path)
        # As if it had been trained to this: what the run says of its files holds.
        (path / "manifest.json").unlink()
    return found


COMMANDS = {
    "evaluate": "--model {reward} --dataset {data} --output {out} --allow-leakage",
    "evaluate a policy": "--model {policy} --dataset {data} --output {out} --allow-leakage",
    "score": "--model {reward} --input {data} --output {out}.jsonl",
    "lens": "{data} --model {reward} --output {out} --allow-leakage",
    "signal": "{data} --model {reward} --output {out} --allow-leakage",
    "divergence": "--dataset {data} --model {policy} --reference {policy} --output {out}",
    "sample": "--input {data} --model {policy} --output {out}.jsonl --n 1 --max-new-tokens 3",
    "decode": "--input {data} --model {policy} --strategy length_control(first=2) --output {out} --max-new-tokens 3",
    "generate": "--prompts {data} --model {policy} --output {out} --max-new-tokens 3",
}


@pytest.mark.fault("N1")
@pytest.mark.parametrize("name", COMMANDS)
def test_scores_that_are_not_finite_end_a_command(
    name: str, broken: dict[str, Path], data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = COMMANDS[name].format(data=data, out=tmp_path / "out", **broken).split()
    assert cli.main([name.split()[0], *typed]) == 5
    said = capsys.readouterr().err
    assert "rows have scores that are not finite" in said
    assert "Traceback" not in said
    assert not (tmp_path / "out" / "done").exists()


@pytest.mark.fault("N1")
def test_a_judge_without_finite_rewards_gives_no_win_rate(
    broken: dict[str, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("base", "tuned"):
        rows = [{"instruction": f"Say {n}", "output": f"{name} {n}", "generator": name} for n in range(3)]
        (tmp_path / f"{name}.json").write_text(json.dumps(rows))
    typed = ["--baseline", tmp_path / "base.json", "--answers", tmp_path / "tuned.json", "--output", tmp_path / "out"]
    assert cli.main(["judge", *map(str, typed), "--judge", f"reward(model='{broken['reward']}')"]) == 5
    assert "rows 1 (Say 0), 1 (Say 0), 2 (Say 1)" in capsys.readouterr().err


@pytest.mark.fault("N1")
def test_the_check_of_scores_takes_every_shape() -> None:
    import numpy as np

    check_scores(np.zeros((2, 3)), ["a", "b"], "scores")
    check_scores([np.zeros(2), np.zeros(0)], ["a", "b"], "scores")
    for values in (np.array([[0, 1], [np.inf, 0]]), [np.zeros(3), np.array([np.nan])], np.array([0.0, -np.inf])):
        with pytest.raises(NumericalError, match="scores · 1 of 2 rows have scores that are not finite · row b"):
            check_scores(values, ["a", "b"], "scores")
    ruled_out = torch.tensor([[0.0, -torch.inf]])
    check_logits([ruled_out], ["a"], "logits")
    with pytest.raises(NumericalError, match="row a"):
        check_logits([torch.tensor([[0.0, torch.nan]])], ["a"], "logits")


@pytest.mark.fault("N5")
@pytest.mark.parametrize("where", ["parameter", "buffer", "buffer that is not saved"])
def test_a_model_with_weights_that_are_not_finite_is_refused(where: str) -> None:
    class Model(torch.nn.Linear):
        pass

    model = Model(2, 2)
    if where == "parameter":
        torch.nn.init.constant_(model.bias, torch.inf)
    else:
        model.register_buffer("bias_of_positions", torch.tensor([0.0, torch.nan]), persistent=where == "buffer")
    with pytest.raises(ModelError, match="not finite in bias"):
        loading._check_finite(model, "model")


@pytest.mark.fault("N3")
def test_a_row_whose_tokens_all_count_nothing_has_a_finite_loss_and_no_gradient(tmp_path: Path) -> None:
    """Token weights may leave nothing of a response: it then says nothing, and harms nobody."""
    from headwater.forward.packing import collate
    from headwater.forward.passes import with_reference
    from headwater.forward.scores import policy_scores
    from headwater.losses import DPO
    from tests.conftest import random_pairs
    from tests.forward.test_parity import LENGTHS, VOCAB, policy

    model = policy("llama", torch.float32)
    pairs = with_reference(model, random_pairs(LENGTHS[:2], VOCAB), 1000, "shared")
    batch = collate(pairs)
    batch["weight"][batch["slot"] < 2] = 0.0
    scores = policy_scores(model, batch)
    from headwater.forward.scores import reference_scores

    losses = DPO()(scores, reference_scores(batch)).loss
    assert torch.isfinite(losses).all()
    (gradient,) = torch.autograd.grad(losses[0], [model.model.embed_tokens.weight], retain_graph=True)
    assert not gradient.any()
    assert torch.autograd.grad(losses[1], [model.model.embed_tokens.weight])[0].any()


@pytest.mark.fault("N4")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_huge_logits_and_extreme_beta_stay_finite(dtype: torch.dtype) -> None:
    from headwater.forward.head import log_probs
    from headwater.losses import DPO, PairScores, Score
    from tests.forward.test_parity import policy

    model = policy("llama", torch.float32).to(dtype)
    with torch.no_grad():
        model.lm_head.weight.fill_(0)
        model.lm_head.weight[:3, 0] = torch.tensor([1e4, -1e4, 0])
    hidden = torch.ones(3, model.config.hidden_size, dtype=dtype, requires_grad=True)
    values = log_probs(model, hidden, torch.arange(3))
    assert torch.isfinite(values).all()
    values.sum().backward()
    assert hidden.grad is not None
    assert torch.isfinite(hidden.grad).all()
    far = Score(torch.tensor([-1e4, 1e4], requires_grad=True), torch.tensor([5, 5]))
    none = Score(torch.zeros(2), torch.tensor([5, 5]))
    found = DPO(beta=1e6)(PairScores(far, none), PairScores(none, none))
    assert torch.isfinite(found.loss).all()
    found.loss.sum().backward()
    assert torch.isfinite(far.value.grad).all()  # type: ignore[union-attr]


@pytest.mark.fault("N4")
@pytest.mark.parametrize("beta", ["0", "-0.1"])
def test_a_beta_that_is_not_positive_is_refused(
    beta: str, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = ["--data", str(data), "--output", str(tmp_path / "run"), "--loss", f"dpo(beta={beta})", "--model", MODEL]
    assert cli.main(["train-dpo", *typed]) == 2
    assert "beta" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.fault("N2")
@pytest.mark.parametrize("policy", ["stop", "skip"])
def test_flags_that_are_read_a_step_late_come_to_the_same(
    policy: str, data: Path, whole: Path, tmp_path: Path, monkeypatch: Any
) -> None:
    """On a GPU nobody waits for the flags: the fused optimizer leaves the step out by itself, on the device."""

    class Event:
        def synchronize(self) -> None:
            read.append(trainers[-1].state.global_step)

    read: list[int] = []
    trainers: list[Any] = []
    monkeypatch.setattr(finite, "_to_host", lambda flags: (flags, Event()))
    apart = config_of(data, tmp_path / "run", nan_policy=policy)
    before: list[torch.Tensor] = []

    def step(trainer: Any, loss: torch.Tensor) -> torch.Tensor:
        trainers.append(trainer)
        before.append(torch.cat([each.detach().flatten().clone() for each in trainer.model.parameters()]))
        return loss

    with monkeypatch.context() as patch:
        for number in range(STEPS):
            at_step(number, step, patch)
        at_step(4, infinite_gradient, patch)
        if policy == "skip":
            run = train_dpo.run(apart)
            assert json.loads((run / "metrics.json").read_text())["skipped_steps"] == 1
        else:
            with pytest.raises(NumericalError, match=r"step 5 · gradient not finite.*checkpoint-4"):
                train_dpo.run(apart)
    assert torch.equal(before[4], before[5]), "the step was left out on the device"
    assert 5 in read, "its flags were read when the next step was ready"
    if policy == "stop":
        assert same_weights(whole, train_dpo.run(apart))
