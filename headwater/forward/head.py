"""Log-probabilities of given tokens from the language-model head, without all logits in memory.

The head runs at response tokens only, and logits exist for one chunk of positions at a time: they are recomputed in the
backward pass. For a vocabulary of 150,000, the float32 logits of 4,096 positions would take 2.4 GB, and their
log-probabilities and gradients twice that again. Sums over the vocabulary are taken in float32 (float64 for a float64
model), and so is the sum of the head's gradient over chunks.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import torch
from torch.utils.checkpoint import checkpoint

from headwater.errors import ModelError

CHUNK = 2**26
"""Maximum number of logits in a chunk: 128 MiB in bf16."""
BLOCK = {"cpu": 2**20}
"""Maximum number of logits in float32 at a time, sized for a CPU's cache; a whole chunk on other devices."""


class Shape(NamedTuple):
    """Transformation of logits by a model's configuration: Cohere scales, Granite divides, Gemma 2 caps."""

    scale: float
    cap: float | None

    def apply(self, logits: torch.Tensor) -> torch.Tensor:
        """Scale and cap logits."""
        logits = logits * self.scale if self.scale != 1.0 else logits
        return torch.tanh(logits / self.cap) * self.cap if self.cap else logits


def shape_of(model: Any) -> Shape:
    """Return the transformation of logits that a model's configuration asks for."""
    config = model.config.get_text_config()
    scale = (getattr(config, "logit_scale", None) or 1.0) / (getattr(config, "logits_scaling", None) or 1.0)
    return Shape(scale, getattr(config, "final_logit_softcapping", None))


def log_probs(model: Any, hidden: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Return log p(target) for [N, hidden] states and [N] targets: [N], float32 (float64 for a float64 model).

    Errors: `ModelError` for a model without a language-model head.
    """
    head = model.get_output_embeddings()
    if head is None:
        raise ModelError(type(model).__name__, "has no language-model head", "name a causal language model")
    shape = shape_of(model)
    if type(head) is torch.nn.Linear:
        return cast(torch.Tensor, _LinearLogProbs.apply(hidden, head.weight, head.bias, targets, shape))  # type: ignore[no-untyped-call]
    # A head that is more than a linear layer (an adapter on it) goes through autograd, in the same chunks.
    size = max(1, CHUNK // model.get_input_embeddings().weight.shape[0])
    parts = zip(torch.split(hidden, size), torch.split(targets, size), strict=True)
    return torch.cat([checkpoint(_chunk, head, part, wanted, shape, use_reentrant=False) for part, wanted in parts])


def _chunk(head: torch.nn.Module, hidden: torch.Tensor, targets: torch.Tensor, shape: Shape) -> torch.Tensor:
    return _read(head(hidden), targets, shape)


def _read(logits: torch.Tensor, targets: torch.Tensor, shape: Shape) -> torch.Tensor:
    """Return log p(target) from logits [n, V], summed in float32 or wider: [n]."""
    logits = shape.apply(logits.to(_wide(logits.dtype)))
    return logits.gather(1, targets[:, None])[:, 0] - logits.logsumexp(1)


def _wide(dtype: torch.dtype) -> torch.dtype:
    return torch.promote_types(dtype, torch.float32)


class _LinearLogProbs(torch.autograd.Function):
    """log p(target) of a linear head.

    With p the probabilities and g the incoming gradient of a position: d hidden = g (e_target − p) W,
    d W = Σ g (e_target − p)ᵀ hidden.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        targets: torch.Tensor,
        shape: Shape,
    ) -> torch.Tensor:
        device = hidden.device.type
        dtype = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else weight.dtype
        read = hidden.new_empty(len(hidden), dtype=_wide(dtype))
        with torch.autocast(device, enabled=False):
            narrow, head = hidden.to(dtype), Head(weight.to(dtype), None if bias is None else bias.to(dtype))
            # Logits are computed in the precision of the forward pass and reduced in float32, block by block, so that
            # only one block of float32 logits exists at a time.
            for rows in _chunks(len(hidden), head.size, CHUNK):
                logits = head.logits(narrow[rows])
                for block in _chunks(len(logits), head.size, BLOCK.get(device, CHUNK)):
                    at = slice(rows.start + block.start, rows.start + block.stop)
                    read[at] = _read(logits[block], targets[at], shape)
        ctx.save_for_backward(hidden, weight, bias, targets, read)
        ctx.dtype, ctx.shape = dtype, shape
        return read

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        hidden, weight, bias, targets, read = ctx.saved_tensors
        narrow, head = hidden.to(ctx.dtype), Head(weight.to(ctx.dtype), None if bias is None else bias.to(ctx.dtype))
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        d_hidden = torch.empty_like(hidden) if wants_hidden else None
        d_weight = torch.zeros_like(weight, dtype=_wide(weight.dtype)) if wants_weight else None
        d_bias = torch.zeros_like(bias, dtype=_wide(bias.dtype)) if wants_bias else None
        # Logits are recomputed chunk by chunk instead of stored from the forward pass.
        for rows in _chunks(len(hidden), head.size, CHUNK):
            slope = _slope(head.logits(narrow[rows]), targets[rows], read[rows], ctx.shape)
            scaled = gradient[rows, None]
            if d_hidden is not None:
                d_hidden[rows] = (slope @ head.weight) * scaled
            if d_weight is not None:
                d_weight += slope.T @ (narrow[rows] * scaled).to(ctx.dtype)
            if d_bias is not None:
                d_bias += (slope * scaled).sum(0)
        return (
            d_hidden,
            None if d_weight is None else d_weight.to(weight.dtype),
            None if d_bias is None else d_bias.to(bias.dtype),
            None,
            None,
        )


class Head(NamedTuple):
    """A linear head in the precision of the forward pass."""

    weight: torch.Tensor  # [V, hidden]
    bias: torch.Tensor | None  # [V]

    @property
    def size(self) -> int:
        """Tokens of the vocabulary."""
        return len(self.weight)

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """Return [n, V] for hidden states [n, hidden]."""
        return torch.nn.functional.linear(hidden, self.weight, self.bias)


def _chunks(rows: int, width: int, limit: int) -> Iterator[slice]:
    """Cut `rows` rows of `width` numbers into slices of at most `limit` numbers, or one row."""
    size = max(1, limit // width)
    for start in range(0, rows, size):
        yield slice(start, min(start + size, rows))


def _slope(logits: torch.Tensor, targets: torch.Tensor, read: torch.Tensor, shape: Shape) -> torch.Tensor:
    """Return d log p(target) / d logits from raw logits [n, V], in their precision."""
    shaped = shape.apply(logits)
    # softmax sums in float32 whatever its input; where p(target) is near 1, e_target − p would cancel in bf16, so the
    # target's own entry comes from its log-probability.
    slope = torch.softmax(shaped, dim=1).neg_()
    slope.scatter_(1, targets[:, None], -torch.expm1(read)[:, None].to(slope.dtype))
    if shape.cap:
        slope *= 1 - (shaped / shape.cap).square()
    return slope.mul_(shape.scale) if shape.scale != 1.0 else slope
