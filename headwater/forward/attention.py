"""Attention within trees of tokens: which keys a query sees, and fast ways to compute it.

    visible(q, k) = same tree and k ≤ q and (k in the trunk or in q's own branch)

The drawing in forward/packing.py shows the mask of a row. Models from transformers stay unmodified: rows reach them
through an attention function registered as `TREES` in transformers' attention interface. It has no mask function, so
that transformers builds no mask of its own; the trees of the row arrive as a keyword argument. Attention is computed
tree by tree, so that no work is spent on pairs of tokens that never see each other; on CUDA one variable-length kernel
computes all trees. Positions count from the start of a tree along trunk and branch, so sliding windows keep their
meaning.

An architecture that does something else (ALiBi, a recurrent state, a mask that ignores this function) would give wrong
values without an error. forward/format_check.py therefore compares rows with separate forward passes first.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from typing import Any, cast

import torch
import torch.nn.functional as F
from transformers import AttentionInterface

from headwater.forward.packing import PairBatch, Tree

TREES = "headwater"
"""Name of tree attention in transformers' attention interface."""


class Plan:
    """Masks and key indices for the trees of one row, built once a forward pass and shared by all layers."""

    def __init__(self, trees: Sequence[Tree]) -> None:
        self._trees = trees
        self._masks: dict[tuple[Any, ...], list[torch.Tensor]] = {}
        self._sequences: dict[torch.device, Sequences] = {}
        self.lengths = [tree.length for tree in trees]

    def masks(self, window: int | None, like: torch.Tensor) -> list[torch.Tensor]:
        """Return the additive mask of every tree, [length, length]: 0 where visible, −∞ elsewhere."""
        key = (window, like.dtype, like.device)
        if key not in self._masks:
            self._masks[key] = [
                torch.zeros(tree.length, tree.length, dtype=like.dtype, device=like.device).masked_fill_(
                    ~visible(tree, window, like.device), float("-inf")
                )
                for tree in self._trees
            ]
        return self._masks[key]

    def sequences(self, device: torch.device) -> Sequences:
        """Return the branches as sequences for a variable-length kernel."""
        if device not in self._sequences:
            self._sequences[device] = Sequences(self._trees, device)
        return self._sequences[device]


class Sequences:
    """Branches of a row as sequences for a variable-length kernel: queries in row order, keys [trunk, branch] for each.

        row       P0 P1 P2 C0 C1 R0 R1
        queries   P0 P1 P2 C0 C1          R0 R1             the trunk's own queries go with its first branch
        keys      P0 P1 P2 C0 C1          P0 P1 P2 R0 R1    the trunk's keys are gathered again for every branch

    A causal kernel aligns the last query with the last key, which gives exactly `visible`.
    """

    def __init__(self, trees: Sequence[Tree], device: torch.device) -> None:
        queries: list[int] = []
        keys: list[torch.Tensor] = []
        start = 0
        for tree in trees:
            # A second branch without tokens has no query and is left out; the first one always carries the trunk.
            end = start + tree.trunk
            for number, branch in enumerate(tree.branches):
                if branch or not number:
                    queries.append(branch if number else tree.trunk + branch)
                    keys.append(torch.cat([torch.arange(start, start + tree.trunk), torch.arange(end, end + branch)]))
                end += branch
            start += tree.length
        self.keys = torch.cat(keys).to(device)
        self.cu_queries = torch.tensor([0, *accumulate(queries)], dtype=torch.int32, device=device)
        self.cu_keys = torch.tensor([0, *accumulate(len(k) for k in keys)], dtype=torch.int32, device=device)
        self.longest_query = max(queries)
        self.longest_key = max(len(k) for k in keys)


def visible(tree: Tree, window: int | None, device: torch.device) -> torch.Tensor:
    """Return the boolean mask of a tree, [length, length], True where visible; `window` limits it to so many tokens."""
    sizes = torch.tensor([tree.trunk, *tree.branches])
    branch = torch.repeat_interleave(torch.arange(len(sizes)), sizes).to(device)
    position = torch.cat([torch.arange(tree.trunk), *(tree.trunk + torch.arange(n) for n in tree.branches)]).to(device)
    seen = (branch == 0)[None, :] | (branch[:, None] == branch[None, :])
    seen &= torch.ones(tree.length, tree.length, dtype=torch.bool, device=device).tril()
    return seen if window is None else seen & (position[:, None] - position[None, :] < window)


