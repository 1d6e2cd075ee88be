"""TRL as an oracle: the same batch, the same numbers. (TRL is a test dependency only.)"""

from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import numpy as np
import pytest
import torch
import transformers
import trl
from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer

from headwater.data.layouts import canonical_row
from headwater.data.preference import Preference
from headwater.data.tokenizers import Tokenizer
from headwater.data.tokens import PairTokens
from headwater.forward.attention import TREES, attend_with
from headwater.forward.packing import UNIFORM, collate
from headwater.forward.passes import with_reference
from headwater.forward.scores import policy_scores, reference_scores, reward_scores, score_for
from headwater.losses import (
    AOT,
    CPO,
    DPO,
    FDPO,
    IPO,
    KTO,
    ORPO,
    RPO,
    SFT,
    WPO,
    AOTUnpaired,
    APODown,
    APOZero,
    BCOPair,
    BradleyTerry,
    DiscoPOP,
    EXOPair,
    Hinge,
    LossBase,
    MarginBradleyTerry,
    Mix,
    NCAPair,
    PairScores,
    RobustDPO,
    Score,
    SimPO,
    SortedBatch,
    SPPOHard,
)
from headwater.losses.token_weights import Mean, Tail, Weights
from headwater.training.kl_estimate import estimate_kl


def model_of(kind: Any, tokenizer: Tokenizer, seed: int) -> Any:
    torch.manual_seed(seed)
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4,
        pad_token_id=tokenizer.pad_token_id, initializer_range=0.2,
    )  # fmt: skip
    if kind is transformers.AutoModelForSequenceClassification:
        config.num_labels = 1
    return kind.from_config(config)


def rows_of(corpus: list[Preference]) -> datasets.Dataset:
    return datasets.Dataset.from_list(
        [{key: canonical_row(p)[key] for key in ("prompt", "chosen", "rejected")} for p in corpus[:6]]
    )


def split_rows(ids: torch.Tensor, response: torch.Tensor, mask: torch.Tensor) -> list[PairTokens]:
    """Turn TRL's batch ([chosen; rejected] rows) into pairs; `response` marks response tokens, `mask` real ones."""
    half = len(ids) // 2
    pairs = []
    for index in range(half):
        first = int(response[index].nonzero()[0])
        sides = [ids[row][mask[row].bool()].numpy().astype(np.int32) for row in (index, index + half)]
        pairs.append(PairTokens(sides[0][:first], sides[0][first:], sides[1][first:], str(index), "trl", str(index)))
    return pairs


class Doubled(torch.nn.Module):
    """A model whose token values, which TRL's fused head gives in float32, are summed in float64 from then on."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, **inputs: Any) -> Any:
        outputs = self.model(**inputs)
        outputs.log_probs = outputs.log_probs.double()
        if outputs.log_sum_sq_probs is not None:
            outputs.log_sum_sq_probs = outputs.log_sum_sq_probs.double()
        return outputs


class Theirs:
    """TRL's DPO trainer and a batch of it; and the token values that it computes, as our scores."""

    def __init__(self, corpus: list[Preference], tokenizer: Tokenizer, output: Path) -> None:
        make = transformers.AutoModelForCausalLM
        self.policy, self.reference = (model_of(make, tokenizer, seed).double() for seed in (0, 1))
        arguments = trl.DPOConfig(
            output_dir=str(output), bf16=False, use_cpu=True, gradient_checkpointing=False, report_to="none",
            use_weighting=True,
        )  # fmt: skip
        self.trainer = trl.DPOTrainer(
            model=self.policy, ref_model=self.reference, args=arguments, train_dataset=rows_of(corpus),
            processing_class=tokenizer,
        )  # fmt: skip
        self.batch = self.trainer.data_collator([self.trainer.train_dataset[i] for i in range(6)])
        ids, response, mask = (self.batch[name] for name in ("input_ids", "completion_mask", "attention_mask"))
        self.pairs = split_rows(ids, response, mask)
        self.policy.eval()
        self.trainer.ref_model = Doubled(self.reference.eval())

    def loss(self, **settings: Any) -> float:
        """TRL's loss of the batch, under `settings` of the trainer."""
        given = {"beta": 0.3, "loss_types": ["sigmoid"], "loss_weights": [1.0], "label_smoothing": 0.0}
        given |= {"use_weighting": False, "ld_alpha": None, "f_divergence_type": "reverse_kl"} | settings
        for name, value in given.items():
            assert hasattr(self.trainer, name), "a setting that TRL does not read would test nothing"
            setattr(self.trainer, name, value)
        with torch.no_grad():
            return float(self.trainer.compute_loss(Doubled(self.policy), dict(self.batch)))

    def ours(self, loss: LossBase, weights: Weights = UNIFORM) -> torch.Tensor:
        """Our loss of every pair of the batch, from TRL's own token values."""
        policy, reference = (self.scores(model, weights) for model in (self.policy, self.reference))
        if isinstance(loss, SortedBatch):
            policy = policy._replace(columns=loss.batch_columns(policy, reference))
        return loss(policy, reference).loss

    def scores(self, model: Any, weights: Weights) -> PairScores:
        response = self.batch["completion_mask"]
        labels = self.batch["input_ids"].masked_fill(response == 0, -100)
        inputs = {name: self.batch[name] for name in ("input_ids", "attention_mask")}
        with torch.no_grad():
            outputs = Doubled(model)(**inputs, labels=labels, use_cache=False, fused_lm_head=True)
        agreeing = outputs.log_probs if outputs.log_sum_sq_probs is None else outputs.log_sum_sq_probs
        rows = response[:, 1:].bool()
        by_row = [
            (values[row], (values - agree)[row])
            for values, agree, row in zip(outputs.log_probs, agreeing, rows, strict=True)
        ]
        half = len(rows) // 2
        of_pairs = [
            weights(len(better), len(worse), str(index))
            for index, ((better, _), (worse, _)) in enumerate(zip(by_row[:half], by_row[half:], strict=True))
        ]
        every = [torch.from_numpy(pair[side]) for side in (0, 1) for pair in of_pairs]
        columns = {
            "value": torch.stack([weight @ values for weight, (values, _) in zip(every, by_row, strict=True)]),
            "tokens": torch.tensor([len(values) for values, _ in by_row]),
            "weight": torch.stack([weight.sum() for weight in every]),
            "self_likelihood": torch.stack([self_likelihoods.mean() for _, self_likelihoods in by_row]),
        }
        return PairScores(*(Score(**{k: v.chunk(2)[side] for k, v in columns.items()}) for side in (0, 1)))


