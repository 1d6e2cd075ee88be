"""A first signal is recorded and noticed between two units of work; the second one ends the process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap

import pytest

from headwater import cli, interrupts
from headwater.console import meter, track


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGTERM, 75), (signal.SIGINT, 130), (signal.SIGUSR1, 75)], ids=str
)
def test_the_unit_at_hand_is_finished_before_the_command_ends(number: signal.Signals, code: int) -> None:
    finished = []
    with interrupts.handled(), pytest.raises(interrupts.Stopped) as stopped:
        for unit in track(range(5), "units", 5):
            if unit == 2:
                os.kill(os.getpid(), number)
            finished.append(unit)
    assert finished == [0, 1, 2]
    assert stopped.value.exit_code == code
    assert number.name in str(stopped.value)


def test_reading_can_be_stopped() -> None:
    with interrupts.handled(), meter(100, "reading") as advance:
        advance(10)
        os.kill(os.getpid(), signal.SIGTERM)
        with pytest.raises(interrupts.Stopped):
            advance(10)


def test_work_that_asks_itself_is_not_cut_short() -> None:
    with interrupts.handled(), interrupts.postponed():
        os.kill(os.getpid(), signal.SIGTERM)
        assert list(track(range(3), "units", 3)) == [0, 1, 2]
        assert interrupts.requested() == signal.SIGTERM


def test_no_code_that_survives_errors_survives_a_stop() -> None:
    assert not issubclass(interrupts.Stopped, Exception)


def test_handlers_come_back_and_a_later_command_is_not_stopped() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with interrupts.handled():
        os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is before
    interrupts.check()


def test_a_second_signal_ends_at_once() -> None:
    code = """
        import os, signal, time
        from headwater import interrupts
        with interrupts.handled():
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(30)
    """
    found = subprocess.run([sys.executable, "-c", textwrap.dedent(code)], capture_output=True, timeout=20, check=False)
    assert found.returncode == 130
    assert b"a second signal ends at once" in found.stderr


def test_the_command_line_returns_the_code_and_says_how_to_go_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(name: str) -> str:
        os.kill(os.getpid(), signal.SIGTERM)
        interrupts.check()
        return name

    monkeypatch.setattr(cli, "_command", stopped)
    monkeypatch.setattr(sys, "argv", ["headwater", "evaluate", "--model", "my model"])
    assert cli.main(["evaluate"]) == 75
    assert "to go on, repeat: headwater evaluate --model 'my model'" in capsys.readouterr().err