def tree_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    plan: Plan,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attend within the trees of a row: query [1, heads, T, d], key, value [1, key heads, T, d] → [1, T, heads, d].

    The signature is that of transformers' attention interface. Errors: `NotImplementedError` for an option that would
    otherwise be ignored (attention sinks, a position bias, a mask).
    """
    unknown = [name for name in ("s_aux", "position_bias") if others.get(name) is not None]
    if attention_mask is not None or unknown:
        raise NotImplementedError(f"attention with {', '.join(unknown) or 'a mask of its own'}")
    # One kernel call for all trees. It takes half precision only, and neither soft caps nor dropout.
    if query.is_cuda and query.dtype in (torch.bfloat16, torch.float16) and not softcap and not dropout:
        return _variable_length(query, key, value, plan, scaling, sliding_window), None
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    # One call a tree: a mask over the whole row would cost the square of its length, most of it for pairs of tokens
    # that do not see each other.
    pieces = zip(
        *(torch.split(tensor, plan.lengths, dim=2) for tensor in (query, key, value)),
        plan.masks(sliding_window, query),
        strict=True,
    )
    if softcap:
        attended = [_capped(q, k, v, mask, scaling, dropout, softcap) for q, k, v, mask in pieces]
    else:
        attended = [F.scaled_dot_product_attention(q, k, v, mask, dropout, scale=scaling) for q, k, v, mask in pieces]
    return torch.cat([piece.transpose(1, 2) for piece in attended], dim=1), None


def _capped(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    scaling: float | None,
    dropout: float,
    softcap: float,
) -> torch.Tensor:
    """Attention with soft-capped scores (Gemma 2), which torch has no fused kernel for on every device."""
    scores = query @ key.transpose(2, 3) * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    scores = torch.tanh(scores / softcap) * softcap + mask
    weights = F.softmax(scores, dim=-1, dtype=torch.promote_types(scores.dtype, torch.float32)).to(query.dtype)
    return F.dropout(weights, dropout) @ value


def _variable_length(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    plan: Plan,
    scaling: float | None,
    window: int | None,
) -> torch.Tensor:
    from torch.nn.attention.varlen import varlen_attn

    sequences = plan.sequences(query.device)
    attended = varlen_attn(
        query[0].transpose(0, 1).contiguous(),
        key[0].transpose(0, 1).index_select(0, sequences.keys),
        value[0].transpose(0, 1).index_select(0, sequences.keys),
        sequences.cu_queries,
        sequences.cu_keys,
        sequences.longest_query,
        sequences.longest_key,
        scale=scaling,
        window_size=(-1 if window is None else window - 1, 0),
        enable_gqa=query.shape[1] != key.shape[1],
    )
    return cast(torch.Tensor, attended)[None]


AttentionInterface.register(TREES, tree_attention)


def model_inputs(batch: PairBatch) -> dict[str, Any]:
    """Return the keyword arguments of a backbone's forward for a batch in any row format but "single"."""
    if not batch["trees"]:
        # Right padding: positions count up from 0 by default, so models without position_ids work too.
        return {"input_ids": batch["input_ids"], "attention_mask": batch["attention_mask"]}
    return {
        "input_ids": batch["input_ids"],
        "position_ids": batch["position_ids"],
        "plan": Plan(batch["trees"]),
    }


def is_encoder(model: Any) -> bool:
    """Return whether `model` is a bidirectional sequence classifier (BERT and its kind), which needs a row a response.

    Sequence classifiers built on causal models have a `score` head, which is applied to single tokens.
    """
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    return type(inner).__name__.endswith("ForSequenceClassification") and not hasattr(inner, "score")


def attend_with(model: Any, implementation: str) -> None:
    """Set the attention implementation of a model: `TREES`, or a name known to transformers."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    if inner.config._attn_implementation != implementation:
        inner.set_attn_implementation(implementation)
