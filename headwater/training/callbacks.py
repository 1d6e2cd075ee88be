"""Trainer callbacks: evaluation, early stopping, and stopping at a signal.

The early stopping of transformers reloads the best weights from checkpoints, which it writes with the optimizer at
every evaluation; here the best weights are kept in host memory.
"""

from __future__ import annotations

import signal
from collections.abc import Mapping
from typing import Any

import torch
import transformers

from headwater import interrupts


class EvaluateEvery(transformers.TrainerCallback):  # type: ignore[misc]
    """Evaluates every `steps` steps, in addition to the end of every epoch."""

    def __init__(self, steps: int) -> None:
        self._steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Ask for an evaluation where one is due."""
        if state.global_step % self._steps == 0:
            control.should_evaluate = True


class StopWhenAsked(transformers.TrainerCallback):  # type: ignore[misc]
    """Ends training after the current step when a signal asks for it, with a checkpoint to continue from.

    A checkpoint at the last step of an epoch is written after the evaluation that ends the epoch, so that the
    continued run neither misses nor repeats it. After the very last step nothing is stopped: the run is finished.
    """

    def __init__(self, accelerator: Any, steps_per_epoch: int) -> None:
        """Take the optimizer steps of an epoch; with several processes, all of them stop where one is asked."""
        self._accelerator, self._epoch = accelerator, steps_per_epoch
        self._asked = False

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Read whether a stop is requested; inside an epoch, save and stop here."""
        if state.global_step >= state.max_steps:
            return
        self._asked = self._asked or self._any_asked()
        if self._asked and state.global_step % self._epoch:
            control.should_save = control.should_training_stop = True

    def on_epoch_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Save and stop after the evaluation of a finished epoch; an unfinished one is not evaluated."""
        if not self._asked:
            return
        if state.global_step % self._epoch:
            control.should_evaluate = False
        else:
            control.should_save = control.should_training_stop = True

    def on_train_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """End the command where training was stopped. Errors: `interrupts.Stopped`."""
        if self._asked:
            raise interrupts.Stopped(interrupts.requested() or signal.SIGTERM)

    def _any_asked(self) -> bool:
        asked = interrupts.requested() is not None
        if self._accelerator.num_processes == 1:
            return asked
        counted = self._accelerator.reduce(torch.tensor(int(asked), device=self._accelerator.device), "sum")
        return bool(counted.item())


class EvaluateBeforeSave(transformers.TrainerCallback):  # type: ignore[misc]
    """Moves the evaluation at the end of an epoch to its last step, before a checkpoint is written.

    transformers evaluates after the checkpoint; a training that continues from it would skip that evaluation.
    """

    def __init__(self) -> None:
        self._evaluated = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Ask for the evaluation at the last step of an epoch, or of the training."""
        last = state.epoch == int(state.epoch) or state.global_step >= state.max_steps
        control.should_evaluate |= last and args.eval_strategy == transformers.IntervalStrategy.EPOCH

    def on_evaluate(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Remember the step of the evaluation."""
        self._evaluated = state.global_step

    def on_epoch_end(self, args: Any, state: Any, control: Any, **others: Any) -> None:
        """Cancel the evaluation at the end of the epoch where its last step was evaluated."""
        control.should_evaluate &= self._evaluated != state.global_step


class KeepBest(transformers.TrainerCallback):  # type: ignore[misc]
    """Ends training after `patience` evaluations without improvement, and restores the best weights.

    Of equal figures the earlier one is kept. Memory: a copy of the trained weights on the host.
    """

    def __init__(self, patience: int, figure: str) -> None:
        """Compare evaluations by `figure`, one of their keys: lower is better for a loss, higher for any other."""
        self._patience, self._figure = patience, figure
        self._sign = -1 if figure.endswith("loss") else 1
        self._weights: dict[str, torch.Tensor] = {}
        self._seen: set[int] = set()
        self._since = 0
        self.step = 0
        """The optimizer step after which the figure was best."""
        self.evaluation: dict[str, float] = {}
        """All figures of that moment."""

    @property
    def evaluations(self) -> int:
        """How many the best one was chosen among."""
        return len(self._seen)

    def on_evaluate(self, args: Any, state: Any, control: Any, metrics: Any, model: Any, **others: Any) -> None:
        """Copy the weights where they are the best so far; end training after `patience` others."""
        if state.global_step in self._seen:
            return  # the end of an epoch that was due anyway
        self._seen.add(state.global_step)
        if self.evaluation and self._sign * (metrics[self._figure] - self.evaluation[self._figure]) <= 0:
            self._since += 1
            control.should_training_stop |= self._since >= self._patience
            return
        self._since, self.step, self.evaluation = 0, state.global_step, dict(metrics)
        trained = ((name, weight) for name, weight in model.named_parameters() if weight.requires_grad)
        self._weights = {name: weight.detach().to("cpu", copy=True) for name, weight in trained}

    def on_train_end(self, args: Any, state: Any, control: Any, model: Any, **others: Any) -> None:
        """Restore the best weights."""
        weights = dict(model.named_parameters())
        with torch.no_grad():
            for name, kept in self._weights.items():
                weights[name].copy_(kept)

    def saved(self) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
        """Return the best weights and the figures, for a checkpoint."""
        weights = {f"best/{name}": weight for name, weight in self._weights.items()}
        figures = {"since": self._since, "step": self.step, "evaluation": self.evaluation, "seen": sorted(self._seen)}
        return weights, figures

    def go_on(self, tensors: Mapping[str, torch.Tensor], figures: Mapping[str, Any]) -> None:
        """Restore the state that `saved` has returned."""
        best = {name: each for name, each in tensors.items() if name.startswith("best/")}
        self._weights = {name.removeprefix("best/"): each for name, each in best.items()}
        self._since, self.step, self._seen = figures["since"], figures["step"], set(figures["seen"])
        self.evaluation = dict(figures["evaluation"])

    def summary(self, last: int) -> str:
        """Return the line that says which step was kept of a training that ended after step `last`."""
        best = f"{self._figure.removeprefix('eval_')} {self.evaluation[self._figure]:.4g}"
        return f"early stopping: kept step {self.step} of {last} ({best}, the best of {self.evaluations} evaluations)"
