"""Freeze the first layers of a model (`--freeze-layers`), and check that it can be split behind them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch

from headwater.data.tokens import PairTokens
from headwater.errors import ModelError, UsageError, first_line
from headwater.forward.attention import attend_with
from headwater.forward.check_sample import ordinary_ids
from headwater.forward.format_check import REFUSALS, ROUNDING, checked, distance
from headwater.forward.frozen_layers import SPLIT, Split, hold
from headwater.forward.hidden_states import frozen_states
from headwater.forward.packing import PairBatch, RowFormat, collate
from headwater.forward.scores import kind_of, to_device
from headwater.models.parts import backbone, base_of, layers_of

POOLER = "pooler"
"""What encoders call the part of a score head that lies inside their backbone."""


class Frozen(NamedTuple):
    """What is trained of a model with frozen layers, in numbers."""

    trained_layers: int
    layers: int
    trained_weights: int
    weights: int

    def __str__(self) -> str:
        what = f"the last {self.trained_layers} of {self.layers} layers" if self.trained_layers else "the head alone"
        trained, every = (size / 1e6 for size in (self.trained_weights, self.weights))
        return f"training {what} ({trained:.4g} of {every:.4g} M weights)"


def freeze(model: Any, count: int) -> Frozen:
    """Freeze all of a model but its last `count` layers and what lies behind them; with 0, all but the head.

    Behind the layers lie the final norm and the output layer or score head, with its pooler. An output layer that
    shares the weights of the embeddings is frozen with them. Errors: `UsageError` for too many layers, or for a policy
    without one; `ModelError` for a model that cannot be split.
    """
    base, body, layers = base_of(model), backbone(model), layers_of(model)
    if count >= len(layers):
        problem = f"{type(base).__name__} has {len(layers)} layers"
        raise UsageError(f"--freeze-layers {count}", problem, f"give {len(layers) - 1} or fewer, or leave it out")
    if count == 0 and base.get_output_embeddings() is not None:
        problem = "leaves no layer of a policy to train"
        raise UsageError("--freeze-layers 0", problem, "give 1 or more; 0 is for reward models")
    behind, values = _behind(model, layers)
    if count == 0:
        # The final norm belongs to the features; a pooler that was never trained belongs to the head.
        behind = [module for name, module in body.named_modules() if name == POOLER and module in behind]
    trained = layers[len(layers) - count :]
    kept = {module for top in (*trained, *behind) for module in top.modules()}
    held = [module for module in body.modules() if module not in kept]
    frozen = {id(weight) for module in held for weight in module.parameters(recurse=False)}
    for weight in base.parameters():
        weight.requires_grad_(id(weight) not in frozen)
    vars(base)[SPLIT] = Split(layers[: len(layers) - count], trained, held, values)
    hold(model)
    sizes = [(weight.numel(), weight.requires_grad) for weight in base.parameters()]
    return Frozen(count, len(layers), sum(n for n, learns in sizes if learns), sum(n for n, _ in sizes))


def _behind(model: Any, layers: list[torch.nn.Module]) -> tuple[list[torch.nn.Module], int | None]:
    """Return the modules of the backbone that first run behind its last layer, and the length of a layer's output.

    The length is None for an output that is no tuple. Errors: `ModelError` where layers do not run once each, in order.
    """
    body, name = backbone(model), type(base_of(model)).__name__
    calls: list[torch.nn.Module] = []
    outputs: list[Any] = []
    handles = [m.register_forward_pre_hook(lambda module, inputs: calls.append(module)) for m in body.modules()]
    handles += [m.register_forward_hook(lambda module, inputs, output: outputs.append(output)) for m in layers]
    training, attention = body.training, base_of(model).config._attn_implementation
    ids = torch.as_tensor(ordinary_ids(model)[0][:4], dtype=torch.int64, device=next(body.parameters()).device)
    try:
        body.eval()
        attend_with(model, checked(model).attention)
        with torch.no_grad():
            body(input_ids=ids[None])
    except REFUSALS as error:
        raise ModelError(name, f"cannot read a text by itself: {first_line(error)}", "use another model") from error
    finally:
        for handle in handles:
            handle.remove()
        body.train(training)
        attend_with(model, attention)
    inside = {module for layer in layers for module in layer.modules()}
    if [module for module in calls if module in layers] != layers:
        problem = "does not run its layers once each, in order"
        raise ModelError(name, problem, "its layers cannot be frozen: leave --freeze-layers out")
    last = calls.index(layers[-1])
    behind = [module for module in calls[last:] if module not in inside and calls.index(module) > last]
    return behind, len(outputs[0]) if isinstance(outputs[0], tuple) else None


class _OfBatch:
    """The states of one batch."""

    def __init__(self, states: torch.Tensor) -> None:
        self._states = states

    def read(self, batch: PairBatch) -> torch.Tensor:
        """Return the states."""
        return self._states


def check(model: Any, pairs: Sequence[PairTokens], row_format: RowFormat) -> bool:
    """Refuse a model whose values from stored states differ from those of a whole forward pass; for a few `pairs`.

    Returns whether the parts behind the frozen layers read the first token of a row only. Errors: `ModelError`.
    """
    base, found = base_of(model), vars(base_of(model))[SPLIT]
    batch = to_device(collate(pairs, row_format), next(base.parameters()).device)
    score = kind_of(model).scores
    model.eval()
    try:
        with torch.no_grad():
            expected, states = score(model, batch), frozen_states(model, batch)
        states.requires_grad_()
        found.source = _OfBatch(states)
        given = score(model, batch)
        off = max(
            float((distance(mine.value, other.value) / other.value.abs().clamp(min=1)).max().detach())
            for mine, other in zip((given.chosen, given.rejected), (expected.chosen, expected.rejected), strict=True)
        )
        problem = "" if off <= ROUNDING else f"its values differ by {off:.2g}"
        slope = torch.autograd.grad(given.chosen.value.sum() + given.rejected.value.sum(), states)[0]
    except REFUSALS as error:
        problem = f"{type(error).__name__}: {first_line(error)[:120]}"
    finally:
        found.source = None
    if problem:
        what = f"cannot be split behind layer {len(found.frozen)}: {problem}"
        raise ModelError(type(base).__name__, what, "leave --freeze-layers out")
    by_place = slope.abs().amax(dim=(0, 2))
    return not found.trained and row_format == "padded" and not bool(by_place[1:].any())
