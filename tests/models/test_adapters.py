"""Low-rank adapters and gradient checkpointing: the same numbers, and a model that loads anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import transformers

from headwater.data.tokens import PairTokens
from headwater.errors import UsageError
from headwater.forward.attention import TREES, attend_with
from headwater.forward.packing import collate
from headwater.forward.passes import with_reference
from headwater.forward.scores import policy_scores, reward_scores
from headwater.losses import DPO, BradleyTerry
from headwater.models.adapters import adapted, check_targets
from headwater.models.lora_options import LoraOptions
from headwater.training.options import TrainingOptions
from tests.forward.test_parity import pairs_with_openings, policy, reward
from tests.training.test_training import trainer, weights

LORA = LoraOptions(4)


def scores(model: Any, score: Any, pairs: list[PairTokens]) -> torch.Tensor:
    model.eval()
    with torch.no_grad():
        found = score(model, collate(pairs))
    return torch.stack([found.chosen.value, found.rejected.value])


@pytest.mark.parametrize("targets", [None, "q_proj,lm_head"])
def test_adapters_train_alone_and_start_where_the_model_was(targets: str | None, tmp_path: Path) -> None:
    base, pairs = policy("llama", torch.float32), pairs_with_openings()
    before, base_weights = scores(base, policy_scores, pairs), weights(base)
    model = adapted(base, "policy", LoraOptions(4, target_modules=targets))
    assert torch.equal(scores(model, policy_scores, pairs), before)
    pairs = with_reference(model, pairs, 60, "shared")
    trainer(model, policy_scores, DPO(), pairs, tmp_path, num_train_epochs=5).train()
    assert (scores(model, policy_scores, pairs) - before).abs().max() > 1e-2
    with model.disable_adapter():
        assert torch.equal(scores(model, policy_scores, pairs), before)
    untouched = torch.cat([p.flatten() for name, p in model.named_parameters() if "lora_" not in name])
    assert torch.equal(untouched.sort().values, base_weights.sort().values)


def test_a_reward_model_with_adapters_trains_its_new_head(tmp_path: Path) -> None:
    base, pairs = reward("llama", torch.float32), pairs_with_openings()
    before = base.score.weight.detach().clone()  # type: ignore[union-attr]
    model = adapted(base, "reward", LORA)
    trainer(model, reward_scores, BradleyTerry(), pairs, tmp_path).train()
    merged = model.merge_and_unload()
    assert not torch.equal(merged.score.weight, before)


def test_a_saved_model_has_its_adapters_merged_in(tmp_path: Path) -> None:
    from headwater.models import saving

    base, pairs = policy("llama", torch.float32), pairs_with_openings()
    model = adapted(base, "policy", LORA)
    trainer(model, policy_scores, DPO(), with_reference(model, pairs, 60, "shared"), tmp_path / "run").train()
    expected = scores(model, policy_scores, pairs)

    class NoTokenizer:
        chat_template = None
        eos_token_id = pad_token_id = None

        def save_pretrained(self, path: Path) -> None: ...

    saving.save(model, NoTokenizer(), tmp_path / "saved")  # type: ignore[arg-type]
    loaded = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "saved")
    attend_with(loaded, TREES)
    assert torch.allclose(scores(loaded, policy_scores, pairs), expected, rtol=0, atol=1e-4)
    assert (tmp_path / "saved" / "adapter" / "adapter_model.safetensors").exists()
    assert not list((tmp_path / "saved").rglob("*.bin"))


def test_modules_that_do_not_exist_are_refused() -> None:
    options = LoraOptions(4, target_modules="nowhere")
    with pytest.raises(UsageError, match="--lora-target-modules"):
        adapted(policy("llama"), "policy", options)


@pytest.mark.parametrize("flag", ["lora_alpha", "lora_dropout", "lora_target_modules"])
def test_adapter_flags_without_a_rank_are_refused(flag: str) -> None:
    value: Any = "q_proj" if flag == "lora_target_modules" else 1
    with pytest.raises(UsageError, match="has no effect without --lora-r"):
        TrainingOptions(**{flag: value})


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2"])
@pytest.mark.parametrize("adapters", [False, True])
def test_checkpointing_does_not_change_the_gradient(name: str, adapters: bool) -> None:
    pairs = pairs_with_openings()

    def gradient(checkpointing: bool) -> torch.Tensor:
        model: Any = policy(name)
        if adapters:
            torch.manual_seed(1)
            model = adapted(model, "policy", LORA)
        if checkpointing:
            model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
        model.eval() if name == "gpt2" and not checkpointing else model.train()
        for module in model.modules():  # GPT-2 drops out in training, which no two passes share
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        for block in getattr(getattr(model, "transformer", None), "h", []):
            block.attn.attn_dropout.p = 0.0
        found = policy_scores(model, collate(pairs))
        (found.chosen.value - found.rejected.value).sum().backward()
        return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])

    plain = gradient(False)
    assert plain.abs().max() > 0
    assert torch.allclose(gradient(True), plain, rtol=0, atol=1e-9 * plain.abs().max().item())


@pytest.mark.parametrize("targets", ["nowhere", "q_proj,nowhere"])
def test_every_name_of_a_module_is_checked_before_a_run(targets: str) -> None:
    with pytest.raises(UsageError, match="no module is called nowhere"):
        check_targets(policy("llama"), LoraOptions(4, target_modules=targets))
    check_targets(policy("llama"), LoraOptions(4, target_modules="q_proj, mlp.up_proj"))
