"""R7, R8, R1 of the fault matrix: after a signal in any phase, or a kill, the same command goes on."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headwater import console, interrupts
from headwater.data.corpus import Corpus, generate
from headwater.data.writing import write
from headwater.results import runs
from tests.faults.outcome import Command, runner
from tests.support.serving import save_policy

SCRATCH = "scratch(hidden=32, layers=1, vocab=300)"


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Command:
    return runner(capfd)


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pairs, a policy and its reference, a reward model."""
    from headwater.commands import train_reward
    from headwater.training.options import TrainingOptions

    home = tmp_path_factory.mktemp("signals")
    pairs = generate(Corpus(pairs=24, seed=1))
    write(home / "pairs.jsonl", pairs)
    write(home / "others.jsonl", generate(Corpus(pairs=60, seed=2)))
    save_policy(home / "policy", pairs, SCRATCH)
    save_policy(home / "reference", pairs, SCRATCH, seed=1)
    options = TrainingOptions(precision="fp32", eval_fraction=0.0)
    config = train_reward.Config(data=home / "pairs.jsonl", output=home / "reward", model=SCRATCH, training=options)
    train_reward.run(config)
    return home


def commands(home: Path) -> dict[str, list[str]]:
    """A command for each phase that computes for long, without its output."""
    data, others, policy = str(home / "pairs.jsonl"), str(home / "others.jsonl"), str(home / "policy")
    both = ["--model", policy, "--reference", str(home / "reference")]
    return {
        "reading": ["preprocess", "--input", data, "--keep", "50%"],
        "evaluation": ["evaluate", "--model", str(home / "reward"), "--dataset", others],
        "evaluation of a policy": ["evaluate", *both, "--dataset", data],
        "scoring": ["score", "--model", str(home / "reward"), "--input", data],
        "signal": ["signal", others, "--model", str(home / "reward")],
        "sampling": ["sample", "--model", policy, "--input", data, "--n", "2", "--max-new-tokens", "4"],
        "generation": ["generate", "--model", policy, "--prompts", data, "--max-new-tokens", "4"],
        "decoding": ["decode", *both, "--input", data, "--max-new-tokens", "4", "--strategy", "reference"],
        "reference pass": ["train-dpo", "--data", data, "--model", policy, "--precision", "fp32",
                           "--eval-fraction", "0"],
        "sweep": ["sweep", "--data", data, "--model", SCRATCH, "--keeps", "50%", "--seeds", "0", "--precision", "fp32",
                  "--eval-fraction", "0.4"],
    }  # fmt: skip


BARS = {
    "evaluation": "scoring",
    "evaluation of a policy": "reference log-probabilities",
    "signal": "rewards",
    "sampling": "prompts",
    "generation": "answers of policy",
    "decoding": "responses",
    "reference pass": "reference",
}
"""The progress bar under which a phase works; the others are stopped at the first occasion."""


def signal_once(monkeypatch: pytest.MonkeyPatch, number: signal.Signals, bar: str = "") -> Callable[[], bool]:
    """Send a signal under a progress bar, when its first unit is done; say whether it was sent."""
    sent: list[signal.Signals] = []
    shown = [""]
    check, track = interrupts.check, console.Progress.track

    def checked() -> None:
        if not sent and bar in shown:
            sent.append(number)
            os.kill(os.getpid(), number)
        check()

    def tracked(self: console.Progress, items: Any, **named: Any) -> Any:
        shown[:] = [named["description"]]
        return track(self, items, **named)

    monkeypatch.setattr(interrupts, "check", checked)
    monkeypatch.setattr(console.Progress, "track", tracked)
    return lambda: bool(sent)


PHASES = list(commands(Path()))


@pytest.mark.fault("R7")
@pytest.mark.parametrize("phase", PHASES)
def test_a_command_that_a_signal_stopped_goes_on_when_it_is_repeated(
    phase: str, home: Path, run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / ("out.jsonl" if phase in ("reading", "scoring", "sampling") else "out")
    command = [*commands(home)[phase], "--output", str(output)]
    with monkeypatch.context() as patch:
        sent = signal_once(patch, signal.SIGTERM, BARS.get(phase, ""))
        stopped = run(*command)
    assert sent()
    assert stopped.code == 75, stopped.said
    assert "stopped by SIGTERM" in stopped.said
    assert "Traceback" not in stopped.err
    finished = run(*command)
    assert finished.code == 0, finished.said


@pytest.mark.fault("R8")
def test_an_interrupt_ends_with_130(home: Path, run: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    command = [*commands(home)["evaluation"], "--output", str(tmp_path / "out")]
    with monkeypatch.context() as patch:
        signal_once(patch, signal.SIGINT)
        assert run(*command).code == 130
    assert run(*command).code == 0


@pytest.mark.fault("R1")
@pytest.mark.parametrize("phase", ["reading", "scoring", "evaluation", "signal"])
def test_a_run_that_was_killed_before_it_was_done_starts_over_by_itself(
    phase: str, home: Path, run: Command, tmp_path: Path
) -> None:
    output = tmp_path / ("out.jsonl" if phase in ("reading", "scoring") else "out")
    command = [*commands(home)[phase], "--output", str(output)]
    assert run(*command).code == 0
    place = runs.beside(output) if output.suffix else output
    (place / "done").unlink()
    (place / "manifest.json").unlink()
    again = run(*command)
    assert again.code == 0, again.said
    assert "was begun by this command and not finished; it starts over" in again.said
    assert run(*command).code == 2, "a finished run is never replaced without being asked"
    (place / "done").unlink()
    other = run(*command, "--seed", "7")
    assert other.code == 2, "another command's run is not either"
