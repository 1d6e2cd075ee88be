"""KTO's partners: every prompt with responses to another one; and the estimate from them."""

from __future__ import annotations

import pytest
import torch

from headwater.data.preference import Message, Response, Unpaired
from headwater.data.tokenizers import Tokenizer
from headwater.data.tokens import PairTokens, tokenize
from headwater.errors import DataError
from headwater.forward.packing import collate
from headwater.losses.token_weights import First
from headwater.training.kl_estimate import KLEstimate, deranged, estimate_kl
from tests.conftest import random_pairs
from tests.forward.test_parity import LENGTHS, VOCAB, policy, separate_log_probs
from tests.forward.test_scoring import other_policy

PAIRS = random_pairs(LENGTHS, VOCAB)


def one_sided(pairs: list[PairTokens]) -> list[PairTokens]:
    """Rows with one response each: a good one and a bad one in turn."""
    return [
        pair._replace(rejected=pair.rejected[:0]) if index % 2 else pair._replace(chosen=pair.chosen[:0])
        for index, pair in enumerate(pairs)
    ]


@pytest.mark.parametrize("rows", [2, 3, 5])
def test_every_prompt_gets_the_responses_of_another_row_and_each_goes_once(rows: int) -> None:
    pairs = PAIRS[:rows]
    drawn = deranged(pairs, 1000)
    taken = [next(i for i, own in enumerate(pairs) if same(own, pair)) for pair in drawn]
    assert sorted(taken) == list(range(rows))
    assert all(index != partner for index, partner in enumerate(taken))
    for own, pair in zip(pairs, drawn, strict=True):
        assert (pair.prompt == own.prompt).all()
        assert pair.chosen_reference is None, "that of its own response would be wrong"


def same(own: PairTokens, drawn: PairTokens) -> bool:
    return own.chosen.tolist() == drawn.chosen.tolist() and own.rejected.tolist() == drawn.rejected.tolist()


def test_the_draw_depends_on_the_rows_alone_and_varies_with_them() -> None:
    many = random_pairs([(3, 4, 5)] * 30, VOCAB)
    first, again = deranged(many, 1000), deranged(many, 1000)
    named = deranged([pair._replace(id=f"other {pair.id}") for pair in many], 1000)
    other = deranged([pair._replace(key=f"other {pair.key}") for pair in many], 1000)
    assert all(same(one, two) for one, two in zip(first, again, strict=True))
    assert all(same(one, two) for one, two in zip(first, named, strict=True))
    assert not all(same(one, two) for one, two in zip(first, other, strict=True))


@pytest.mark.parametrize(("groups", "own"), [([2, 2], 0), ([3, 1, 2], 0), ([1, 4, 2, 1], 0), ([3, 2], 1), ([4], 4)])
def test_partners_answer_another_prompt_unless_one_has_more_than_half_of_the_rows(groups: list[int], own: int) -> None:
    """Labelled rows often share prompts: a response to one's own prompt says nothing of responses to others."""
    prompts = [pair.prompt for pair in random_pairs([(5, 1, 1)] * len(groups), VOCAB, seed=3)]
    rows = random_pairs([(5, 4, 6)] * sum(groups), VOCAB)
    asked = [group for group, size in enumerate(groups) for _ in range(size)]
    for seed in range(20):
        pairs = [
            row._replace(prompt=prompts[group], id=f"{seed} {row.id}") for row, group in zip(rows, asked, strict=True)
        ]
        drawn = deranged(pairs, 1000)
        taken = [next(i for i, each in enumerate(pairs) if same(each, pair)) for pair in drawn]
        assert sorted(taken) == list(range(len(pairs)))
        assert all(index != partner for index, partner in enumerate(taken))
        assert sum(asked[index] == asked[partner] for index, partner in enumerate(taken)) == own


def test_partners_are_weighed_as_the_rows_are() -> None:
    """Else the estimate would be of whole responses where the loss reads their first token alone."""
    (batch,) = KLEstimate(policy("llama"), 1000).partners(one_sided(PAIRS), "shared", 1000, First(1))
    assert batch["weight"].sum() == len(PAIRS)


def test_a_response_is_cut_where_its_new_prompt_leaves_no_room() -> None:
    drawn = deranged(PAIRS, 14)
    assert all(len(pair.prompt) + max(len(pair.chosen), len(pair.rejected)) <= 14 for pair in drawn)
    assert any(len(pair.rejected) == 2 for pair in drawn), "the prompt of 12 tokens leaves 2"


def test_one_row_has_no_partner() -> None:
    with pytest.raises(DataError, match="a batch of 1 row · expected 2 or more: its KL estimate"):
        deranged(PAIRS[:1], 1000)


@pytest.mark.parametrize("sides", ["both", "one"])
def test_the_estimate_is_the_mean_change_however_many_passes(sides: str) -> None:
    pairs = PAIRS if sides == "both" else one_sided(PAIRS)
    drawn = deranged(pairs, 1000)
    own, other = policy("gpt2", trees=False), other_policy("gpt2", trees=False)
    with torch.no_grad():
        changes = [
            (mine.sum() - theirs.sum()).item()
            for pair in drawn
            for mine, theirs in zip(separate_log_probs(own, pair), separate_log_probs(other, pair), strict=True)
            if len(mine)
        ]
    model, reference = policy("gpt2"), other_policy("gpt2")
    at_once = estimate_kl(model, reference, [collate(drawn)])
    apart = estimate_kl(model, reference, [collate(drawn[:1]), collate(drawn[1:])])
    assert len(changes) == (10 if sides == "both" else 5)
    assert at_once.item() == pytest.approx(sum(changes) / len(changes), abs=1e-9)
    assert apart.item() == pytest.approx(at_once.item(), abs=1e-9)
    assert not at_once.requires_grad
    assert estimate_kl(model, model, [collate(drawn)]).item() == 0


def test_labelled_responses_become_rows_with_one_side(tokenizer: Tokenizer) -> None:
    rows = [
        Unpaired(prompt=(Message("user", f"Question {index}?"),), id=str(index), response=Response(text), label=label)
        for index, (text, label) in enumerate([("Good.", True), ("Bad.", False), ("Long. " * 100, True)])
    ]
    pairs, row_counts, _ = tokenize(rows, tokenizer, 100)
    assert (row_counts.rows_in, row_counts.kept, dict(row_counts.dropped)) == (3, 2, {"too_long": 1})
    good, bad = pairs
    assert "Good." in tokenizer.decode(good.chosen)
    assert len(good.rejected) == 0
    assert "Bad." in tokenizer.decode(bad.rejected)
    assert len(bad.chosen) == 0
    assert "Question 1?" in tokenizer.decode(bad.prompt)
