"""Detect values that are not finite before they are used.

- `check_scores`: the scores of responses, in every command.
- `StepGuard`: the loss and the gradient of every optimizer step, before the step.

A step whose loss or gradient is not finite is not taken: weights, moments and step counts of the optimizer keep their
values. On a CPU the two flags are read at once. On a GPU reading them would wait for the backward pass while the device
has nothing to do; a fused optimizer therefore gets the flag on the device (`found_inf`, made for loss scaling) and
leaves the step out, and the host reads the flags when the next step is ready.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
import transformers
from accelerate import Accelerator
from accelerate.utils import gather_object

from headwater.console import say
from headwater.errors import NumericalError

NaNPolicy = Literal["stop", "skip"]
SHOWN = 5
"""Maximum number of row ids in a message; the run's facts hold all of them."""


def check_scores(values: Any, ids: Sequence[str], what: str) -> None:
    """Refuse scores that are not finite: `values` [rows] or [rows, …], or one array a row. Errors: `NumericalError`."""
    if isinstance(values, np.ndarray) and np.isfinite(values).all():
        return
    broken = [name for name, row in zip(ids, values, strict=True) if not np.isfinite(row).all()]
    if broken:
        found = f"{len(broken)} of {len(ids)} rows have scores that are not finite"
        raise NumericalError(what, found, shown(broken), "use another checkpoint, or leave these rows out")


def check_logits(logits: Sequence[torch.Tensor], ids: Sequence[str], what: str) -> None:
    """Refuse logits [n, vocabulary] that define no distribution. Errors: `NumericalError`.

    Single tokens may be excluded (−∞). The largest logit decides, since NaN and +∞ propagate to it.
    """
    check_scores(torch.stack([each.detach().float().amax() for each in logits]).cpu().numpy(), ids, what)


