"""A whole run beside TRL's trainer, on the same pairs in the same order: the loss curves are one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import transformers
import trl

from headwater.data.tokenizers import Tokenizer
from headwater.data.tokens import PairTokens
from headwater.forward.attention import TREES, attend_with
from headwater.forward.passes import with_reference
from headwater.forward.scores import policy_scores, reward_scores
from headwater.losses import DPO, BradleyTerry
from headwater.training.arguments import arguments_for
from headwater.training.options import TrainingOptions
from headwater.training.order import Shares
from headwater.training.trainer import PairTrainer

SETTINGS: dict[str, Any] = {"learning_rate": 1e-3, "per_device_train_batch_size": 4, "num_train_epochs": 2}


def model_of(auto: Any, tokenizer: Tokenizer) -> Any:
    torch.manual_seed(0)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
        pad_token_id=tokenizer.pad_token_id, num_labels=1,
    )  # fmt: skip
    return auto.from_config(config)


def theirs(kind: str, pairs: list[PairTokens], tokenizer: Tokenizer, tmp_path: Path) -> list[float]:
    """Train with TRL on rows in headwater's order, and return the loss of every step."""
    auto, trainer_class, config_class = {
        "dpo": (transformers.AutoModelForCausalLM, trl.DPOTrainer, trl.DPOConfig),
        "reward": (transformers.AutoModelForSequenceClassification, trl.RewardTrainer, trl.RewardConfig),
    }[kind]
    arguments = config_class(
        output_dir=str(tmp_path), bf16=False, use_cpu=True, gradient_checkpointing=False, report_to="none",
        lr_scheduler_type="constant", logging_steps=1, save_strategy="no", dataloader_drop_last=False, **SETTINGS,
    )  # fmt: skip
    message = [{"role": "user", "content": "a"}], [{"role": "assistant", "content": "b"}]
    one = datasets.Dataset.from_list([{"prompt": message[0], "chosen": message[1], "rejected": message[1]}])
    extra = {"ref_model": model_of(auto, tokenizer)} if kind == "dpo" else {}
    trainer = trainer_class(
        model=model_of(auto, tokenizer), args=arguments, train_dataset=one, processing_class=tokenizer, **extra
    )
    shares = Shares(len(pairs), SETTINGS["per_device_train_batch_size"], seed=42)
    rows = []
    for _ in range(SETTINGS["num_train_epochs"]):  # one epoch of two, because the order changes
        for pair in (pairs[index] for batch in shares for index in batch):
            prompt, chosen, rejected = (ids.tolist() for ids in (pair.prompt, pair.chosen, pair.rejected))
            if kind == "reward":
                rows.append({"chosen_ids": prompt + chosen, "rejected_ids": prompt + rejected})
            else:
                rows.append({"prompt_ids": prompt, "chosen_ids": chosen, "rejected_ids": rejected})
    trainer.train_dataset = datasets.Dataset.from_list(rows)
    trainer.args.num_train_epochs = 1
    trainer._get_train_sampler = lambda *_: torch.utils.data.SequentialSampler(trainer.train_dataset)
    trainer.train()
    return [row["loss"] for row in trainer.state.log_history if "loss" in row]


@pytest.mark.parametrize("kind", ["dpo", "reward"])
def test_the_loss_curve_is_trls(kind: str, pairs: list[PairTokens], tokenizer: Tokenizer, tmp_path: Path) -> None:
    pairs = pairs[:40]  # whole batches: the rows of two epochs follow each other as one
    auto, score, loss = {
        "dpo": (transformers.AutoModelForCausalLM, policy_scores, DPO(beta=0.1)),
        "reward": (transformers.AutoModelForSequenceClassification, reward_scores, BradleyTerry()),
    }[kind]
    model = model_of(auto, tokenizer)
    attend_with(model, TREES)
    options = TrainingOptions(
        precision="fp32", eval_fraction=0.0, logging_steps=1, lr_scheduler_type="constant", warmup_ratio=0.0, **SETTINGS
    )
    rows: list[dict[str, Any]] = []
    given = with_reference(model, pairs, 4000, "shared") if kind == "dpo" else pairs
    arguments = arguments_for(options, str(tmp_path / "ours"))
    PairTrainer(model, score, loss, arguments, given, [], "shared", rows.append).train()
    mine = [row["loss"] for row in rows if "loss" in row]
    expected = theirs(kind, pairs, tokenizer, tmp_path / "trl")
    assert len(mine) == len(expected) == 20
    assert np.ptp(mine) > 0.05, "a flat curve would hide a mistake"
    assert np.allclose(mine, expected, rtol=0, atol=2e-3)
    assert np.allclose(mine[:3], expected[:3], rtol=0, atol=2e-5)
