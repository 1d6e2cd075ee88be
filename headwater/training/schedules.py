"""Learning-rate schedules and trackers of transformers, checked before any work.

transformers reads the arguments of a schedule when training begins, after hours of reading and reference passes, and
some mistakes not at all: a warm-up starts at a rate of 0, so that a training of one step would change nothing; the two
schedules that follow the held-out loss do nothing until it has been measured often enough. Required arguments of a
schedule have defaults here.
"""

from __future__ import annotations

import inspect
import json
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
import transformers
from transformers.integrations import integration_utils
from transformers.optimization import TYPE_TO_SCHEDULER_FUNCTION, GreedyLR, get_scheduler
from transformers.trainer_utils import SchedulerType

from headwater.config import read_call
from headwater.errors import UsageError, did_you_mean, first_line
from headwater.training.options import TrainingOptions

FOLLOWS_EVALUATION = (SchedulerType.REDUCE_ON_PLATEAU, SchedulerType.GREEDY)
"""Schedules that change the rate by the held-out loss, without a warm-up."""
MIN_RATE = 0.1
"""Share of the peak rate at which the schedules with a minimum end, by default."""
DECAY = 0.1
"""Share of the steps in which warmup_stable_decay decays, by default."""
_GIVEN_BY_US = {"optimizer", "num_warmup_steps", "num_training_steps", "last_epoch", "verbose"}
_TRIED = 1000
"""Steps of the schedule that is tried before any data is read."""

FLAG = "--lr-scheduler-kwargs"


def check(options: TrainingOptions) -> None:
    """Refuse a schedule or a tracker that cannot work. Errors: `UsageError`."""
    kind, arguments = kind_of(options), arguments_of(options)
    known = _settings(kind)
    for name in arguments:
        if name not in known:
            problem = f"{options.lr_scheduler_type} has no setting {name}"
            raise UsageError(FLAG, problem, did_you_mean(name, known) if known else "leave it out")
    _check_evaluations(kind, arguments, options)
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=options.learning_rate or 1.0)
    steps = _TRIED + sum(_phases(arguments))
    schedule(kind, arguments, optimizer, steps, math.ceil(options.warmup_ratio * _TRIED))
    check_tracker(options.report_to)


def kind_of(options: TrainingOptions) -> SchedulerType:
    """Return the schedule that is named. Errors: `UsageError`."""
    names = [kind.value for kind in SchedulerType]
    if options.lr_scheduler_type not in names:
        found = "is no schedule of transformers"
        raise UsageError(f"--lr-scheduler-type {options.lr_scheduler_type}", found, f"known: {', '.join(names)}")
    return SchedulerType(options.lr_scheduler_type)


def arguments_of(options: TrainingOptions) -> dict[str, Any]:
    """Read `--lr-scheduler-kwargs`: `min_lr_rate=0.1,num_cycles=0.5`, or a JSON object. Errors: `UsageError`."""
    text = (options.lr_scheduler_kwargs or "").strip()
    if text.startswith("{"):
        try:
            found = json.loads(text)
        except ValueError as error:
            raise UsageError(f"{FLAG} {text}", f"is no JSON: {first_line(error)}", "write name=value,…") from error
        return dict(found)
    try:
        return read_call(f"kwargs({text})", "schedule")[1] if text else {}
    except UsageError as error:
        raise UsageError(f"{FLAG} {text}", "expected name=value,…", "such as min_lr_rate=0.1") from error


def _settings(kind: SchedulerType) -> set[str]:
    """Return the names of the arguments of a schedule."""
    if kind in (SchedulerType.CONSTANT, SchedulerType.CONSTANT_WITH_WARMUP):
        return set()
    makers: dict[SchedulerType, Callable[..., Any]] = {
        SchedulerType.REDUCE_ON_PLATEAU: torch.optim.lr_scheduler.ReduceLROnPlateau.__init__,
        SchedulerType.GREEDY: GreedyLR.__init__,
    }
    parameters = inspect.signature(makers.get(kind, TYPE_TO_SCHEDULER_FUNCTION[kind])).parameters
    return set(parameters) - _GIVEN_BY_US - {"self"}


def _check_evaluations(kind: SchedulerType, arguments: Mapping[str, Any], options: TrainingOptions) -> None:
    """Refuse a schedule that follows an evaluation which never comes, or not often enough. Errors: `UsageError`."""
    if kind not in FOLLOWS_EVALUATION:
        return
    flag = f"--lr-scheduler-type {kind.value}"
    if options.eval_fraction == 0 and options.eval_data is None:
        raise UsageError(flag, "follows the held-out loss, and nothing is held out", "give --eval-fraction")
    patience, evaluations = arguments.get("patience", 10), math.ceil(options.num_train_epochs)
    if options.eval_steps is None and isinstance(patience, int) and evaluations <= patience:
        problem = f"changes the rate after {patience + 1} evaluations at the earliest, and {evaluations} would be made"
        raise UsageError(flag, problem, f"add --eval-steps, or {FLAG} patience=0")


