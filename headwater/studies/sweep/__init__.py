"""Train at several kept ratios and seeds, and compare the accuracies with the curve of `headwater signal`.

Every point is a run: the same command, repeated, trains the missing ones, and a point that fails does not stop the
others. Truncated responses are trained on for as many examples as full ones (less work) and for as many tokens (more
examples). Every model is evaluated on full and on equally truncated held-out responses. The curve of `headwater signal`
comes from one forward pass of the model trained on full responses; Spearman's rho says how well it ranks the ratios.
"""

from __future__ import annotations

import traceback
from fractions import Fraction
from pathlib import Path

from rich.table import Table

from headwater import config as configs
from headwater import files
from headwater.commands import evaluate, train_dpo, train_reward
from headwater.console import say, show, steps
from headwater.data.truncation_options import TruncationOptions
from headwater.errors import HeadwaterError, UsageError
from headwater.files import destinations, locks
from headwater.studies.sweep.points import HELP, Config, Point, Sweep
from headwater.studies.sweep.summary import cost, summarise
from headwater.training.options import TrainingOptions

__all__ = ["EXAMPLE", "HELP", "Config", "run"]

EXAMPLE = "headwater sweep pairs.jsonl --output sweep --model Qwen/Qwen2.5-0.5B-Instruct --keeps 25% 50% 100%"
SETTINGS = "settings.yaml"
"""File of the settings that all points share; other settings need another directory."""


def run(config: Config) -> Path:
    """Train and evaluate the missing points, print the table and return the run directory of the summary."""
    sweep = Sweep(config)
    _check_settings(config)
    if config.status:
        _show_status(sweep)
        return config.output
    missing = [point for point in sweep.points() if not sweep.is_done(point)]
    say(f"sweep: {len(sweep.points())} points, {len(sweep.points()) - len(missing)} done")
    failed: list[Exception] = []
    with steps(len(missing)) as bar:
        for point in missing:
            with bar.step(point.name):
                failed += _attempt(sweep, point)
    if failed:
        _show_status(sweep)
    if not all(sweep.is_done(Point(Fraction(1), "examples", seed)) for seed in config.seeds):
        raise failed[0]
    summary = summarise(sweep)
    if failed:
        raise failed[0]
    return summary


def _check_settings(config: Config) -> None:
    """Refuse a directory whose points were trained with other settings; begin a new one. Errors: `UsageError`."""
    path = config.output / SETTINGS
    destinations.check_directory(config.output)
    if not config.status:
        locks.hold(config.output)
    if path.is_file():
        # A study of an earlier version does not name the options that came later: it had their defaults.
        before, now = Config(data=config.data).common() | dict(configs.read_yaml(path)), config.common()
        changed = next((name for name, value in now.items() if before.get(name) != value), None)
        if changed:
            flag = f"--{changed.replace('_', '-')} {now[changed]}"
            raise UsageError(flag, f"{config.output} was begun with {before.get(changed)}", "choose another --output")
    elif config.output.is_dir() and any(config.output.iterdir()):
        raise UsageError(f"--output {config.output}", "holds other files than a sweep's", "choose another directory")
    elif not config.status:
        config.output.mkdir(parents=True, exist_ok=True)
        files.write_text(path, configs.to_yaml(config.common()))


def _attempt(sweep: Sweep, point: Point) -> list[Exception]:
    """Train and evaluate a point; an error is written beside it and returned, so that the other points run."""
    try:
        _train(sweep, point)
        for seen in point.seen:
            _judge(sweep, point, seen)
    except Exception as error:
        text = str(error) if isinstance(error, HeadwaterError) else traceback.format_exc()
        files.write_text(sweep.failure(point), text + "\n")
        return [error]
    sweep.failure(point).unlink(missing_ok=True)
    return []


def _train(sweep: Sweep, point: Point) -> None:
    config, output = sweep.config, sweep.trained(point)
    if (output / "done").is_file():
        return
    options = TrainingOptions(
        num_train_epochs=config.num_train_epochs * _more_epochs(sweep, point),
        learning_rate=config.learning_rate,
        per_device_train_batch_size=config.per_device_train_batch_size,
        precision=config.precision,
        freeze_layers=config.freeze_layers,
        lora_r=config.lora_r,
        eval_fraction=config.eval_fraction,
        seed=point.seed,
    )
    truncation = TruncationOptions(keep=str(float(point.keep)), end=config.end, max_length=config.max_length)
    shared = {
        "data": config.data,
        "read_options": config.read_options,
        "output": output,
        "model": config.model,
        "truncation": truncation,
        "training": options,
    }
    if config.train == "reward":
        train_reward.run(train_reward.Config(**shared, overwrite=True))  # type: ignore[arg-type]
    else:
        train_dpo.run(train_dpo.Config(**shared, overwrite=True))  # type: ignore[arg-type]


def _more_epochs(sweep: Sweep, point: Point) -> float:
    """Return the factor of epochs that gives a point as many tokens as full responses."""
    return 1.0 if point.equal == "examples" else 1 / cost(sweep, point)


def _judge(sweep: Sweep, point: Point, seen: Fraction) -> None:
    output = sweep.judged(point, seen)
    if not (output / "done").is_file():
        truncation = TruncationOptions(keep=str(float(seen)), max_length=sweep.config.max_length)
        evaluate.run(
            evaluate.Config(
                model=str(sweep.trained(point)),
                dataset=sweep.config.data,
                read_options=sweep.config.read_options,
                output=output,
                truncation=truncation,
                seed=point.seed,
                overwrite=True,
            )
        )


def _show_status(sweep: Sweep) -> None:
    table = Table("point", "state", title=str(sweep.config.output), title_justify="left")
    for point in sweep.points():
        failure = sweep.failure(point)
        state = "done" if sweep.is_done(point) else "missing"
        if failure.is_file():
            state = f"failed: {failure.read_text(encoding='utf-8').strip().splitlines()[-1]}"
        table.add_row(point.name, state)
    show(table)
