"""Maximum number of tokens that a model can read, from its tables of position embeddings.

Rotary, relative and linear positions (RoPE, ALiBi) are computed for any length and set no limit.
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
"""Names of tables of learned positions: GPT-2, OPT, BERT, openai-gpt, …"""
FIXED = ("embed_positions", "pos_encoding", "position_enc")
"""Names of tables of computed positions with a fixed size: GPT-J, CodeGen, CTRL."""
ANY = 10**9


def limit_of(model: Any) -> int | None:
    """Return the number of positions of a model's tables; None where positions are computed for any length."""
    sizes = [size for module in model.modules() for size in _sizes(module)]
    if model.config.model_type == "mpt":  # whose distances (ALiBi) are computed up to there
        sizes.append(model.config.max_seq_len)
    if not sizes:
        return None
    # Some tables have rows that are never used (Nystromformer); the configuration counts the used ones.
    stated = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return min(sizes) if not stated or stated < 2 else min(*sizes, stated)


def _sizes(module: torch.nn.Module) -> list[int]:
    """Return the numbers of positions of the tables that are direct children of `module`."""
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
    """Return the row of a table at which the first token of a text is placed."""
    own = getattr(table, "offset", None)  # OPT, BART
    if isinstance(own, int):
        return own
    # RoBERTa counts positions from behind that of padding.
    return 0 if table.padding_idx is None else table.padding_idx + 1


def readable(model: Any) -> int:
    """Return the number of tokens a model can generate within: its table size, or its trained length."""
    limit = limit_of(model)
    stated = getattr(model.config.get_text_config(), "max_position_embeddings", None)
    return limit if limit is not None else int(stated or ANY)


def fit(asked: int | None, *models: Any) -> int:
    """Return the maximum number of tokens of prompt and response for all of `models`; `asked` is the user's value.

    Without a user's value it is the default, or what the models can read where that is less, which is printed.
    Errors: `UsageError` for more than they can read.
    """
    limits = [limit for model in models if (limit := limit_of(model)) is not None]
    limit = min(limits, default=ANY)
    if asked is not None and asked > limit:
        raise UsageError(f"--max-length {asked}", f"the model has {limit} positions", f"give {limit}, or leave it out")
    if asked is None and limit < MAX_LENGTH:
        say(f"max length: {limit} tokens, the number of positions of the model")
    return min(MAX_LENGTH, limit) if asked is None else asked


def fitted(encode_options: EncodeOptions, *models: Any) -> EncodeOptions:
    """Return truncation options with the `max_length` of `fit`. Errors: those of `fit`."""
    return dataclasses.replace(encode_options, max_length=fit(encode_options.max_length, *models))
