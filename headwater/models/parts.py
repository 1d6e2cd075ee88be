"""Parts of a model: the model below its adapters, the backbone without its head, and the layers of the backbone."""

from __future__ import annotations

from typing import Any

import torch

from headwater.errors import ModelError


def base_of(model: Any) -> Any:
    """Return the model as transformers built it: `model` itself, or the model below its adapters."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def backbone(model: Any) -> Any:
    """Return `model` without its head, with any adapters inside it."""
    return base_of(model).base_model


def layers_of(model: Any) -> list[torch.nn.Module]:
    """Return the layers of a model, first to last. Errors: `ModelError` where it does not keep them in one list."""
    body = backbone(model)
    count = getattr(body.config.get_text_config(), "num_hidden_layers", None)
    lists = (module for module in body.modules() if isinstance(module, torch.nn.ModuleList) and len(module) == count)
    # Lists inside layers (experts) may be as long; the outermost one comes first.
    found = next(lists, None)
    if found is None:
        name = type(base_of(model)).__name__
        raise ModelError(name, f"does not keep its {count} layers in one list", "its layers cannot be told apart")
    return list(found)
