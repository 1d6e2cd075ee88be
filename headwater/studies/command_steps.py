"""Steps of a study that are commands: printed as one types them, done once, with the time that is left."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from headwater import config as configs
from headwater import interrupts
from headwater.commands import (
    compare,
    evaluate,
    generate,
    judge,
    report,
    signal,
    train_dpo,
    train_reward,
)
from headwater.console import duration, say, silence
from headwater.reporting.ending import ending
from headwater.results import runs

COMMANDS: Mapping[str, ModuleType] = {
    "signal": signal,
    "train-reward": train_reward,
    "train-dpo": train_dpo,
    "evaluate": evaluate,
    "generate": generate,
    "judge": judge,
    "compare": compare,
    "report": report,
}
"""Commands that a step may be, by the name that one types."""


@dataclass(frozen=True)
class CommandStep:
    """A command of a study."""

    says: str
    """What the step is for, as a phrase."""
    command: str
    arguments: Callable[[], Sequence[str]]
    """Returns the arguments; called when the step begins, so that they can follow from earlier steps."""
    output: Path
    """What the command writes: a run, or a data file with its run beside it."""
    seconds: float
    """Usual duration, relative to the other steps: only the ratios count once a step has been done."""

    @property
    def is_done(self) -> bool:
        """Whether the run of the step is finished."""
        return (runs.home_of(self.output) / "done").is_file()

    def run(self) -> Path:
        """Run the command as the command line does, silently, and return what it wrote."""
        module = COMMANDS[self.command]
        parsed = configs.parse(module.Config, list(self.arguments()), f"headwater {self.command}")
        with silence():
            written: Path = module.run(parsed)
        return written

    @property
    def line(self) -> str:
        """The command as one types it."""
        return shlex.join(["headwater", self.command, *self.arguments()])


def run_steps(steps: Sequence[CommandStep]) -> None:
    """Run the steps that are not done, and print for each its purpose, its command and what came out.

    Errors: those of the commands, and `Stopped`.
    """
    spent, expected = 0.0, 0.0
    for number, step in enumerate(steps, start=1):
        interrupts.check()
        place = f"[{number}/{len(steps)}] {step.says}"
        if step.is_done:
            say(f"{place}: done before")
            continue
        say(f"{place} · {_left(steps[number - 1 :], spent, expected)}")
        say(f"    {step.line}")
        began = time.monotonic()
        written = step.run()
        took = time.monotonic() - began
        spent, expected = spent + took, expected + step.seconds
        for line in _found(written):
            say(f"    {line}")
        say(f"    took {duration(took)}")


def _left(steps: Iterable[CommandStep], spent: float, expected: float) -> str:
    """Return the time left, from usual durations and how much slower or faster this machine has been so far."""
    usual = sum(step.seconds for step in steps if not step.is_done)
    return f"about {duration(usual * (spent / expected if expected else 1.0))} left"


def _found(written: Path) -> list[str]:
    """Return the figures of a finished run, without the place and the command that usually follow."""
    return [line for line in ending(written) if not line.startswith(("written: ", "next: "))]
