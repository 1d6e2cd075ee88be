"""Floating-point operations of training, from the shape of the model and the tokens it reads.

A forward and a backward pass cost 6 operations for every weight that a token is multiplied with (arXiv:2001.08361,
section 2.1), and 12 × layers × attention width for every token that a token sees: queries with keys and weights with
values, forward once and backward twice. The language-model head is counted on response tokens, where it runs;
embeddings are looked up, not multiplied. Tokens are taken to see all that is before them, whatever a model's windows.
Left out: norms, activations, the optimizer, padding, a reference model's pass, and what is computed again in backward
passes. With adapters, or an output layer that is frozen with the embeddings, it is an upper bound: frozen weights have
no gradients of their own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from headwater.data.tokens import PairTokens
from headwater.forward.packing import RowFormat, common_prefix_length, tokens_of


class TrainingCost(NamedTuple):
    """Tokens and floating-point operations of a training run."""

    training_tokens: float
    """Tokens of prompt (once a pair), chosen and rejected, over all epochs."""
    training_flops: float


def training_cost(
    model: Any,
    pairs: Sequence[PairTokens],
    row_format: RowFormat,
    epochs: float,
    frozen: Mapping[str, int] | None = None,
) -> TrainingCost:
    """Return the cost of `epochs` over `pairs` in a row format.

    `frozen` has the numbers of trained and of all layers of a model whose other layers are frozen: their share counts
    once, forward, whether their states were computed or found in the cache.
    """
    config = model.config.get_text_config()
    head = model.get_output_embeddings()
    tables = {table.weight for table in (model.get_input_embeddings(), head) if table is not None}  # one where tied
    body = sum(p.numel() for p in model.parameters()) - sum(table.numel() for table in tables)
    vocabulary = 0 if head is None else head.weight.numel()
    heads = getattr(config, "num_attention_heads", None) or 0  # a state-space model has none
    width = heads * (getattr(config, "head_dim", None) or config.hidden_size // max(heads, 1))
    tokens = sum(tokens_of(pair, row_format) for pair in pairs)
    responses = sum(len(pair.chosen) + len(pair.rejected) for pair in pairs)
    attention = config.num_hidden_layers * width * sum(_visible(pair, row_format) for pair in pairs)
    trained, before = 6.0 * vocabulary * responses, 0.0
    layers = 6.0 * body * tokens + 12.0 * attention
    if frozen is not None:
        share = frozen["trained_layers"] / frozen["layers"]
        layers, before = share * layers, (1 - share) * layers / 3
    return TrainingCost(epochs * sum(pair.length for pair in pairs), epochs * (trained + layers) + before)


def _visible(pair: PairTokens, row_format: RowFormat) -> int:
    """Return the number of pairs of a token and a token that it attends to, itself included."""
    ends = [len(pair.prompt) + len(side) for side in (pair.chosen, pair.rejected) if len(side)]
    trunk = len(pair.prompt) + common_prefix_length(pair)
    again = _triangle(trunk) * (len(ends) - 1) if row_format == "shared" else 0  # the trunk is computed once
    return sum(map(_triangle, ends)) - again


def _triangle(tokens: int) -> int:
    return tokens * (tokens + 1) // 2
