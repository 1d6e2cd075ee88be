"""Labelled rows in the engine: laid out without waste, and trained on exactly as the same responses in pairs are."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch

from headwater.data.tokens import PairTokens
from headwater.forward.packing import RowFormat, collate, pack, tokens_of
from headwater.forward.passes import with_reference
from headwater.forward.scores import policy_scores
from headwater.losses import KTO
from headwater.losses.token_weights import Decay, First, Mean, Weights
from headwater.training.arguments import arguments_for
from headwater.training.kl_estimate import KLEstimate
from headwater.training.trainer import PairTrainer
from tests.conftest import random_pairs
from tests.forward.test_parity import LENGTHS, VOCAB, policy, separate_log_probs
from tests.training.test_training import OPTIONS, weights

PAIRS = random_pairs(LENGTHS[:4], VOCAB)


def labelled(pairs: list[PairTokens]) -> list[PairTokens]:
    """Both responses of every pair as rows of their own."""
    rows = []
    for pair in pairs:
        rows.append(pair._replace(id=f"{pair.id} good", rejected=pair.rejected[:0]))
        rows.append(pair._replace(id=f"{pair.id} bad", chosen=pair.chosen[:0]))
    return rows


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("row_format", ["shared", "packed", "padded"])
def test_scores_equal_separate_forwards(name: str, row_format: RowFormat) -> None:
    model, alone = policy(name, trees=row_format != "padded"), policy(name, trees=False)
    rows = labelled(PAIRS)
    with torch.no_grad():
        scores = policy_scores(model, collate(rows, row_format))
        expected = [[float(side.sum()) for side in separate_log_probs(alone, row)] for row in rows]
    found = torch.stack([scores.chosen.value, scores.rejected.value], 1)
    assert (found - torch.tensor(expected, dtype=torch.float64)).abs().max() < 1e-9
    assert (scores.chosen.tokens == 0).tolist() == [False, True] * 4


@pytest.mark.parametrize("row_format", ["shared", "packed", "padded"])
def test_an_empty_side_takes_no_room(row_format: RowFormat) -> None:
    """A prompt is laid out once for the one response, and the count that fills rows says so."""
    rows = labelled(PAIRS)
    batch = collate(rows, row_format)
    real = sum(len(row.prompt) + len(row.chosen) + len(row.rejected) for row in rows)
    assert batch["attention_mask"].sum() == real == sum(tokens_of(row, row_format) for row in rows)
    assert batch["num_pairs"] == len(rows)
    assert max(part["input_ids"].shape[1] for part in pack(rows, "shared", 40)["packs"]) <= 40


@pytest.mark.parametrize("weights", [First(2), Decay(0.9), Mean()], ids=repr)
def test_weights_of_a_response_are_those_in_a_pair(weights: Weights) -> None:
    together, apart = collate(PAIRS, weights=weights)["weight"], collate(labelled(PAIRS), weights=weights)["weight"]
    assert torch.equal(together, apart)


def stepped(pairs: list[PairTokens], batch: int, accumulation: int, output: Path) -> torch.Tensor:
    """Weights after one step of KTO from the reference itself, where its KL estimate is 0 whatever the partners."""
    model = policy("llama")
    reference = copy.deepcopy(model).requires_grad_(False)
    rows = with_reference(model, pairs, 1000, "shared")
    arguments = arguments_for(OPTIONS, str(output))
    arguments.optim = "sgd"
    arguments.per_device_train_batch_size, arguments.gradient_accumulation_steps = batch, accumulation
    kl_estimate = KLEstimate(reference, 1000)
    PairTrainer(
        model, policy_scores, KTO(), arguments, rows, [], "shared", lambda row: None, kl_estimate=kl_estimate
    ).train()
    return weights(model)


def test_labelled_rows_train_as_the_pairs_they_come_from(tmp_path: Path) -> None:
    """KTO takes the mean over both responses of a pair: of n pairs it is that of their 2n responses."""
    before, pairs = weights(policy("llama")), stepped(PAIRS, 4, 1, tmp_path)
    rows = stepped(labelled(PAIRS), 8, 1, tmp_path)
    assert torch.linalg.norm(pairs - before) > 1e-4
    assert torch.linalg.norm(rows - pairs) <= 1e-6 * torch.linalg.norm(pairs - before)


@pytest.mark.parametrize("size", [(4, 2), (2, 4)])
def test_accumulation_does_not_change_the_step(size: tuple[int, int], tmp_path: Path) -> None:
    rows = labelled(PAIRS)
    before, whole = weights(policy("llama")), stepped(rows, 8, 1, tmp_path)
    assert torch.linalg.norm(stepped(rows, *size, tmp_path) - whole) <= 1e-6 * torch.linalg.norm(whole - before)
