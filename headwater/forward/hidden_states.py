"""Run a model over a batch in any row format: hidden states, or the outputs of an encoder.

In the format "single" every response gets a forward pass of its own, without padding or a mask, as plain transformers
would run it. It is the reference for every other format (forward/format_check.py), and the format for models that
pass in no other.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import torch

from headwater.errors import ModelError
from headwater.forward.attention import TREES, model_inputs
from headwater.forward.frozen_layers import split_of
from headwater.forward.packing import PairBatch
from headwater.models.parts import backbone, base_of

CHECKED = "_headwater_checked"
"""Attribute of a model that holds the results of `forward/format_check.py`."""


def hidden_states(model: Any, batch: PairBatch) -> torch.Tensor:
    """Run the backbone of `model` over a batch; returns hidden states [R × T, hidden].

    With frozen layers whose states are stored, it runs behind them. Errors: `ModelError` for a batch in a row format
    that was found for another model.
    """
    _check_attention(model, batch)
    found = _outputs(model, backbone(model), batch, use_cache=False)
    return torch.cat([output[0].flatten(0, 1) for output in found])


def frozen_states(model: Any, batch: PairBatch) -> torch.Tensor:
    """Return the hidden states behind the frozen layers of a split model, [R, T, hidden]; what lies behind is not run.

    Errors: those of `hidden_states`.
    """
    _check_attention(model, batch)
    split, body = split_of(model), backbone(model)
    assert split is not None
    states: list[torch.Tensor] = []
    for row in _inputs(model, body, batch):
        with split.ending() as found:
            body(**row, use_cache=False)
        states += found
    return torch.cat(states, dim=1)


def _inputs(model: Any, reader: Any, batch: PairBatch) -> Iterator[dict[str, Any]]:
    """Yield the inputs of `reader`, a part of `model`, for the forward passes of a batch: one, or one a response."""
    if batch["row_format"] == "single":
        return single_rows(model, reader, batch)
    return iter([model_inputs(batch)])


def _outputs(model: Any, reader: Any, batch: PairBatch, **named: Any) -> Iterator[Any]:
    """Yield the outputs of `reader`, a part of `model`, for the forward passes of a batch."""
    split = split_of(model)
    states = None if split is None else split.states_of(batch)
    if split is None or states is None:
        yield from (reader(**row, **named) for row in _inputs(model, reader, batch))
        return
    single, wide = batch["row_format"] == "single", states.shape[:2] == batch["input_ids"].shape
    sizes = [tree.length if wide else 1 for tree in batch["trees"]]
    parts = torch.split(states, sizes, dim=1) if single else (states,)
    for row, part in zip(_inputs(model, reader, batch), parts, strict=True):
        # Where only the first token of a row is read, the row consists of it.
        fitted = row if wide else {name: value[:, : part.shape[1]] for name, value in row.items()}
        with split.given(part):
            yield reader(**fitted, **named)


def _check_attention(model: Any, batch: PairBatch) -> None:
    """Refuse rows that the attention of a model would read otherwise: tokens would see those of other responses."""
    base, row_format = base_of(model), batch["row_format"]
    attention = str(base.config._attn_implementation)
    if row_format not in ("shared", "packed"):
        fits = not attention.startswith(TREES)
    else:
        # Some architectures keep their own attention (GPT-J); the check of their values then decides.
        fits = attention.startswith(TREES) or (CHECKED in vars(base) and not base._can_set_attn_implementation())
    if not fits:
        raise ModelError(
            type(base).__name__,
            f"attends by {attention!r}, which does not read {row_format} rows",
            "a row format is found for one model: call row_format_for(model, pairs) before its batches are made",
        )


def row_logits(model: Any, batch: PairBatch) -> torch.Tensor:
    """Run a whole sequence classifier over rows of one response each, padded or single: [responses, labels]."""
    reader = base_of(model) if batch["row_format"] == "single" else model
    return torch.cat([output.logits for output in _outputs(model, reader, batch)])


def single_rows(model: Any, reader: Any, batch: PairBatch) -> Iterator[dict[str, torch.Tensor]]:
    """Yield the inputs of `reader`, a part of `model`, for every response of a batch in the format "single"."""
    # An explicit mask of ones, because some models otherwise treat certain token ids as padding.
    masked = "attention_mask" in inspect.signature(reader.forward).parameters
    for ids in torch.split(batch["input_ids"], [tree.length for tree in batch["trees"]], dim=1):
        forget_longer_texts(model)
        yield {"input_ids": ids, **({"attention_mask": torch.ones_like(ids)} if masked else {})}


def text_logits(model: Any, ids: Sequence[int], last: int | None = None) -> torch.Tensor:
    """Return the logits of a causal model after each token of one text, [tokens, vocabulary], in float32 or wider.

    `last` keeps only so many of them, from the end.
    """
    forget_longer_texts(model)
    row = torch.tensor([list(ids)], device=next(model.parameters()).device)
    accepted = inspect.signature(base_of(model).forward).parameters
    extra = {"attention_mask": torch.ones_like(row), "use_cache": False, "logits_to_keep": last or 0}
    logits: torch.Tensor = model(input_ids=row, **{key: extra[key] for key in extra if key in accepted}).logits[0]
    kept = logits if last is None else logits[-last:]
    return kept if kept.dtype.itemsize >= 4 else kept.float()


def forget_longer_texts(model: torch.nn.Module) -> None:
    """Reset rotary embeddings of dynamic length to the state of a new model.

    transformers keeps the frequencies of the longest text so far (`max_seq_len_cached`) until a text below the trained
    length comes, so that results for a text depend on earlier ones.
    """
    for module in model.modules():
        cached = [name for name in vars(module) if name.endswith("max_seq_len_cached")]
        for name in cached if hasattr(module, "original_max_seq_len") else ():
            prefix = name.removesuffix("max_seq_len_cached")
            original = getattr(module, f"{prefix}original_inv_freq", None)
            if original is not None and getattr(module, name) != module.original_max_seq_len:
                device = getattr(module, f"{prefix}inv_freq").device
                module.register_buffer(f"{prefix}inv_freq", original.to(device), persistent=False)
                setattr(module, name, module.original_max_seq_len)
