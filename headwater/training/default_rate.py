"""Default learning rate of a training run, by where its model comes from and how large it is.

Published rates are those of large pretrained models: a small model, or one that began with random weights, hardly moves
at them. A run on a scratch model's run keeps the scratch model's rate.
"""

from __future__ import annotations

from math import prod, sqrt
from pathlib import Path
from typing import NamedTuple

from headwater.config import build
from headwater.data.tokenizers import is_call
from headwater.errors import ModelError
from headwater.models import tensor_files
from headwater.models.loading import SCRATCH
from headwater.results import runs

SCRATCH_RATE = 1e-3
"""Peak learning rate of a small model with random weights, and of what descends from it."""
SMALL = 10_000_000
"""Parameters up to which a model is small. Beyond, a scratch model's rate falls with the root of its size: 2.8e-4 at
125 million parameters, where GPT-3 (arXiv:2005.14165, table 2.1) took 6e-4, 1e-4 at a billion, where it took 2e-4."""


class DefaultRate(NamedTuple):
    """A learning rate, and why it is the default."""

    value: float
    reason: str


def default_rate(model: str, published: float, command: str) -> DefaultRate:
    """Return the default rate for a model by name or path; `published` is that of `command` for pretrained models."""
    line = ancestry(model)
    size = parameters_of(model)
    sized = "" if size is None else f" ({size / 1e6:.2f} M parameters)"
    if is_call(line[-1]):
        rate = SCRATCH_RATE if size is None or size <= SMALL else SCRATCH_RATE * sqrt(SMALL / size)
        where = "it begins with random weights" if len(line) == 1 else f"it descends from {line[-1]}"
        return DefaultRate(float(f"{rate:.2g}"), f"{where}{sized}")
    if size is not None and size <= SMALL:
        return DefaultRate(SCRATCH_RATE, f"it is a small model{sized}")
    return DefaultRate(published, f"that of {command} for pretrained models{sized}")


def ancestry(model: str) -> list[str]:
    """Return the model and what it was trained from, run by run, to the first that is no run of headwater."""
    line = [model]
    while not is_call(line[-1]):
        base = runs.facts_of(Path(line[-1])).get("base")
        if base is None or base in line:
            break
        line.append(base)
    return line


def parameters_of(model: str) -> int | None:
    """Return the number of parameters of a model, from the headers of its files; None where they are not here.

    For a scratch model it is counted from its shape, without biases and norms.
    """
    if is_call(model):
        shape = build(model, SCRATCH, "model")
        return int(shape.vocab * shape.hidden + 12 * shape.layers * shape.hidden**2)
    try:
        files = tensor_files.files_of(model)
        return sum(prod(header.shape) for header in tensor_files.headers(files).values()) if files else None
    except ModelError:  # a damaged file is refused, with what to do, where the model is loaded
        return None
