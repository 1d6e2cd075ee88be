from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from headwater.data.tokens import PairTokens
from headwater.errors import NumericalError, UsageError
from headwater.forward.packing import RowFormat
from headwater.forward.passes import with_reference
from headwater.forward.scores import ScoreFunction, policy_scores, reward_scores
from headwater.losses import DPO, BradleyTerry, Loss
from headwater.training.arguments import arguments_for
from headwater.training.options import TrainingOptions
from headwater.training.trainer import PairTrainer
from tests.conftest import random_pairs
from tests.forward.test_parity import LENGTHS, VOCAB, policy, reward

OPTIONS = TrainingOptions(
    learning_rate=0.1,
    precision="fp32",
    eval_fraction=0.0,
    logging_steps=1,
    lr_scheduler_type="constant",
    warmup_ratio=0.0,
)


class Recorder:
    def __init__(self) -> None:
        self.rows: list[dict[str, Any]] = []

    def __call__(self, row: dict[str, Any]) -> None:
        self.rows.append(row)


def trainer(
    model: torch.nn.Module,
    score: ScoreFunction,
    loss: Loss,
    pairs: list[PairTokens],
    tmp_path: Path,
    log: Any = lambda row: None,
    row_format: RowFormat = "shared",
    **changes: Any,
) -> PairTrainer:
    arguments = arguments_for(dataclasses.replace(OPTIONS, **changes), str(tmp_path))
    arguments.optim = transformers.training_args.OptimizerNames.SGD
    return PairTrainer(model, score, loss, arguments, pairs, [], row_format, log)


def weights(model: torch.nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().flatten().clone() for p in model.parameters()])


@pytest.mark.parametrize("size", [(4, 1), (1, 4), (3, 2), (2, 2)])
def test_accumulation_does_not_change_the_step(size: tuple[int, int], tmp_path: Path) -> None:
    """One step on four pairs, in one pass, four, and an uneven 3 + 1: the same weights afterwards."""
    pairs = random_pairs(LENGTHS[:4], VOCAB)

    def after(batch: int, accumulation: int) -> torch.Tensor:
        model = reward("llama")
        trainer(
            model,
            reward_scores,
            BradleyTerry(),
            pairs,
            tmp_path,
            per_device_train_batch_size=batch,
            gradient_accumulation_steps=accumulation,
        ).train()
        return weights(model)

    before, whole = weights(reward("llama")), after(4, 1)
    assert torch.linalg.norm(whole - before) > 1e-3
    # The library's own float32 islands (norms, rotary embeddings) are all that differs.
    assert torch.linalg.norm(after(*size) - whole) <= 1e-7 * torch.linalg.norm(whole - before)


def test_layouts_train_alike(tmp_path: Path) -> None:
    pairs = random_pairs(LENGTHS, VOCAB)

    def after(row_format: RowFormat) -> torch.Tensor:
        model = reward("llama", trees=row_format != "padded")
        trainer(model, reward_scores, BradleyTerry(), pairs, tmp_path, row_format=row_format).train()
        return weights(model)

    assert torch.allclose(after("shared"), after("packed"), rtol=0, atol=1e-9)
    assert torch.allclose(after("shared"), after("padded"), rtol=0, atol=1e-9)


def test_the_first_step_of_dpo_logs_log_2_and_zero_rewards(tmp_path: Path) -> None:
    model, log = policy("llama", torch.float32), Recorder()
    pairs = with_reference(model, random_pairs(LENGTHS[:4], VOCAB), 100, "shared")
    trainer(model, policy_scores, DPO(), pairs, tmp_path, log, per_device_train_batch_size=4).train()
    first = log.rows[0]
    assert first["loss"] == pytest.approx(math.log(2), abs=1e-5)
    for name in ("rewards/chosen", "rewards/rejected", "rewards/sum", "rewards/margins"):
        assert first[name] == pytest.approx(0, abs=1e-4)
    assert 0 <= first["rewards/accuracies"] <= 1


def test_logged_rewards_are_means_over_all_pairs_of_uneven_passes(tmp_path: Path) -> None:
    """With a learning rate that moves nothing, passes of 3 and 2 pairs log what one forward over all 5 gives."""
    model, pairs, log = reward("llama", torch.float32), random_pairs(LENGTHS, VOCAB), Recorder()
    trainer(
        model, reward_scores, BradleyTerry(), pairs, tmp_path, log,
        learning_rate=1e-30, per_device_train_batch_size=3, gradient_accumulation_steps=2,
    ).train()  # fmt: skip
    from headwater.forward.packing import collate

    with torch.no_grad():
        scores = reward_scores(model, collate(pairs))
    chosen, rejected = scores.chosen.value, scores.rejected.value
    row = log.rows[0]
    assert row["rewards/chosen"] == pytest.approx(chosen.mean().item(), rel=1e-4)
    assert row["rewards/margins"] == pytest.approx((chosen - rejected).mean().item(), rel=1e-4)
    assert row["rewards/sum"] == pytest.approx((chosen + rejected).mean().item(), rel=1e-4)
    assert row["rewards/accuracies"] == pytest.approx((chosen > rejected).double().mean().item())


def test_training_learns_what_the_pairs_say(tmp_path: Path) -> None:
    model, log = reward("llama", torch.float32), Recorder()
    trainer(
        model, reward_scores, BradleyTerry(), random_pairs(LENGTHS, VOCAB), tmp_path, log, num_train_epochs=30
    ).train()
    assert log.rows[-2]["rewards/accuracies"] == 1.0


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    model = reward("llama", torch.float32)
    with torch.no_grad():
        model.score.weight.fill_(float("nan"))  # type: ignore[union-attr]
    with pytest.raises(NumericalError, match="step 1 · loss and gradient not finite"):
        trainer(model, reward_scores, BradleyTerry(), random_pairs(LENGTHS, VOCAB), tmp_path).train()


def test_a_gradient_that_is_not_finite_stops_the_run(tmp_path: Path) -> None:
    model = reward("llama", torch.float32)
    model.score.weight.register_hook(lambda gradient: gradient * float("inf"))  # type: ignore[union-attr]
    with pytest.raises(NumericalError, match="step 1 · gradient not finite"):
        trainer(model, reward_scores, BradleyTerry(), random_pairs(LENGTHS, VOCAB), tmp_path).train()


def test_options_that_cannot_work_are_refused() -> None:
    with pytest.raises(UsageError, match="--eval-fraction 1 · expected a value in"):
        TrainingOptions(eval_fraction=1)
    with pytest.raises(UsageError, match="--learning-rate 0"):
        TrainingOptions(learning_rate=0)
    with pytest.raises(UsageError, match="wiggly"):
        arguments_for(dataclasses.replace(OPTIONS, lr_scheduler_type="wiggly"), "x")
