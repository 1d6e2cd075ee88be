"""Save a model in the form Hugging Face tools load: safetensors, tokenizer, chat template, model card; no pickle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from headwater import files
from headwater.data.tokenizers import Tokenizer
from headwater.errors import NumericalError
from headwater.files import manifest
from headwater.models import adapters, cards, turn_ends

LAST = "config.json"
"""Moved into place last, since nothing takes a folder without it for a model."""


def save(
    model: Any,
    tokenizer: Tokenizer,
    path: Path,
    card: Mapping[str, Any] | None = None,
    weights: Mapping[str, torch.Tensor] | None = None,
) -> None:
    """Write model and tokenizer to `path`; with `card` (title, command, tags, base_model, facts) also a model card.

    `weights` are the model's, given where it does not hold them whole. Of an adapted model: the merged model, and the
    adapters alone in `adapter/` (see `adapters.save`).
    """
    check_weights(model, str(path))
    path.mkdir(parents=True, exist_ok=True)
    with manifest.staged(path / "model") as staged:
        if hasattr(model, "merge_and_unload"):
            adapters.save(model, staged / "adapter", path)
            model, weights = model.merge_and_unload(), None
        if model.can_generate():
            turn_ends.name_end_tokens(model, tokenizer)
        model.save_pretrained(staged, state_dict=None if weights is None else dict(weights))
        tokenizer.save_pretrained(staged)
        if card:
            # Built from the run's own files, which are not staged.
            text = cards.text_of(path, card, type(model).__name__.endswith("ForSequenceClassification"), tokenizer)
            files.write_text(staged / "README.md", text)
        _put_in_place(staged, path)


def check_weights(model: torch.nn.Module, what: str) -> None:
    """Refuse to write a model with weights that are not finite. Errors: `NumericalError`."""
    broken = next((name for name, each in model.named_parameters() if not torch.isfinite(each).all()), None)
    if broken is not None:
        raise NumericalError(what, f"{broken} holds values that are not finite", "it is not written")


def _put_in_place(staged: Path, path: Path) -> None:
    """Move staged files into a folder one by one, each synced before it gets its name."""
    found = sorted((each for each in staged.rglob("*") if each.is_file()), key=lambda each: each == staged / LAST)
    for each in found:
        files.sync(each)
    for each in found:
        final = path / each.relative_to(staged)
        final.parent.mkdir(exist_ok=True)
        each.replace(final)
    files.sync(path)
