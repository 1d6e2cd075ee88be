from __future__ import annotations

import re
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from headwater import cli


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, "-m", "headwater", *arguments], capture_output=True, text=True, check=False)


def test_help_answers_at_once_and_without_torch() -> None:
    def seconds() -> float:
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert call("--help").returncode == 0
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    # Processor time, the best of a few: what is tested is the command, not what else the machine is doing.
    assert min(seconds() for _ in range(3)) < 0.5
    code = "import sys, headwater.cli as c; c.main(['--help']); assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, check=False).returncode == 0


def test_help_names_every_command_within_40_lines() -> None:
    text = cli.usage()
    assert len(text.splitlines()) <= 40
    assert all(name in text for name in cli.COMMANDS)


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_shows_an_example_and_its_flags(name: str) -> None:
    result = call(name, "--help")
    assert result.returncode == 0, result.stderr
    assert f"headwater {name} " in result.stdout.replace("usage: headwater", "") or name == "env"
    assert "--output" in result.stdout or name in ("tokens", "env"), "a command that writes says where"
    assert not {"Annotated", "tyro", "dataclass"} & set(re.findall(r"\w+", result.stdout)), "help is for users"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian-dpo"], "did you mean train-dpo"),
        (["train-dpo", "--data", "x", "--output", "y", "--bta", "1"], "unknown flag --bta"),
        (["train-dpo", "--data", "x"], "--output is missing"),
        (["report"], "--runs is missing"),
    ],
)
def test_a_usage_error_is_one_line_and_exit_code_2(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.startswith("headwater: ")
    assert len(error.splitlines()) == 1


def test_underscores_name_commands_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["train_dpo", "--data", "x"]) == 2
    assert "--output is missing" in capsys.readouterr().err


def test_a_full_disk_exits_with_7(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cli.config, "parse", full)
    assert cli.main(["demo"]) == 7
    assert "No space left" in capsys.readouterr().err


def test_a_bug_is_named_as_one_and_its_traceback_kept(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], cache: Path
) -> None:
    def broken(*arguments: object) -> None:
        raise OSError("socket went away")

    monkeypatch.setattr(cli.config, "parse", broken)
    assert cli.main(["demo"]) == 1
    printed = capsys.readouterr().err
    assert printed.startswith("headwater: a bug in headwater: OSError: socket went away") and printed.count("\n") == 1
    assert "in broken" in (cache / "last-error.txt").read_text()
    assert cli.main(["demo", "--traceback"]) == 1
    assert "in broken" in capsys.readouterr().err


def test_a_path_that_cannot_be_used_is_no_bug(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def broken(*arguments: object) -> None:
        raise PermissionError(13, "Permission denied", "/there/file")

    monkeypatch.setattr(cli.config, "parse", broken)
    assert cli.main(["demo"]) == 2
    assert "Permission denied: '/there/file'" in capsys.readouterr().err


def test_traceback_shows_where_an_error_came_from(tmp_path: Path) -> None:
    result = call("report", str(tmp_path / "none"), "--traceback")
    assert "Traceback" in result.stderr
    assert "Traceback" not in call("report", str(tmp_path / "none")).stderr
