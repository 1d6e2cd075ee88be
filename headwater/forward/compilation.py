"""Compile the layers of a model and the backward pass of tree attention (`--torch-compile`).

On a CPU with fast matrix products most of a step is spent between them, in norms, rotary embeddings, gates and casts,
and in the backward pass of attention, where torch is no faster than plain matrix products. `torch.compile` fuses the
former layer by layer, so that all layers share one compiled graph. The latter is written here as five matrix products
with one compiled function around them.

Trees stay outside of what is compiled: their lengths differ from pass to pass, and each new length would compile again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from transformers import AttentionInterface

from headwater.errors import UsageError, first_line
from headwater.forward.attention import TREES, Plan, attend_with, tree_attention

FUSED = "headwater-fused"
"""Name of tree attention with a compiled backward pass, in transformers' attention interface."""


def compile_layers(model: Any) -> None:
    """Compile the layers of a model in place; parameters, their names and their values do not change.

    Errors: `UsageError` where nothing can be compiled (no C++ compiler), or where the model does not name its layers.
    """
    try:
        torch.compile(torch.sin, dynamic=True)(torch.ones(2))
    except Exception as error:
        raise UsageError("--torch-compile", first_line(error), "install a C++ compiler, or leave it out") from error
    names = model._no_split_modules or ()
    layers = [module for module in model.modules() if type(module).__name__ in names]
    if not layers:
        raise UsageError("--torch-compile", f"{type(model).__name__} does not name its layers", "leave it out")
    for layer in layers:
        layer.compile(dynamic=True)
    if model.config._attn_implementation == TREES:
        attend_with(model, FUSED)


def fused_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    plan: Plan,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **others: Any,
) -> tuple[torch.Tensor, None]:
    """Attend as `tree_attention` does; fall back to it on other devices and for dropout or soft-capped scores."""
    special = [name for name in ("dropout", "softcap", "s_aux", "position_bias") if others.get(name)]
    if query.device.type != "cpu" or attention_mask is not None or special:
        settings = {"plan": plan, "scaling": scaling, "sliding_window": sliding_window, **others}
        return tree_attention(module, query, key, value, attention_mask, **settings)
    if torch.is_autocast_enabled("cpu"):
        query, key, value = (tensor.to(torch.get_autocast_dtype("cpu")) for tensor in (query, key, value))
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    masks = plan.masks(sliding_window, query)
    attended: torch.Tensor = _TreeAttention.apply(query, key, value, masks, plan.lengths, scale)  # type: ignore[no-untyped-call]
    return attended, None


class _TreeAttention(torch.autograd.Function):
    """Attention within trees: query, key, value [1, heads, T, d] → [1, T, heads, d]."""

    @staticmethod
    def forward(
        ctx: Any,
        query: torch.Tensor,
        key: torch.Tensor,
        value: torch.Tensor,
        masks: Sequence[torch.Tensor],
        lengths: list[int],
        scale: float,
    ) -> torch.Tensor:
        rows, sums = [], []
        pieces = (torch.split(tensor, lengths, dim=2) for tensor in (query, key, value))
        for q, k, v, mask in zip(*pieces, masks, strict=True):
            # The kernel behind scaled_dot_product_attention on a CPU; called directly, it also returns log Σ exp of the
            # scores, which the backward pass needs.
            row, log_sum = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
                q, k, v, 0.0, False, attn_mask=mask, scale=scale
            )
            rows.append(row.transpose(1, 2))
            sums.append(log_sum[..., None])
        attended = torch.cat(rows, dim=1)
        ctx.save_for_backward(query, key, value, attended, *masks, *sums)
        ctx.lengths, ctx.scale = lengths, scale
        return attended

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        query, key, value, attended, *others = ctx.saved_tensors
        masks, sums = others[: len(ctx.lengths)], others[len(ctx.lengths) :]
        slopes = tuple(torch.empty_like(tensor) for tensor in (query, key, value))
        wholes = (query, key, value, attended.transpose(1, 2), gradient.transpose(1, 2))
        pieces = (torch.split(tensor, ctx.lengths, dim=2) for tensor in (*slopes, *wholes))
        for d_q, d_k, d_v, q, k, v, row, g, mask, log_sum in zip(*pieces, masks, sums, strict=True):
            for slope, found in zip((d_q, d_k, d_v), _slopes(q, k, v, mask, row, log_sum, g, ctx.scale), strict=True):
                slope.copy_(found)
        return *slopes, None, None, None


def slopes(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor,
    attended: torch.Tensor,
    log_sum: torch.Tensor,
    gradient: torch.Tensor,
    scale: float,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return the gradients of query, key and value, all [1, heads, n, d], of one tree's attention.

    `mask` is [n, n], `log_sum` [1, heads, n, 1]: arXiv:2205.14135, algorithm 4, without its blocks.
    """
    dtype, wide = query.dtype, torch.promote_types(query.dtype, torch.float32)
    # The softmax is rebuilt from the stored log Σ exp instead of stored as a [n, n] matrix by the forward pass.
    weights = torch.exp((query @ key.transpose(-1, -2)).to(wide) * scale + mask - log_sum)
    d_weights = (gradient @ value.transpose(-1, -2)).to(wide)
    mean = (attended.to(wide) * gradient.to(wide)).sum(-1, keepdim=True)
    d_scores = (weights * (d_weights - mean) * scale).to(dtype)
    return d_scores @ key, d_scores.transpose(-1, -2) @ query, weights.to(dtype).transpose(-1, -2) @ gradient


_slopes = torch.compile(slopes, dynamic=True)

AttentionInterface.register(FUSED, torch.compiler.disable(fused_attention))  # type: ignore[no-untyped-call]
