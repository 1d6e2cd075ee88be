"""Losses of users: any callable of the scores of a pair, by `module:name`, or held in memory by a Python program.

    def half_margin(policy, reference):
        margin = (policy.chosen.value - policy.rejected.value) - (reference.chosen.value - reference.rejected.value)
        return -torch.nn.functional.logsigmoid(0.05 * margin)

It is called with `PairScores` of the policy and of the reference, whose values are [pairs], and returns a `PairLoss`,
or the loss of every pair, [pairs]. An attribute `needs_reference = False` leaves the reference out (it is None then),
and `needs` names what else it reads (`types.py`).
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from headwater.errors import UsageError
from headwater.losses.types import LossBase, PairLoss, PairScores

NAMED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)*:[A-Za-z_]\w*", re.ASCII)
"""`module:name`; no call, so that a configuration file of somebody else can call nothing with arguments of its own."""
PREFIX = "in memory: "

_HELD: dict[str, Callable[..., Any]] = {}


class CustomLoss(LossBase):
    """A callable of a user as a loss."""

    __slots__ = ("_function", "_has_reference", "_text")

    def __init__(self, text: str, function: Callable[..., Any], has_reference: bool = True) -> None:
        self._text, self._function, self._has_reference = text, function, has_reference

    @property
    def name(self) -> str:  # type: ignore[override]  # of an instance here, of a class elsewhere
        """The text that names it, which no loss of headwater has: a function `dpo` is not taken for DPO later."""
        return self._text

    @property
    def needs_reference(self) -> bool:  # type: ignore[override]
        """Whether the callable reads the reference, where there is one."""
        return self._has_reference and bool(getattr(self._function, "needs_reference", True))

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """What the callable reads beside the values of both responses."""
        return frozenset(getattr(self._function, "needs", ()))

    @property
    def takes_unpaired(self) -> bool:  # type: ignore[override]
        """Whether a row may hold one labelled response."""
        return bool(getattr(self._function, "takes_unpaired", False))

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        """Return the loss of every pair. Errors: `UsageError` where the callable returns something else."""
        result = self._function(policy, reference)
        if isinstance(result, PairLoss):
            return result
        shape = tuple(policy.chosen.value.shape)
        if not isinstance(result, torch.Tensor) or tuple(result.shape) != shape:
            found = f"shape {list(result.shape)}" if isinstance(result, torch.Tensor) else f"a {type(result).__name__}"
            raise UsageError(
                f"loss {self._text}", f"returned {found}", f"expected the loss of each pair, {list(shape)}"
            )
        chosen, rejected = policy.chosen.value, policy.rejected.value
        if reference is not None:
            chosen, rejected = chosen - reference.chosen.value, rejected - reference.rejected.value
        return PairLoss(result, chosen.detach(), rejected.detach())

    def __repr__(self) -> str:
        return self._text

    def __reduce__(self) -> tuple[Any, ...]:
        return custom_loss, (self._text, self._has_reference)


def is_custom(text: str) -> bool:
    """Return whether the text of a loss names a callable of a user."""
    return text.startswith(PREFIX) or NAMED.fullmatch(text.strip()) is not None


def custom_loss(text: str, has_reference: bool = True) -> CustomLoss:
    """Return the loss that `module:name` names, or that is held under a text; for a reward model without a reference.

    The module is found as `python -m` finds it, in the working directory too. Errors: `UsageError`.
    """
    text = text.strip()
    if text.startswith(PREFIX):
        if text not in _HELD:
            raise UsageError(text, "was a loss in the memory of a Python program", "pass the same function again")
        return CustomLoss(text, _HELD[text], has_reference)
    module_name, _, name = text.partition(":")
    function = getattr(_module(module_name, text), name, None)
    function = function() if inspect.isclass(function) else function
    if not callable(function):
        hint = "name a function (policy, reference)"
        raise UsageError(f"loss {text}", f"{module_name} has no callable {name}", hint)
    return CustomLoss(text, function, has_reference)


def _module(name: str, text: str) -> Any:
    with_directory = [str(Path.cwd()), *sys.path]
    try:
        sys.path, before = with_directory, sys.path
        try:
            return importlib.import_module(name)
        finally:
            sys.path = before
    except Exception as error:  # whatever the module does
        problem = f"{name} cannot be imported: {type(error).__name__}: {error}"
        raise UsageError(f"loss {text}", problem, "name a module of this directory or environment") from error


@contextlib.contextmanager
def held(loss: Any) -> Iterator[str]:
    """Hold a callable while the block runs, and return the text that stands for it; of headwater's losses, their call.

    Errors: `UsageError` for an object that is no loss.
    """
    if isinstance(loss, LossBase):
        yield repr(loss)
        return
    if not callable(loss):
        raise UsageError(f"a {type(loss).__name__}", "is no loss", "expected a text or a function (policy, reference)")
    text = f"{PREFIX}{getattr(loss, '__name__', type(loss).__name__)}"
    made: Any = loss() if inspect.isclass(loss) else loss
    _HELD[text] = made
    try:
        yield text
    finally:
        del _HELD[text]
