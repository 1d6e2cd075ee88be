"""Learning-rate range test: raise the rate step by step and record the loss (arXiv:1506.01186, section 3.3).

The rate grows exponentially, the loss falls, levels off and rises. A tenth of the rate at which the smoothed loss was
lowest is still well inside the fall. The weights are put back afterwards: training starts where it would have.
"""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import transformers

from headwater import interrupts
from headwater.console import say, silence
from headwater.errors import NumericalError, UsageError
from headwater.training.trainer import PairTrainer

LOWEST, HIGHEST = 1e-7, 1.0
STEPS = 100
SMOOTHING = 0.9
"""Weight of the previous running mean at every step."""
DIVERGED = 4.0
"""The search ends where the smoothed loss exceeds its minimum by this factor."""
SHOWN = 10
"""Points of the curve that are printed."""


@dataclass(frozen=True)
class Search:
    """The curve of a search, one entry a step, and the rate it suggests."""

    rates: list[float]
    losses: list[float]
    """Smoothed."""

    @property
    def suggestion(self) -> float:
        """A tenth of the rate at which the smoothed loss was lowest."""
        return self.rates[int(np.argmin(self.losses))] / 10

    def facts(self) -> dict[str, Any]:
        """Return the curve and the suggestion as facts of a run."""
        return {**dataclasses.asdict(self), "suggestion": self.suggestion}

    def lines(self) -> Iterator[str]:
        """Yield the curve in a few lines, and the suggestion."""
        for place in np.unique(np.linspace(0, len(self.rates) - 1, SHOWN).round().astype(int)):
            yield f"learning rate {self.rates[place]:.2e}: loss {self.losses[place]:.4f}"
        yield f"learning rate {self.suggestion:.2e} is a tenth of that with the lowest loss"


def smoothed(losses: list[float]) -> list[float]:
    """Return the running means of losses, corrected for their start."""
    means, mean = [], 0.0
    for step, loss in enumerate(losses, start=1):
        mean = SMOOTHING * mean + (1 - SMOOTHING) * loss
        means.append(mean / (1 - SMOOTHING**step))
    return means


class _Raise(transformers.TrainerCallback):  # type: ignore[misc]
    """Sets the rate of every step, and ends the search when the loss has left its lowest value far behind."""

    def __init__(self) -> None:
        self.losses: list[float] = []

    @staticmethod
    def rate(step: int) -> float:
        return float(LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1)))

    def on_step_begin(self, args: Any, state: Any, control: Any, optimizer: Any, **others: Any) -> None:
        interrupts.check()
        for group in optimizer.param_groups:
            group["lr"] = self.rate(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: Any, **others: Any) -> None:
        if "loss" in logs:
            self.losses.append(logs["loss"])
            means = smoothed(self.losses)
            control.should_training_stop |= means[-1] > DIVERGED * min(means)


def search(make: Callable[..., PairTrainer], arguments: transformers.TrainingArguments) -> Search:
    """Set the learning rate of `arguments` by a search with a trainer of `make(arguments=…, log=…)`, and return it.

    The weights of the model are put back. Errors: `UsageError` for several processes.
    """
    if arguments.world_size > 1:
        raise UsageError("--find-learning-rate", "with several processes", "search with one, then give --learning-rate")
    short = copy.copy(arguments)
    short.max_steps, short.logging_steps, short.warmup_steps = STEPS, 1, 0
    short.eval_strategy, short.lr_scheduler_type = transformers.IntervalStrategy.NO, transformers.SchedulerType.CONSTANT
    short.save_strategy, short.report_to = transformers.trainer_utils.SaveStrategy.NO, []
    trainer = make(arguments=short, log=lambda row: None)
    kept = {name: weight.detach().to("cpu", copy=True) for name, weight in trainer.model.named_parameters()}
    raised = _Raise()
    trainer.add_callback(raised)
    try:
        with silence():
            trainer.train()
    except NumericalError:
        pass  # a loss that is not finite ends the curve: what came before it counts
    with torch.no_grad():
        for name, weight in trainer.model.named_parameters():
            weight.copy_(kept[name])
            weight.grad = None
    found = Search([raised.rate(step) for step in range(len(raised.losses))], smoothed(raised.losses))
    for line in found.lines():
        say(line)
    arguments.learning_rate = found.suggestion
    return found
