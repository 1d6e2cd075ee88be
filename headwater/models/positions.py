"""How many tokens a model can read: a table of positions that it learned, or that it was built with, bounds every row.

Rotary, relative and linear positions (RoPE, ALiBi) are computed for any length, and bound nothing.
"""

from __future__ import annotations

import dataclasses
import re
from typing import Any

import torch

from headwater.console import say
from headwater.data.tokens import MAX_LENGTH, EncodeOptions
from headwater.errors import UsageError

TABLE = re.compile(r"(^|_)(wpe|positions?(_emb(ed(ding)?s?)?)?|pos_emb(ed(ding)?s?)?|embed_positions|positions_embed)$")
"""Names that models give their tables of positions: GPT-2, OPT, BERT, openai-gpt, …"""
FIXED = ("embed_positions", "pos_encoding", "position_enc")
"""Names of tables of computed positions, of a size that does not grow: GPT-J, CodeGen, CTRL."""
ANY = 10**9


def limit_of(model: Any) -> int | None:
    """Return how many positions a model's tables have; None where positions are computed for any length."""
    sizes = [size for module in model.modules() for size in _sizes(module)]
    if model.config.model_type == "mpt":  # whose distances (ALiBi) are computed up to there
        sizes.append(model.config.max_seq_len)
    if not sizes:
        return None
    # Some tables have rows that are never looked up (Nystromformer); the configuration counts those that are.
    stated = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return min(sizes) if not stated or stated < 2 else min(*sizes, stated)


def _sizes(module: torch.nn.Module) -> list[int]:
    """Return how many positions the tables right inside of `module` have."""
    if hasattr(module, "make_weights"):  # XGLM and M2M-100 compute more where they need more
        return []
    tables = [
        table
        for name, table in module.named_children()
        if isinstance(table, torch.nn.Embedding) and TABLE.search(name) and not hasattr(table, "make_weights")
    ]
    fixed = [vars(module).get(name, module._buffers.get(name)) for name in FIXED]
    sizes = [len(table) for table in fixed if isinstance(table, torch.Tensor) and table.ndim == 2]
    return sizes + [table.num_embeddings - _offset(table) for table in tables]


def _offset(table: torch.nn.Embedding) -> int:
    """Return at which row of a table the first token of a text stands."""
    own = getattr(table, "offset", None)  # OPT, BART
    if isinstance(own, int):
        return own
    # RoBERTa counts positions from behind that of padding.
    return 0 if table.padding_idx is None else table.padding_idx + 1


def readable(model: Any) -> int:
    """Return how many tokens a model generates within: what its tables hold, or what it was trained for."""
    limit = limit_of(model)
    stated = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return limit if limit is not None else int(stated or ANY)


def fit(asked: int | None, *models: Any) -> int:
    """Return how many tokens of prompt and response all of `models` are to read, where `asked` is what was asked for.

    What nobody asked for is the default, or what the models can read where that is less, which is said.
    Errors: `UsageError` for more than they can read.
    """
    limits = [limit for model in models if (limit := limit_of(model)) is not None]
    limit = min(limits, default=ANY)
    if asked is not None and asked > limit:
        raise UsageError(f"--max-length {asked}", f"the model has {limit} positions", f"give {limit}, or leave it out")
    if asked is None and limit < MAX_LENGTH:
        say(f"max length: {limit} tokens, the positions that the model has")
    return min(MAX_LENGTH, limit) if asked is None else asked


def fitted(encode_options: EncodeOptions, *models: Any) -> EncodeOptions:
    """Return a view with the `max_length` that `fit` says. Errors: those of `fit`."""
    return dataclasses.replace(encode_options, max_length=fit(encode_options.max_length, *models))