class FiniteLogits(transformers.LogitsProcessor):  # type: ignore[misc]
    """Stop a generation at logits that define no distribution."""

    def __init__(self, ids: Sequence[str], what: str) -> None:
        """Store the `ids` of the rows. Errors, when it is called: `NumericalError`."""
        self._ids, self._what = ids, what

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return `scores` [rows, vocabulary] unchanged."""
        check_logits(list(scores), self._ids, self._what)
        return scores


def shown(ids: Sequence[str]) -> str:
    """Return row ids for a message, shortened to the first few."""
    left = f" and {len(ids) - SHOWN} more" if len(ids) > SHOWN else ""
    return f"row{'s' if len(ids) > 1 else ''} {', '.join(ids[:SHOWN])}{left}"


class SkippedStep(NamedTuple):
    """An optimizer step that was not taken."""

    step: int
    found: str
    """What was not finite: the loss, the gradient, or both."""
    rows: list[str]
    """The rows whose loss was not finite; those of the whole batch where that cannot be told."""


class _Pending(NamedTuple):
    """A step whose flags have not been read."""

    step: int
    finite: torch.Tensor  # [2] on the host: loss, gradient
    ready: torch.cuda.Event | None
    ids: list[str]
    by_row: list[torch.Tensor]  # of every pass, [pairs]: whether the loss of a row is finite


class StepGuard:
    """Decides before every optimizer step whether it is taken; all processes decide alike."""

    def __init__(
        self, accelerator: Accelerator, policy: NaNPolicy, max_skips: int, before_stop: Callable[[int], str]
    ) -> None:
        """Stop at the first bad step, or skip up to `max_skips` of them.

        `before_stop` is called with the number of a bad step; it saves the training as it was before that step and
        returns the sentence that names the place.
        """
        self._accelerator, self._policy, self._max_skips = accelerator, policy, max_skips
        self._before_stop = before_stop
        self._pending: list[_Pending] = []
        self._ids: list[str] = []
        self._by_row: list[torch.Tensor] = []
        self._loss = torch.zeros((), device=accelerator.device)
        self.taken = torch.zeros(2, dtype=torch.float64, device=accelerator.device)
        """Of this process, over the steps since the last log line: sum and number of their losses."""
        self.logged = torch.zeros(2, dtype=torch.float64, device=accelerator.device)
        """The same over all earlier steps and all processes."""
        self.skipped: list[SkippedStep] = []

    def go_on(self, saved: Mapping[str, torch.Tensor], skipped: Sequence[Sequence[Any]]) -> None:
        """Restore the sums and the skipped steps of a checkpoint; the first process holds those of all."""
        self.logged = saved["logged"].to(self.logged.device)
        if self._accelerator.is_main_process:
            self.taken = saved["taken"].to(self.taken.device)
        self.skipped = [SkippedStep(*each) for each in skipped]

    def see_rows(self, losses: torch.Tensor) -> None:
        """Record the losses [pairs] of a pass."""
        self._by_row.append(torch.isfinite(losses.detach()))

    def see_batch(self, loss: torch.Tensor, ids: Sequence[str]) -> torch.Tensor:
        """Record a batch, whose `ids` come in the order of its passes; return its loss, 0 if not finite."""
        self._loss = self._loss + loss
        self._ids += ids
        return torch.where(torch.isfinite(loss), loss, 0.0)

    def forget_step(self) -> None:
        """Drop the batches of a step that is about to be recomputed."""
        self._loss, self._ids, self._by_row = torch.zeros_like(self._loss), [], []

    def decide(self, step: int, norm: torch.Tensor | float, optimizer: Any) -> torch.Tensor:
        """Allow or forbid the optimizer's step, given the norm of the gradient; return the decision on the device.

        Errors: `NumericalError` by policy, for this step or the one before.
        """
        self.settle()
        norm = torch.as_tensor(norm.full_tensor() if hasattr(norm, "full_tensor") else norm, device=self._loss.device)
        finite = torch.stack([torch.isfinite(self._loss), torch.isfinite(norm)])
        if self._accelerator.num_processes > 1:
            total: torch.Tensor = self._accelerator.reduce(finite.float(), "sum")
            finite = total == self._accelerator.num_processes
        takes = finite.all()
        self.taken += torch.where(takes, torch.stack([self._loss.double(), torch.ones_like(self._loss).double()]), 0.0)
        host, ready = _to_host(finite)
        pending = _Pending(step, host, ready, self._ids, self._by_row)
        self._loss, self._ids, self._by_row = torch.zeros_like(self._loss), [], []
        if ready is not None and _skips_on_device(optimizer):
            getattr(optimizer, "optimizer", optimizer).found_inf = (~takes).float()
            self._pending.append(pending)
        elif not self._read(pending):
            # An optimizer ignores parameters without a gradient: neither weight decay nor moments change them.
            optimizer.zero_grad()
        return takes

    def settle(self) -> None:
        """Read the flags of pending steps. Errors: `NumericalError` by policy."""
        pending, self._pending = self._pending, []
        for each in pending:
            self._read(each)

    def mean_loss(self) -> float | None:
        """Return the mean loss of the steps taken since the last call; None where none was. All processes call it."""
        since: torch.Tensor = self._accelerator.reduce(self.taken, "sum")
        self.logged += since
        self.taken = torch.zeros_like(self.taken)
        return _mean(since)

    def whole_mean_loss(self) -> float | None:
        """Return the mean loss of all steps taken, as far as they are logged."""
        return _mean(self.logged)

    def _read(self, pending: _Pending) -> bool:
        """Return whether a step was taken; record it where it was not. Errors: `NumericalError` by policy."""
        if pending.ready is not None:
            pending.ready.synchronize()
        finite = pending.finite.tolist()
        if all(finite):
            return True
        names = [name for name, good in zip(("loss", "gradient"), finite, strict=True) if not good]
        found = SkippedStep(pending.step, f"{' and '.join(names)} not finite", self._rows(pending))
        if self._policy == "skip" and len(self.skipped) < self._max_skips:
            self.skipped.append(found)
            counted = f"{len(self.skipped)} of at most {self._max_skips}"
            say(f"step {found.step}: {found.found}, the step is skipped ({counted}) · {shown(found.rows)}")
            return False
        place = f"step {found.step}"
        if self._policy == "skip":
            place += f", after {self._max_skips} skipped steps"
        kept = self._before_stop(found.step)
        fix = "lower --learning-rate, look at these rows, or give --nan-policy skip"
        raise NumericalError(place, found.found, shown(found.rows), kept, fix)

    def _rows(self, pending: _Pending) -> list[str]:
        """Return the ids of the rows with a bad loss, of all processes; all ids where no single row has one."""
        flags = torch.cat([torch.ones(0, dtype=torch.bool), *(each.cpu() for each in pending.by_row)]).tolist()
        mine = list(zip(pending.ids, flags, strict=True))
        every: list[tuple[str, bool]] = gather_object(mine) if self._accelerator.num_processes > 1 else mine
        return [name for name, good in every if not good] or [name for name, _ in every]


def _mean(sums: torch.Tensor) -> float | None:
    total, steps = sums.tolist()
    return total / steps if steps else None


def _to_host(finite: torch.Tensor) -> tuple[torch.Tensor, torch.cuda.Event | None]:
    """Copy flags to the host; from a GPU without waiting, with the event that marks their arrival."""
    if not finite.is_cuda:
        return finite, None
    host = torch.empty(finite.shape, dtype=finite.dtype, pin_memory=True)
    host.copy_(finite, non_blocking=True)
    event = torch.cuda.Event()  # type: ignore[no-untyped-call]
    event.record()
    return host, event


def _skips_on_device(optimizer: Any) -> bool:
    """Return whether an optimizer honours `found_inf`: the fused ones of torch do."""
    return all(group.get("fused") for group in optimizer.param_groups)
