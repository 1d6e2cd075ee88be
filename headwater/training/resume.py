"""Resuming an unfinished training: continue from a checkpoint, start over, or refuse.

A training continues where nothing that it depends on has changed since its checkpoint. Otherwise it is refused with the
list of differences, unless `--allow-changes` accepts them; the facts of the run then record them. A run that was
stopped before its first checkpoint, or whose checkpoints are all damaged, starts over.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from headwater import config as configs
from headwater.console import say
from headwater.errors import DataError, HeadwaterError, UsageError
from headwater.files import locks
from headwater.models import fingerprint
from headwater.results import runs
from headwater.training import checkpoints
from headwater.training.options import TrainingConfig

T = TypeVar("T")
FREE = frozenset(
    {
        "output",
        "overwrite",
        "allow_changes",
        "save_steps",
        "nan_policy",
        "max_skips",
        "tokens_per_pass",
        "push_to_hub",
        "live",
        "ddp_timeout",
    }
)
"""Settings that do not change the result of a training."""
FIXES = "give what it was begun with, add --allow-changes to go on all the same, or --overwrite to start over"


def from_first(decide: Callable[[], T]) -> T:
    """Return in every process what the first one decides. Errors: its errors, in every process."""
    state = PartialState()
    found: list[Any] = [None]
    if state.is_main_process:
        try:
            found = [decide()]
        except HeadwaterError as error:
            found = [error]
    if state.num_processes > 1:
        broadcast_object_list(found)
    if isinstance(found[0], HeadwaterError):
        raise found[0]
    decided: T = found[0]
    return decided


def settings_of(config: TrainingConfig) -> dict[str, Any]:
    """Return the settings on which the result of a training depends."""
    return {name: value for name, value in configs.flatten(config).items() if name not in FREE}


def with_precision(config: TrainingConfig) -> TrainingConfig:
    """Return a config with the precision of its unfinished run where it says `auto`, which would be timed again."""
    if config.training.precision != "auto" or not runs.is_unfinished(config.output):
        return config
    before = runs.config_of(config.output).get("precision", "auto")
    return dataclasses.replace(config, training=dataclasses.replace(config.training, precision=before))


def checkpoint_of(config: TrainingConfig, command: str) -> Path | None:
    """Return the checkpoint from which the training at `config.output` continues; None where it starts.

    Errors: `UsageError` for a place that holds another run, or this one begun with other settings.
    """
    locks.hold(config.output)
    if config.overwrite or not runs.is_unfinished(config.output) or runs.command_of(config.output) != command:
        runs.check_free(config.output, config.overwrite)
        return None
    before, now = runs.config_of(config.output), settings_of(config)
    found = fingerprint.differences(
        {"settings": {name: value for name, value in before.items() if name not in FREE}}, {"settings": now}
    )
    if found and not config.training.allow_changes:
        place = f"--output {config.output}"
        raise UsageError(place, "already holds a run, begun with other settings", ", ".join(found), FIXES)
    checkpoint = checkpoints.latest(config.output)
    if checkpoint is None:
        say(f"{config.output}: was stopped before it had a checkpoint, and starts over")
    return checkpoint


def check(checkpoint: Path, now: Mapping[str, Any], allow: bool) -> dict[str, Any]:
    """Return the fingerprints of now, with the changes since a checkpoint as `changes` where those are allowed.

    Errors: `DataError` where data, rows or a model have changed, else `UsageError`.
    """
    before = checkpoints.fingerprints(checkpoint)
    found = fingerprint.differences(before, now)
    if found and not allow:
        kind = DataError if any("has changed" in each or " is n" in each for each in found) else UsageError
        raise kind(str(checkpoint), "the training cannot go on from it as it was", ", ".join(found), FIXES)
    for each in found:
        say(f"{checkpoint}: goes on although {each}")
    changes = [*before.get("changes", before.get("drift", [])), *found]
    return {**now, **({"changes": changes} if changes else {})}
