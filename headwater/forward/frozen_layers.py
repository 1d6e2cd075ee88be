"""Models whose first layers are frozen: forward passes that begin behind them, from states that are stored.

        tokens → embeddings → layer 1 → … → layer K−N ┊ layer K−N+1 → … → layer K → norm → head
                        frozen, without dropout       ┊      trained
                                                      ┊
                                                 stored once

Frozen layers give a token the same hidden state in every epoch, and in every run from the same model. Where the states
of all tokens of a batch are stored (`StateSource`), each frozen layer returns them instead of computing anything; the
model is otherwise the one of transformers. Embeddings, positions and masks are still computed by the model, so that a
layer gets what it would get. A batch of which some states are not stored is read as a whole.

`forward/freezing.py` makes a split and checks that a model can be split; `forward/state_store.py` stores the states.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from headwater.forward.packing import PairBatch
from headwater.models.parts import base_of

SPLIT = "_headwater_split"
"""Attribute of a model that holds its split. In its `__dict__`: copies of a model have a split of their own layers."""


class StateSource(Protocol):
    """States behind the frozen layers, by the tokens of a batch."""

    def read(self, batch: PairBatch) -> torch.Tensor | None:
        """Return the states of a batch, [R, T, hidden] float32; None where some are not known.

        [R, 1, hidden] (in the format "single" [1, R, hidden]) where what lies behind reads the first token of a row
        only.
        """


@dataclass(eq=False)
class Split:
    """A model in two parts: frozen layers, and what is trained."""

    frozen: list[torch.nn.Module]
    """The frozen layers, first to last; at least one."""
    trained: list[torch.nn.Module]
    """The layers that are trained, first to last."""
    held: list[torch.nn.Module]
    """All modules of the frozen part, which stay in evaluation mode: they have no dropout."""
    values: int | None
    """Length of the tuple that a layer returns, of which the first value is the hidden states; None for these alone."""
    source: StateSource | None = None

    def states_of(self, batch: PairBatch) -> torch.Tensor | None:
        """Return the stored states of a batch; None where they are not all stored."""
        return None if self.source is None else self.source.read(batch)

    @contextlib.contextmanager
    def given(self, states: torch.Tensor | None) -> Iterator[None]:
        """Let the frozen layers return `states` inside, [rows, tokens, hidden]; with None they compute as always."""
        if states is None:
            yield
            return
        weight = next(self.frozen[-1].parameters())
        known = states.to(weight.device, weight.dtype)
        output = known if self.values is None else (known, *(None,) * (self.values - 1))
        with contextlib.ExitStack() as stack:
            for layer in self.frozen:
                stack.enter_context(_computing(layer, lambda *inputs, **named: output))
            yield

    @contextlib.contextmanager
    def ending(self) -> Iterator[list[torch.Tensor]]:
        """End a forward pass behind the last frozen layer inside, and add its states, [rows, tokens, hidden]."""
        found: list[torch.Tensor] = []

        def end(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            found.append(output if self.values is None else output[0])
            raise _EndedError

        last = self.frozen[-1]
        handle = last.register_forward_hook(end)
        try:
            # A compiled layer would take the hook into its graph.
            with _computing(last, last.forward), contextlib.suppress(_EndedError):
                yield found
        finally:
            handle.remove()


class _EndedError(Exception):
    """Ends a forward pass whose states are known."""


@contextlib.contextmanager
def _computing(layer: torch.nn.Module, forward: Callable[..., Any]) -> Iterator[None]:
    """Let a layer compute `forward` inside, uncompiled."""
    own: dict[str, Any] = vars(layer)
    instead: dict[str, Any] = {"forward": forward, "_compiled_call_impl": None}
    before = {name: own[name] for name in instead if name in own}
    own.update(instead)
    try:
        yield
    finally:
        for name in instead:
            del own[name]
        own.update(before)


def split_of(model: Any) -> Split | None:
    """Return the split of a model; None where all of it is trained."""
    found: Split | None = vars(base_of(model)).get(SPLIT)
    return found


def hold(model: Any) -> None:
    """Put the frozen part of a model into evaluation mode; the mode of its containers decides about layer drop too."""
    found = split_of(model)
    for module in () if found is None else found.held:
        module.training = False


def join(model: Any) -> None:
    """Forget the split of a model, whose forward passes then begin at its embeddings again."""
    vars(base_of(model)).pop(SPLIT, None)
