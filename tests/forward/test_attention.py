"""What a token sees, by its definition; and the variable-length form of it that a GPU computes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

from headwater.forward import attention
from headwater.forward.attention import Plan, tree_attention, visible
from headwater.forward.packing import Tree, collate, fill, pack, parts_of, tokens_of
from tests.conftest import random_pairs
from tests.forward.test_parity import VOCAB, pairs_with_openings

CPU = torch.device("cpu")
TREES = st.builds(Tree, st.integers(1, 6), st.lists(st.integers(0, 5), min_size=1, max_size=3).map(tuple))


def paths(tree: Tree) -> Iterator[list[int]]:
    """The tokens of every response in their order: what a separate forward would hold."""
    start = tree.trunk
    for branch in tree.branches:
        yield [*range(tree.trunk), *range(start, start + branch)]
        start += branch


@given(TREES, st.one_of(st.none(), st.integers(1, 8)))
def test_a_token_sees_what_a_separate_forward_shows_it(tree: Tree, window: int | None) -> None:
    seen = visible(tree, window, CPU)
    expected = torch.zeros(tree.length, tree.length, dtype=torch.bool)
    for path in paths(tree):
        for q, query in enumerate(path):
            first = 0 if window is None else max(0, q - window + 1)
            expected[query, path[first : q + 1]] = True
    assert torch.equal(seen, expected)


def reference_varlen(query, key, value, cu_q, cu_k, max_q, max_k, *, scale, window_size, enable_gqa):  # type: ignore[no-untyped-def]
    """What torch documents of `varlen_attn`: causal from the end of the keys, a window to the left."""
    left, right = window_size
    assert right == 0
    found = []
    for i in range(len(cu_q) - 1):
        q, k, v = query[cu_q[i] : cu_q[i + 1]], key[cu_k[i] : cu_k[i + 1]], value[cu_k[i] : cu_k[i + 1]]
        assert 0 < len(q) <= max_q
        assert len(k) <= max_k
        distance = torch.arange(len(k) - len(q), len(k))[:, None] - torch.arange(len(k))[None, :]
        mask = (distance >= 0) & ((distance <= left) | (left < 0))
        heads = (tensor.transpose(0, 1)[None] for tensor in (q, k, v))
        attended = F.scaled_dot_product_attention(*heads, attn_mask=mask, scale=scale, enable_gqa=enable_gqa)
        found.append(attended[0].transpose(0, 1))
    return torch.cat(found)


@settings(deadline=None, max_examples=60)
@given(st.lists(TREES, min_size=1, max_size=4), st.one_of(st.none(), st.integers(1, 8)), st.sampled_from([4, 2]))
def test_the_variable_length_form_computes_the_same(trees: list[Tree], window: int | None, key_heads: int) -> None:
    length = sum(tree.length for tree in trees)
    torch.manual_seed(length)
    query = torch.randn(1, 4, length, 8, dtype=torch.float64)
    key, value = (torch.randn(1, key_heads, length, 8, dtype=torch.float64) for _ in range(2))
    module = torch.nn.Identity()
    expected, _ = tree_attention(module, query, key, value, None, plan=Plan(trees), sliding_window=window)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("torch.nn.attention.varlen.varlen_attn", reference_varlen)
        found = attention._variable_length(query, key, value, Plan(trees), None, window)
    assert torch.allclose(found, expected, rtol=0, atol=1e-12)


def test_what_attention_cannot_honour_is_refused() -> None:
    tensors = (torch.randn(1, 2, 3, 4),) * 3
    plan = Plan([Tree(3, (0,))])
    with pytest.raises(NotImplementedError, match="s_aux"):
        tree_attention(torch.nn.Identity(), *tensors, None, plan=plan, s_aux=torch.zeros(2))
    with pytest.raises(NotImplementedError, match="a mask of its own"):
        tree_attention(torch.nn.Identity(), *tensors, torch.ones(3, 3), plan=plan)


@given(st.lists(st.integers(1, 50), max_size=30), st.integers(1, 60))
def test_rows_hold_everything_once_and_no_more_than_fits(lengths: list[int], max_tokens: int) -> None:
    rows = fill(lengths, max_tokens)
    assert sorted(index for row in rows for index in row) == list(range(len(lengths)))
    for row in rows:
        assert len(row) == 1 or sum(lengths[index] for index in row) <= max_tokens
    if len(rows) > 1:
        fullest = sorted(sum(lengths[i] for i in row) for row in rows)
        assert fullest[0] + fullest[1] > max_tokens, "two rows that would fit in one"


def test_common_openings_are_laid_out_once() -> None:
    pairs = pairs_with_openings()
    batch = collate(pairs)
    assert batch["input_ids"].shape == (1, sum(tokens_of(pair, "shared") for pair in pairs))
    assert batch["input_ids"].numel() < sum(pair.length for pair in pairs)
    assert len(batch["position"]) < len(batch["token"]) == sum(len(p.chosen) + len(p.rejected) for p in pairs)


@pytest.mark.parametrize("row_format", ["shared", "packed", "padded"])
@pytest.mark.parametrize("max_tokens", [1, 40, 1000])
def test_passes_hold_all_pairs_and_no_more_than_their_room(row_format: str, max_tokens: int) -> None:
    pairs = random_pairs([(7, 5, 9), (3, 1, 1), (12, 8, 2), (1, 4, 3), (2, 2, 2)] * 3, VOCAB)
    packs = pack(pairs, row_format, max_tokens)  # type: ignore[arg-type]
    assert sum(batch["num_pairs"] for batch in packs["packs"]) == packs["num_pairs"] == len(pairs)
    parts = parts_of(pairs, row_format, max_tokens)  # type: ignore[arg-type]
    for batch, part in zip(packs["packs"], parts, strict=True):
        assert batch["input_ids"].numel() <= max_tokens or len(part) == 1
