"""Compare whole next-token distributions position by position, without logits of the whole batch in memory.

As in head.py, logits exist for one chunk of positions at a time and are recomputed in the backward pass; here by
autograd, because two models and the whole vocabulary take part. Sums over the vocabulary are taken in float32 (float64
for a float64 model).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint

from headwater.forward.head import shape_of

LOGITS = 2**24
"""Maximum number of logits of one model in a chunk: 64 MiB in float32."""


def reference_kl(model: Any, reference: Any, hidden: torch.Tensor, reference_hidden: torch.Tensor) -> torch.Tensor:
    """Return KL(π_ref ‖ π) of the next-token distributions after n states of either model, nats: [n].

    Full vocabulary, forward KL, arXiv:2404.11999; the gradient reaches `model` and `hidden` alone.
    """

    def read(own: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            wanted = log_distribution(reference, other)
        return (wanted.exp() * (wanted - log_distribution(model, own))).sum(1)

    return _in_chunks(model, read, hidden, reference_hidden)


def log_collision(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Return log Σ_v p(v)² after n states, [n]: how likely it is that two draws agree (arXiv:2406.11827, eq. 2)."""

    def read(own: torch.Tensor) -> torch.Tensor:
        return (2 * log_distribution(model, own)).logsumexp(1)

    return _in_chunks(model, read, hidden)


def log_distribution(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Return log p(v) after states [n, hidden]: [n, V], float32 or wider."""
    logits = model.get_output_embeddings()(hidden)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return shape_of(model).apply(logits).log_softmax(1)


def _in_chunks(model: Any, read: Callable[..., torch.Tensor], *states: torch.Tensor) -> torch.Tensor:
    """Apply `read` to chunks of positions; logits are recomputed in the backward pass instead of stored."""
    size = max(1, LOGITS // model.get_input_embeddings().weight.shape[0])
    chunks = zip(*(torch.split(each, size) for each in states), strict=True)
    return torch.cat([checkpoint(read, *chunk, use_reentrant=False) for chunk in chunks])
