"""NEFTune: noise on the embeddings of the input while a model trains (arXiv:2310.05914).

The embedding of every token of a sequence of L tokens gets noise from U(−α/√(L d), α/√(L d)) in each of its d numbers.
L is the length of the sequence, not of the row: transformers and TRL take the width of the row, which in padded rows
makes the noise depend on the other rows, and in packed rows on all of them. Here

- packed, single: L is the length of a prompt with its response;
- padded: the same, without padding, as in the authors' code; padding gets no noise that any token sees;
- shared: tokens of a branch have the L of their own sequence. The trunk (prompt and common prefix) is read once for
  both responses and has one draw of noise; its L is that of the longer sequence, so that no token has more noise than
  it would have in a row of its own.

Noise is drawn from torch's generator, whose state every checkpoint holds, so that a training that was stopped goes on
bit for bit. Evaluation, reference values, the KL estimate of KTO and the saved model are without noise.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from headwater.forward.packing import PairBatch


@contextlib.contextmanager
def noisy_embeddings(model: Any, batch: PairBatch, alpha: float | None) -> Iterator[None]:
    """Add noise to the input embeddings of `model` while it reads `batch` inside; None adds none."""
    if alpha is None:
        yield
        return

    def add_noise(module: torch.nn.Module, inputs: Any, embeddings: torch.Tensor) -> torch.Tensor:
        scale = alpha / (sequence_lengths(batch, embeddings) * embeddings.shape[-1]).sqrt()
        noise = torch.rand_like(embeddings, dtype=torch.float32) * 2 - 1
        return embeddings + (noise * scale).to(embeddings.dtype)

    handle = model.get_input_embeddings().register_forward_hook(add_noise)
    try:
        yield
    finally:
        handle.remove()


def sequence_lengths(batch: PairBatch, embeddings: torch.Tensor) -> torch.Tensor:
    """Return the length L of the sequence of every token, [R, T, 1] float32, for embeddings [R, T, d] of the batch."""
    device, width = embeddings.device, embeddings.shape[1]
    if batch["row_format"] == "single":  # every sequence is embedded by itself
        return torch.full((1, width, 1), float(width), device=device)
    if not batch["trees"]:
        return batch["attention_mask"].sum(1).float()[:, None, None].expand(-1, width, 1)
    lengths: list[int] = []
    repeats: list[int] = []
    for tree in batch["trees"]:
        parts = [(tree.trunk, max(tree.branches)), *((branch, branch) for branch in tree.branches)]
        lengths += [tree.trunk + branch for _, branch in parts]
        repeats += [tokens for tokens, _ in parts]
    by_token = torch.tensor(lengths, device=device).repeat_interleave(torch.tensor(repeats, device=device))
    return by_token.float()[None, :, None]
