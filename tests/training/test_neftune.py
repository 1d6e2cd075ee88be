"""NEFTune adds noise of the right scale to embeddings while a model trains, and at no other time."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.integrations.neftune import activate_neftune, deactivate_neftune

from headwater.commands import train_dpo
from headwater.errors import UsageError
from headwater.forward.attention import TREES, attend_with
from headwater.forward.packing import RowFormat, collate
from headwater.forward.scores import ScoredModel, policy_scores, reward_scores, to_device
from headwater.losses import BradleyTerry
from headwater.training import neftune
from headwater.training.neftune import noisy_embeddings, sequence_lengths
from headwater.training.options import TrainingOptions
from headwater.training.trainer import PairTrainer
from tests.conftest import random_pairs
from tests.faults.training_runs import config_of, history, same_weights, write_pairs
from tests.forward.test_parity import LENGTHS, VOCAB, policy, reward
from tests.training.test_training import trainer

ALPHA = 5.0


def embedded(model: Any, batch: Any) -> list[torch.Tensor]:
    """Return the embeddings that the layers of `model` read of a batch."""
    seen: list[torch.Tensor] = []
    handle = model.get_input_embeddings().register_forward_hook(lambda module, inputs, output: seen.append(output))
    try:
        policy_scores(model, batch)
    finally:
        handle.remove()
    return seen


def test_the_length_of_a_sequence_is_that_of_its_prompt_and_response() -> None:
    pairs = random_pairs(LENGTHS, VOCAB)
    for row_format in ("packed", "padded"):
        batch = collate(pairs, row_format)
        lengths = sequence_lengths(batch, torch.zeros(*batch["input_ids"].shape, 2))[..., 0]
        sides = [len(pair.prompt) + len(side) for pair in pairs for side in (pair.chosen, pair.rejected) if len(side)]
        if row_format == "packed":
            assert lengths[0].tolist() == [size for size in sides for _ in range(size)]
        else:
            assert lengths[:, 0].tolist() == sides
            assert (lengths == lengths[:, :1]).all()


def test_a_shared_trunk_has_the_noise_of_the_longer_sequence() -> None:
    pairs = random_pairs(LENGTHS, VOCAB)
    batch = collate(pairs, "shared")
    expected: list[int] = []
    for tree in batch["trees"]:
        expected += [tree.trunk + max(tree.branches)] * tree.trunk
        for branch in tree.branches:
            expected += [tree.trunk + branch] * branch
    lengths = sequence_lengths(batch, torch.zeros(*batch["input_ids"].shape, 2))
    assert lengths[0, :, 0].tolist() == expected


@pytest.mark.parametrize("row_format", ["shared", "packed", "padded", "single"])
def test_noise_is_uniform_within_its_bound(row_format: RowFormat) -> None:
    model = policy("llama")
    attend_with(model, TREES if row_format in ("shared", "packed") else "sdpa")
    batch = to_device(collate(random_pairs(LENGTHS, VOCAB), row_format), torch.device("cpu"))
    plain = embedded(model, batch)
    torch.manual_seed(0)
    with noisy_embeddings(model, batch, ALPHA):
        noisy = embedded(model, batch)
    assert len(plain) == len(noisy)
    shares = []
    for one, other in zip(plain, noisy, strict=True):
        bound = ALPHA / (sequence_lengths(batch, one) * one.shape[-1]).sqrt()
        shares.append(((other - one) / bound).flatten())
    found = torch.cat(shares)
    assert found.abs().max() <= 1 + 1e-4
    assert abs(found.mean().item()) < 4 / math.sqrt(3 * len(found))
    assert found.var().item() == pytest.approx(1 / 3, abs=0.02)
    assert all(torch.equal(one, other) for one, other in zip(plain, embedded(model, batch), strict=True))


def test_training_has_noise_and_evaluation_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pairs = random_pairs(LENGTHS, VOCAB)
    model = reward("llama")
    calls: list[bool] = []
    as_it_is = neftune.sequence_lengths

    def lengths(*given: Any) -> torch.Tensor:
        calls.append(model.training)
        return as_it_is(*given)

    monkeypatch.setattr(neftune, "sequence_lengths", lengths)
    made = trainer(model, reward_scores, BradleyTerry(), pairs, tmp_path)
    made._neftune_alpha = ALPHA
    made.train()
    steps = len(calls)
    assert steps > 0
    assert all(calls)
    one, other = (made.evaluate(pairs)["eval_loss"] for _ in range(2))
    assert one == other
    assert len(calls) == steps
    assert not made.model.get_input_embeddings()._forward_hooks


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_pairs(tmp_path_factory.mktemp("data") / "pairs.jsonl")


def test_the_noise_of_a_run_is_drawn_by_its_seed_and_changes_what_is_learned(data: Path, tmp_path: Path) -> None:
    plain = train_dpo.run(config_of(data, tmp_path / "plain"))
    noisy = [train_dpo.run(config_of(data, tmp_path / name, neftune_noise_alpha=ALPHA)) for name in ("one", "other")]
    assert same_weights(*noisy)
    assert not same_weights(plain, noisy[0])
    assert history(noisy[0])[-1]["train_loss"] != history(plain)[-1]["train_loss"]


def test_a_stopped_training_goes_on_with_the_same_noise(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = train_dpo.run(config_of(data, tmp_path / "whole", neftune_noise_alpha=ALPHA))
    config = config_of(data, tmp_path / "run", neftune_noise_alpha=ALPHA, save_steps=3)
    step_as_is = PairTrainer.training_step

    def killed(self: Any, *given: Any) -> torch.Tensor:
        if self.state.global_step == 5:
            raise SystemError("killed")
        return step_as_is(self, *given)

    with monkeypatch.context() as patch:
        patch.setattr(PairTrainer, "training_step", killed)
        with pytest.raises(SystemError, match="killed"):
            train_dpo.run(config)
    assert same_weights(whole, train_dpo.run(config))


def test_what_trainers_ask_of_a_model_reaches_it() -> None:
    """transformers' own NEFTune finds the embeddings; its configuration and its methods are the model's."""
    model = policy("llama")
    scored = ScoredModel(model, policy_scores)
    handle = activate_neftune(scored, ALPHA)
    assert model.get_input_embeddings()._forward_hooks
    deactivate_neftune(scored, handle)
    assert scored.config is model.config
    assert scored.save_pretrained == model.save_pretrained
    assert scored.num_parameters() == model.num_parameters()
    with pytest.raises(AttributeError, match="nothing_like_it"):
        _ = scored.nothing_like_it


def test_a_trainer_leaves_the_configuration_as_it_is(tmp_path: Path) -> None:
    model = policy("llama")
    before = model.config.to_dict()
    trainer(model, policy_scores, BradleyTerry(), random_pairs(LENGTHS, VOCAB), tmp_path)
    assert model.config.to_dict() == before


def test_noise_below_zero_is_refused() -> None:
    with pytest.raises(UsageError, match="--neftune-noise-alpha"):
        TrainingOptions(neftune_noise_alpha=0.0)