def schedule(
    kind: SchedulerType, arguments: Mapping[str, Any], optimizer: torch.optim.Optimizer, steps: int, warming: int
) -> Any:
    """Return the schedule of a training of so many `steps`, of which `warming` warm up, one less than all at most.

    Errors: `UsageError` for arguments that it refuses, or with which every step has a rate of 0.
    """
    warming = min(warming, steps - 1)  # its first step has a rate of 0, and a training of one step no other
    given = _with_defaults(kind, arguments, optimizer, steps - warming)
    flag = f"--lr-scheduler-type {kind.value}"
    try:
        made = get_scheduler(kind, optimizer, warming, steps, given)
        rates = list(_factors(made, steps))
    except TypeError as error:
        raise UsageError(
            flag, f"a setting has a value of the wrong kind: {first_line(error)}", f"see {FLAG}"
        ) from error
    except (ValueError, ArithmeticError) as error:
        raise UsageError(flag, first_line(error), f"see {FLAG}") from error
    if not all(0 <= rate <= 1 + 1e-9 for rate in rates):
        raise UsageError(flag, "gives rates that are not between 0 and --learning-rate", f"see {FLAG}")
    if rates and not any(rates):
        raise UsageError(flag, f"gives all {steps} steps a rate of 0", f"see {FLAG}")
    return made


def _factors(made: Any, steps: int) -> Iterator[float]:
    """Yield the factor of the peak rate at some of the steps; nothing of a schedule that follows evaluations."""
    for function in getattr(made, "lr_lambdas", [])[:1]:
        for step in range(0, steps, max(1, steps // _TRIED)):
            yield float(function(step))


def _with_defaults(
    kind: SchedulerType, arguments: Mapping[str, Any], optimizer: torch.optim.Optimizer, steps: int
) -> dict[str, Any]:
    """Return the arguments with defaults for required ones; `steps` follow the warm-up. Errors: `UsageError`."""
    if kind == SchedulerType.CONSTANT:
        return {}
    peak = optimizer.param_groups[0]["lr"]
    defaults: dict[str, Any] = {}
    if kind in (SchedulerType.COSINE_WITH_MIN_LR, SchedulerType.COSINE_WARMUP_WITH_MIN_LR):
        defaults = {} if {"min_lr", "min_lr_rate"} & set(arguments) else {"min_lr_rate": MIN_RATE}
    elif kind == SchedulerType.POLYNOMIAL:
        defaults = {"lr_end": min(1e-7, peak / 10)}
    elif kind == SchedulerType.GREEDY:  # its own bounds, 0.001 and 1, are for plain gradient descent
        defaults = {"min_lr": peak / 100, "max_lr": peak * 10, "eps": 0.0}
    elif kind == SchedulerType.REDUCE_ON_PLATEAU:
        defaults = {"eps": 0.0}
    elif kind == SchedulerType.WARMUP_STABLE_DECAY:
        defaults = {"num_decay_steps": max(1, round(DECAY * steps))}
        _check_decay(arguments, steps)
    return {**defaults, **arguments}


def _check_decay(arguments: Mapping[str, Any], steps: int) -> None:
    asked = sum(_phases(arguments))
    if asked > steps:
        raise UsageError(FLAG, f"asks for {asked} steps, and {steps} come after the warm-up", "ask for fewer")


def _phases(arguments: Mapping[str, Any]) -> list[int]:
    """Return the numbers of steps that arguments ask for. Errors: `UsageError`."""
    parts = {name: arguments[name] for name in ("num_decay_steps", "num_stable_steps") if name in arguments}
    for name, part in parts.items():
        if not isinstance(part, int) or part < 0:
            raise UsageError(f"{FLAG} {name}={part}", "expected a number of steps")
    return list(parts.values())


PACKAGES = {
    "azure_ml": "azureml-mlflow",
    "comet_ml": "comet-ml",
    "flyte": "flytekit",
    "kubeflow": "kubeflow",
}
"""Packages of trackers whose names differ from the tracker's."""


def check_tracker(name: str) -> None:
    """Refuse a tracker that is none, or is not installed. Errors: `UsageError`."""
    if name == "none":
        return
    known, here = list(integration_utils.INTEGRATION_TO_CALLBACK), _installed()
    if name == "all" and not here:
        raise UsageError("--report-to all", "no tracker is installed", "pip install tensorboard")
    if name not in ("all", *known):
        hint = f"known: none, all, {', '.join(known)}"
        raise UsageError(f"--report-to {name}", "is no tracker that transformers knows", hint)
    if name not in ("all", *here):
        package = PACKAGES.get(name, name.replace("_", "-"))
        raise UsageError(f"--report-to {name}", "is not installed", f"pip install {package}")


def _installed() -> list[str]:
    here = list(integration_utils.get_available_reporting_integrations())
    return [*here, "flyte"] if integration_utils.is_flytekit_available() else here


def create(trainer_arguments: transformers.TrainingArguments, optimizer: torch.optim.Optimizer, steps: int) -> Any:
    """Return the schedule that a trainer's arguments name, for so many steps. Errors: those of `schedule`."""
    kind, given = trainer_arguments.lr_scheduler_type, trainer_arguments.lr_scheduler_kwargs or {}
    return schedule(SchedulerType(kind), given, optimizer, steps, trainer_arguments.get_warmup_steps(steps))
