"""Train an ensemble: reward models that differ only in their seed, in one run directory.

    RUN/
      member-42/  member-43/  …   ordinary runs, trained one after another on the same pairs
      facts.json                  lists them (`members`)

Commands that take a reward model average the rewards of the members; `score` and `evaluate` also report how far they
differ (arXiv:2310.02743: a reward on which members disagree is unreliable). A command that was stopped continues with
the members that are not finished.
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np

from headwater import files
from headwater.console import say
from headwater.errors import DataError, UsageError
from headwater.files import destinations, locks
from headwater.results import runs
from headwater.training.arguments import arguments_for
from headwater.training.options import TrainingConfig, TrainingOptions
from headwater.training.run import train
from headwater.training.task import TrainingTask


def train_ensemble(config: TrainingConfig, task: TrainingTask, members: int) -> Path:
    """Train models with seeds that count up from that of `config`, and return the run of all of them.

    All members hold out the same pairs. Errors: `UsageError` for several processes or a hub to push to; `DataError` for
    data that changed between two members.
    """
    if arguments_for(config.training, str(config.output)).world_size > 1:
        raise UsageError(
            "--seeds", "with several processes", "train the members one by one, by --seed and --split-seed"
        )
    if config.training.push_to_hub is not None:
        raise UsageError("--push-to-hub", "holds one model, not an ensemble", "train its members one by one")
    home = config.output
    run = _begin(config, task)
    try:
        for member in _members(config, members):
            if (member.output / "done").is_file():
                say(f"{member.output.name}: is trained already")
            else:
                say(f"{member.output.name}: {member.training.seed - config.training.seed + 1} of {members}")
                train(dataclasses.replace(member, overwrite=False), task)
    except BaseException:
        if not any(home.glob("member-*")):
            shutil.rmtree(home)  # what was refused leaves nothing behind
        raise
    trained = [runs.load(member.output) for member in _members(config, members)]
    _check_same_data(trained)
    run.facts = {**trained[0].facts, "members": [member.name for member in trained]}
    files.write_text(home / runs.TRAINED_ON, (trained[0].path / runs.TRAINED_ON).read_text(encoding="utf-8"))
    figures = _figures(trained)
    run.write_metrics(figures)
    accuracy, spread = (figures.get(f"eval_rewards/accuracies{end}") for end in ("", "_std"))
    held_out = "" if accuracy is None else f", held-out accuracy {accuracy:.4f} (standard deviation {spread:.4f})"
    say(f"ensemble: {members} members{held_out}")
    return run.finish()


def _begin(config: TrainingConfig, task: TrainingTask) -> runs.RunWriter:
    """Start the run of all members, or continue it where the same command was stopped."""
    destinations.check_directory(config.output)
    locks.hold(config.output)
    if not config.overwrite and runs.begun(config.output, config):
        return runs.RunWriter(config.output, {})
    runs.check_free(config.output, config.overwrite)
    return runs.start(config.output, task.command, config)


def _members(config: Any, members: int) -> list[Any]:
    """Return one config a member; run by itself, each trains that member again."""
    options: TrainingOptions = config.training
    split = options.seed if options.split_seed is None else options.split_seed
    return [
        dataclasses.replace(
            config,
            output=config.output / f"member-{seed}",
            seeds=1,
            training=dataclasses.replace(options, seed=seed, split_seed=None if options.eval_data else split),
        )
        for seed in range(options.seed, options.seed + members)
    ]


def _check_same_data(trained: list[runs.Run]) -> None:
    first, *others = (json.dumps(run.environment["inputs"], sort_keys=True) for run in trained)
    for run, inputs in zip(trained[1:], others, strict=True):
        if inputs != first:
            raise DataError(run.name, "was trained on other data than the first member", "train anew with --overwrite")


def _figures(trained: list[runs.Run]) -> dict[str, float]:
    """Return mean and standard deviation (ddof = 1) over members of the figures that all of them have."""
    figures: dict[str, float] = {"members": len(trained)}
    for name, value in trained[0].metrics.items():
        if name.endswith(("_low", "_high")):
            continue  # a mean of bounds bounds nothing
        values = [run.metrics[name] for run in trained if isinstance(value, int | float)]
        if values:
            figures[name] = float(np.mean(values))
        if name.startswith("eval_") and values:
            figures[f"{name}_std"] = float(np.std(values, ddof=1))
    return figures
