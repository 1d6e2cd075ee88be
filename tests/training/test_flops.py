"""What training costs, held to torch's own count of operations."""

from __future__ import annotations

import numpy as np
import pytest
from torch.utils.flop_counter import FlopCounterMode

from headwater.data.preference import Preference
from headwater.data.tokens import PairTokens
from headwater.forward.attention import attend_with
from headwater.forward.packing import collate
from headwater.forward.scores import policy_scores, reward_scores
from headwater.models import loading
from headwater.training.flops import training_cost


def pair(prompt: int, chosen: list[int], rejected: list[int]) -> PairTokens:
    ids = (np.arange(3, 3 + prompt), np.array(chosen), np.array(rejected))
    return PairTokens(*(each.astype(np.int32) for each in ids), id="", source="", conversation_id="")


def test_a_cost_by_hand(corpus: list[Preference]) -> None:
    """Prompt of 4, an opening of 1, branches of 1 and 2: 8 tokens that see 15 + (5 + 1) + (5 + 1) + (5 + 2) others."""
    model = loading.load("scratch(hidden=32, layers=2, vocab=300)", "reward", corpus, 0).model
    weights = sum(p.numel() for p in model.parameters()) - model.get_input_embeddings().weight.numel()
    found = training_cost(model, [pair(4, [9, 10], [9, 11, 12])], "shared", epochs=2.0)
    assert found.training_tokens == 2 * 9
    assert found.training_flops == 2 * (6 * weights * 8 + 12 * 2 * 32 * (15 + 6 + 6 + 7))
    apart = training_cost(model, [pair(4, [9, 10], [9, 11, 12])], "packed", epochs=2.0)
    assert apart.training_flops == 2 * (6 * weights * 13 + 12 * 2 * 32 * (21 + 28))


@pytest.mark.parametrize("head", ["policy", "reward"])
def test_it_is_what_torch_counts(head: loading.Head, corpus: list[Preference]) -> None:
    """Rows of one width; torch counts whole squares of attention, and the logits again in the backward pass."""
    model = loading.load("scratch(hidden=32, layers=2, vocab=300)", head, corpus, 0).model.train()
    attend_with(model, "eager")  # a fused kernel's products are not counted
    pairs = [pair(40, list(range(60)), list(range(100, 160)))]
    batch = collate(pairs, "padded")
    with FlopCounterMode(display=False) as counter:
        scores = (policy_scores if head == "policy" else reward_scores)(model, batch)
        (scores.chosen.value - scores.rejected.value).sum().backward()
    ours = training_cost(model, pairs, "padded", 1.0).training_flops
    unseen = 2 * (100 * 100 - 100 * 101 / 2)
    again = 2 * 120 * model.get_output_embeddings().weight.numel() if head == "policy" else 0
    assert ours + 12 * 2 * 32 * unseen + again == pytest.approx(counter.get_total_flops(), rel=0.02)