@pytest.fixture(scope="module")
def theirs(corpus: list[Preference], tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Theirs:
    return Theirs(corpus, tokenizer, tmp_path_factory.mktemp("trl"))


@pytest.mark.parametrize(
    ("loss", "weights", "settings"),
    [
        (DPO(beta=0.3), UNIFORM, {}),
        (DPO(beta=0.3), Mean(), {"loss_types": ["sigmoid_norm"]}),
        (DPO(beta=0.3), Tail(alpha=0.4), {"ld_alpha": 0.4}),
        (RobustDPO(beta=0.3, label_smoothing=0.1), UNIFORM, {"loss_types": ["robust"], "label_smoothing": 0.1}),
        (IPO(beta=0.3), UNIFORM, {"loss_types": ["ipo"]}),
        (Hinge(beta=0.3), UNIFORM, {"loss_types": ["hinge"]}),
        (WPO(beta=0.3), UNIFORM, {"use_weighting": True}),
        (EXOPair(beta=0.3, label_smoothing=0.01), UNIFORM, {"loss_types": ["exo_pair"], "label_smoothing": 0.01}),
        (NCAPair(beta=0.3), UNIFORM, {"loss_types": ["nca_pair"]}),
        (BCOPair(beta=0.3), UNIFORM, {"loss_types": ["bco_pair"]}),
        (SPPOHard(beta=0.3), UNIFORM, {"loss_types": ["sppo_hard"]}),
        (AOT(beta=0.3, label_smoothing=0.1), UNIFORM, {"loss_types": ["aot"], "label_smoothing": 0.1}),
        (AOTUnpaired(beta=0.3, label_smoothing=0.1), UNIFORM, {"loss_types": ["aot_unpaired"], "label_smoothing": 0.1}),
        (APOZero(beta=0.3), UNIFORM, {"loss_types": ["apo_zero"]}),
        (APODown(beta=0.3), UNIFORM, {"loss_types": ["apo_down"]}),
        (DiscoPOP(beta=0.3), UNIFORM, {"loss_types": ["discopop"]}),
        (FDPO(beta=0.3, divergence="js"), UNIFORM, {"f_divergence_type": "js_divergence"}),
        (FDPO(beta=0.3, divergence="forward_kl"), UNIFORM, {"f_divergence_type": "forward_kl"}),
        (
            Mix(((DPO(beta=0.3), 0.8), (BCOPair(beta=0.3), 0.2))),
            UNIFORM,
            {"loss_types": ["sigmoid", "bco_pair"], "loss_weights": [0.8, 0.2]},
        ),
    ],
    ids=lambda value: repr(value),
)
def test_losses_against_a_reference_equal_trls(
    theirs: Theirs, loss: LossBase, weights: Weights, settings: dict[str, Any]
) -> None:
    expected = theirs.loss(**settings)
    plain = theirs.loss()
    assert theirs.ours(loss, weights).mean().item() == pytest.approx(expected, rel=1e-6)
    assert not settings or abs(expected - plain) > 1e-3, "a loss like plain DPO would hide a mistake"
    assert abs(plain - np.log(2)) > 0.05, "a loss at its starting point would hide a mistake"


@pytest.mark.parametrize(("loss", "settings"), [(DPO(beta=0.3), {}), (WPO(beta=0.3), {"use_weighting": True})])
def test_packed_rows_and_a_stored_reference_give_trls_loss(
    theirs: Theirs, loss: LossBase, settings: dict[str, Any]
) -> None:
    """From the batch on, each with its own forward passes: within what TRL's float32 head leaves of a thousand nats."""
    model, reference = copy.deepcopy(theirs.policy), copy.deepcopy(theirs.reference)
    for each in (model, reference):
        attend_with(each, TREES)
    batch = collate(with_reference(reference, theirs.pairs, 2000, "shared"))
    with torch.no_grad():
        result = loss(score_for(loss)(model, batch), reference_scores(batch))
    assert result.loss.mean().item() == pytest.approx(theirs.loss(**settings), rel=1e-5)


def test_rpo_is_trls_sum_of_dpo_and_sft_but_for_the_mean_of_the_likelihood(theirs: Theirs) -> None:
    """TRL's `sft` is the mean over all tokens of a batch, so that long responses weigh more; ours one a response."""
    expected = theirs.loss(loss_types=["sigmoid", "sft"], loss_weights=[1.0, 0.7])
    tokens = torch.tensor([float(len(pair.chosen)) for pair in theirs.pairs])
    likelihood = theirs.ours(SFT())
    pooled = (likelihood * tokens).sum() / tokens.sum()
    ours = theirs.ours(RPO(beta=0.3, alpha=0.7)).mean() + 0.7 * (pooled - likelihood.mean())
    assert ours.item() == pytest.approx(expected, rel=1e-6)


LOG_PS = torch.tensor([[-12.0, -9.0], [-3.5, -30.0], [-1e-3, -80.0], [-700.0, -650.0]])
TOKENS = torch.tensor([[7, 3], [2, 9], [1, 40], [300, 200]])


def given() -> PairScores:
    """Scores of four pairs; and the same as TRL's functions take them: sums, or means over tokens."""
    return PairScores(*(Score(LOG_PS[:, side], TOKENS[:, side]) for side in (0, 1)))


def cpo_trainer(**settings: Any) -> Any:
    usual = {"alpha": 0.0, "beta": 0.3, "label_smoothing": 0.0, "simpo_gamma": 0.5, "loss_type": "sigmoid"}
    return SimpleNamespace(**usual | settings, accelerator=SimpleNamespace(device="cpu"))


def test_simpo_equals_trls() -> None:
    mine = SimPO(beta=2.0, gamma=0.5)(given(), None)
    trainer = cpo_trainer(loss_type="simpo", beta=2.0)
    loss, chosen, rejected = CPOTrainer.cpo_loss(trainer, *(LOG_PS / TOKENS).unbind(1))
    assert torch.allclose(mine.loss, loss, rtol=1e-6, atol=0)
    assert torch.allclose(mine.chosen_reward, chosen)
    assert torch.allclose(mine.rejected_reward, rejected)


def test_cpo_equals_trls() -> None:
    """Its likelihood term aside, which TRL pools over the tokens of a batch."""
    mine = CPO(beta=0.3, alpha=0.0)(given(), None)
    loss, chosen, rejected = CPOTrainer.cpo_loss(cpo_trainer(), *LOG_PS.unbind(1))
    assert torch.allclose(mine.loss, loss, rtol=1e-6, atol=0)
    assert torch.allclose(mine.chosen_reward, chosen)
    assert torch.allclose(mine.rejected_reward, rejected)


def test_conservative_dpo_equals_trls() -> None:
    """TRL 1.16 has label smoothing in its CPO trainer only: the same formula, on log-ratios."""
    zero = PairScores(*(Score(torch.zeros(4), TOKENS[:, side]) for side in (0, 1)))
    loss, _, _ = CPOTrainer.cpo_loss(cpo_trainer(label_smoothing=0.2), *LOG_PS.unbind(1))
    assert torch.allclose(DPO(beta=0.3, label_smoothing=0.2)(given(), zero).loss, loss, rtol=1e-6, atol=0)


def test_orpo_equals_trls() -> None:
    """Its odds term; TRL's likelihood runs over the prompt too, where the paper has the response."""
    means = LOG_PS / TOKENS
    mine = ORPO(beta=0.3)(given(), None)
    odds, chosen, rejected, _, _ = ORPOTrainer.odds_ratio_loss(cpo_trainer(), *means.unbind(1))
    assert torch.allclose(mine.loss, -means[:, 0] - odds, rtol=1e-6, atol=0)
    assert torch.allclose(mine.chosen_reward, chosen)
    assert torch.allclose(mine.rejected_reward, rejected)


def test_reward_loss_equals_trls(corpus: list[Preference], tokenizer: Tokenizer, tmp_path: Path) -> None:
    model = model_of(transformers.AutoModelForSequenceClassification, tokenizer, 0)
    arguments = trl.RewardConfig(
        output_dir=str(tmp_path), bf16=False, use_cpu=True, gradient_checkpointing=False, report_to="none"
    )
    theirs = trl.RewardTrainer(model=model, args=arguments, train_dataset=rows_of(corpus), processing_class=tokenizer)
    model.eval()
    batch = theirs.data_collator([theirs.train_dataset[i] for i in range(6)])
    with torch.no_grad():
        expected = theirs.compute_loss(model, dict(batch)).item()
        margins = torch.tensor([0.5, 2.0, -1.0, 0.0, 3.0, 1.0])
        with_margin = theirs.compute_loss(model, dict(batch) | {"margin": margins}).item()
        # Only the end of each row matters to a reward: everything after the common first token is response.
        after_first = torch.ones_like(batch["input_ids"])
        after_first[:, 0] = 0
        pairs = split_rows(batch["input_ids"], after_first, batch["attention_mask"])
        attend_with(model, TREES)
        pairs = [pair._replace(columns={"score_gap": gap}) for pair, gap in zip(pairs, margins.tolist(), strict=True)]
        scores = reward_scores(model, collate(pairs))
    assert abs(expected - np.log(2)) > 1e-3
    assert BradleyTerry()(scores, None).loss.mean().item() == pytest.approx(expected, rel=1e-6)
    assert MarginBradleyTerry()(scores, None).loss.mean().item() == pytest.approx(with_margin, rel=1e-6)


ROW = ("input_ids", "completion_mask", "attention_mask")


def unpaired_rows(
    ids: torch.Tensor, response: torch.Tensor, mask: torch.Tensor, labels: list[bool]
) -> list[PairTokens]:
    """Turn a batch of labelled rows into pairs of which one side is empty."""
    pairs = []
    for index, label in enumerate(labels):
        row = ids[index][mask[index].bool()].numpy().astype(np.int32)
        first = int(response[index].nonzero()[0])
        sides = (row[first:], row[:0]) if label else (row[:0], row[first:])
        pairs.append(PairTokens(row[:first], *sides, str(index), "trl", str(index)))
    return pairs


def test_kto_equals_trls(corpus: list[Preference], tokenizer: Tokenizer, tmp_path: Path) -> None:
    """On the same partners, which TRL rotates and we draw; within what its float32 head leaves of float64 models."""
    make = transformers.AutoModelForCausalLM
    policy, reference = (model_of(make, tokenizer, seed).double() for seed in (1, 0))
    labels = [True, False, False, True, False, False]
    rows = [
        {"prompt": row["prompt"], "completion": row["chosen" if label else "rejected"], "label": label}
        for row, label in zip(rows_of(corpus), labels, strict=True)
    ]
    settings = {"beta": 0.02, "desirable_weight": 1.5, "undesirable_weight": 0.7}
    arguments = trl.KTOConfig(
        output_dir=str(tmp_path), bf16=False, use_cpu=True, gradient_checkpointing=False, report_to="none",
        per_device_train_batch_size=6, train_sampling_strategy="sequential", **settings,
    )  # fmt: skip
    theirs = trl.KTOTrainer(
        model=policy, ref_model=reference, args=arguments, train_dataset=datasets.Dataset.from_list(rows),
        processing_class=tokenizer,
    )  # fmt: skip
    policy.eval()
    reference.eval()
    batch = theirs.data_collator([theirs.train_dataset[i] for i in range(6)])
    with torch.no_grad():
        expected = theirs.compute_loss(policy, dict(batch)).item()
        mine, others = (
            collate(unpaired_rows(*(batch[part + name] for name in ROW), labels), "padded") for part in ("", "KL_")
        )
        estimate = estimate_kl(policy, reference, [others])
        scores = policy_scores(policy, mine)._replace(columns={"kl_estimate": estimate.expand(6)})
        result = KTO(**settings)(scores, policy_scores(reference, mine))
    assert estimate.item() > 1, "an estimate that is clamped to 0 would hide a mistake"
    assert result.loss.mean().item() == pytest.approx(expected, rel=1e-6)
