"""Save a model so that Hugging Face tools load it: safetensors, tokenizer, chat template, model card; no pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from headwater.data.tokenizers import Tokenizer
from headwater.engine import cards


def save(
    model: Any,
    tokenizer: Tokenizer,
    path: Path,
    card: Mapping[str, Any] | None = None,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write model and tokenizer into `path`; with `card` (title, command, tags, base_model, facts) also a model card.

    `weights` are the model's where it does not hold them whole. Of an adapted model: the whole model with its adapters
    merged in, and the adapters alone in `adapter/`.
    """
    if hasattr(model, "merge_and_unload"):
        model.save_pretrained(path / "adapter")
        model, weights = model.merge_and_unload(), None
    model.save_pretrained(path, state_dict=None if weights is None else dict(weights))
    tokenizer.save_pretrained(path)
    if card:
        cards.write(path, card, type(model).__name__.endswith("ForSequenceClassification"))
