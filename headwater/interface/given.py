"""Models and losses in memory: names that stand for them where a command takes a path or a call.

A model is saved once into the cache, in a folder named by a digest of its weights and tokenizer, so that whatever
refers to it later, such as the reference of a policy, finds it. A loss is held under a name while a function runs.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from headwater.errors import UsageError


def is_model(value: Any) -> bool:
    """Return whether a value is a model in memory: (model, tokenizer), or a pipeline of transformers."""
    if isinstance(value, tuple):
        return len(value) == 2 and hasattr(value[0], "save_pretrained") and hasattr(value[1], "save_pretrained")
    return hasattr(value, "model") and hasattr(value, "tokenizer") and hasattr(value.model, "save_pretrained")


def place_of(value: Any) -> str:
    """Return the folder that a model in memory is saved in. Errors: `UsageError` for an object that is no model."""
    if not is_model(value):
        kind = f"a {type(value).__module__.partition('.')[0]}.{type(value).__name__}"
        hint = "expected a path, a name, or (model, tokenizer)"
        raise UsageError(kind, "is no model with its tokenizer", hint)
    from headwater.models.in_memory import saved

    model, tokenizer = value if isinstance(value, tuple) else (value.model, value.tokenizer)
    return str(saved(model, tokenizer))


@contextlib.contextmanager
def held_loss(loss: Any) -> Iterator[str]:
    """Hold a loss while the block runs, and return the text that stands for it. Errors: `UsageError`."""
    from headwater.losses import custom

    with custom.held(loss) as text:
        yield text


def name_of(value: Any) -> str | Path:
    """Return a text or path as it is, and the directory of a result."""
    return Path(value.__fspath__()) if hasattr(value, "__fspath__") else value
