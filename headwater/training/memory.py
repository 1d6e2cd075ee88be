"""Memory of training: an estimate before it starts, and the measured peak after."""

from __future__ import annotations

import re
import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from headwater.console import say
from headwater.data.tokens import PairTokens
from headwater.forward.frozen_layers import split_of
from headwater.forward.head import CHUNK
from headwater.forward.packing import RowFormat, tokens_of
from headwater.training.options import TrainingOptions

GIB = 2**30
RANGE = (0.6, 1.6)
"""What training takes, as multiples of the estimate: measured on six settings, see docs/log.md."""
CPU_BF16 = 3 * GIB // 2
"""What bf16 takes on a CPU beside that, at most: kernels compiled for every shape, and buffers of the library.
Measured: 1.2 GiB after 110 steps of a model of 0.36 M parameters, where float32 takes 0.04 GiB in all."""


class Estimate(NamedTuple):
    """Estimated memory in bytes, by purpose."""

    weights: int
    training: int
    """Gradients and the two moments of Adam of the trained weights, in float32."""
    activations: int
    """Activations that are stored for one backward pass, and one chunk of logits."""
    kernels: int = 0
    """Kernels and buffers of bf16 on a CPU, at most; see `CPU_BF16`."""

    @property
    def range(self) -> tuple[float, float]:
        """Bytes that training takes beside the loaded weights: at least, and at most."""
        expected = self.training + self.activations
        return RANGE[0] * expected, RANGE[1] * expected + self.kernels

    def __str__(self) -> str:
        low, high = (size / GIB for size in self.range)
        parts = f"training {self.training / GIB:.2f} + activations {self.activations / GIB:.2f}"
        kernels = f", up to {self.kernels / GIB:.2f} for the kernels of bf16 on a CPU" if self.kernels else ""
        return f"{low:.2f} to {high:.2f} GiB beside {self.weights / GIB:.2f} of weights (estimate: {parts}{kernels})"


def estimate(
    model: Any, pairs: Sequence[PairTokens], row_format: RowFormat, options: TrainingOptions, *, bf16: bool
) -> Estimate:
    """Return an estimate of the memory of training `model` on `pairs`, packed and batched by the options.

    Activations are those that a Llama block keeps for its backward pass, counted with saved-tensor hooks: a token takes
    38 bytes a hidden unit and 8 an intermediate one in bf16, 44 and 16 in float32; with checkpointing one float32
    hidden state a layer, and one layer at a time.
    """
    config = model.config.get_text_config()
    hidden, split = config.hidden_size, split_of(model)
    layers = config.num_hidden_layers if split is None else len(split.trained)
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    lengths = sorted((tokens_of(pair, row_format) for pair in pairs), reverse=True)
    batch = _largest_batch(lengths, options.per_device_train_batch_size)
    tokens = max(lengths[0], min(options.tokens_per_pass, batch))
    block = 38 * hidden + 8 * inner if bf16 else 44 * hidden + 16 * inner
    block = block if layers else 4 * hidden  # frozen layers give their hidden states alone
    kept = block + 4 * hidden * layers if options.gradient_checkpointing else block * max(layers, 1)
    has_vocabulary = model.get_output_embeddings() is not None
    logits = min(CHUNK, tokens * config.vocab_size) * (4 if bf16 else 8) if has_vocabulary else 0
    parameters = list(model.parameters())
    trained = sum(p.numel() for p in parameters if p.requires_grad)
    weights = sum(p.numel() * p.element_size() for p in parameters)
    casts = 2 * sum(p.numel() for p in parameters) if bf16 else 0
    kernels = CPU_BF16 if bf16 and parameters[0].device.type == "cpu" else 0
    return Estimate(weights + casts, 12 * trained, tokens * kept + logits, kernels)


def _largest_batch(lengths: Sequence[int], size: int) -> int:
    """Return the tokens of a large batch of `size` of these rows, drawn at random: mean and three deviations."""
    longest = sum(sorted(lengths, reverse=True)[:size])
    return min(longest, round(float(size * np.mean(lengths) + 3 * np.sqrt(size) * np.std(lengths))))


class MemoryUse:
    """Estimated and measured memory of a training run; the estimate is printed when it is made."""

    def __init__(
        self, options: TrainingOptions, model: Any, pairs: Sequence[PairTokens], row_format: RowFormat, *, bf16: bool
    ) -> None:
        self._estimate = estimate(model, pairs, row_format, options, bf16=bf16)
        say(f"memory: training takes {self._estimate}")
        self._before = peak()

    def measured(self) -> dict[str, int]:
        """Print the peak of the process so far, and return it with the estimate, in bytes."""
        found = peak()
        say(f"memory: at most {found / GIB:.2f} GiB were used, {self._before / GIB:.2f} before training")
        return {**self._estimate._asdict(), "peak": found, "before_training": self._before}


def peak() -> int:
    """Return the peak memory so far, in bytes: of the GPU where there is one, else of the process."""
    if torch.cuda.is_available():
        return torch.cuda.max_memory_allocated()
    status = Path("/proc/self/status")
    if status.exists():  # getrusage would count what the parent process took before it started this one
        high_water = re.search(r"VmHWM:\s+(\d+) kB", status.read_text(encoding="ascii", errors="ignore"))
        if high_water:
            return int(high_water[1]) * 1024
    # macOS counts bytes, others kilobytes.
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
