"""Figures on a terminal: lines of bars, and a row a run."""

from __future__ import annotations

from pathlib import Path

import pytest
from rich.console import Console

from headwater import cli, console
from headwater.reporting.terminal import key_figures
from headwater.results import runs
from tests.reporting.test_page import ATTACK, study
from tests.reporting.test_plots import signalled, trained


def printed(given: list[runs.Run]) -> list[str]:
    terminal = Console(width=160)
    with terminal.capture() as captured:
        terminal.print(key_figures(given))
    return captured.get().splitlines()


def test_bars_go_from_the_least_to_the_largest() -> None:
    assert console.sparkline([0, 1, 2, 3, 4, 5, 6, 7]) == "▁▂▃▄▅▆▇█"
    assert console.sparkline([5.0]) == "▁" and console.sparkline([2, 2]) == "▁▁" and console.sparkline([]) == ""
    assert console.sparkline([3, 1]) == "█▁"
    assert console.sparkline([0] * 50 + [1] * 50, width=4) == "▁▁██"


def test_a_long_step_says_its_rate_and_the_time_left(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = iter(range(0, 1000, 20))  # seconds; every look at the clock takes 20
    monkeypatch.setattr(console.time, "monotonic", lambda: float(next(clock)))
    assert list(console.track(range(3), "scoring", 3)) == [0, 1, 2]
    said = capsys.readouterr().err.splitlines()
    assert said == ["scoring: 2 of 3, 0.0333 a second, 30 s left"]
    assert [console.duration(seconds) for seconds in (4.4, 125, 12000)] == ["4 s", "2 min 5 s", "3 h 20 min"]


def test_a_course_has_its_first_and_last_value() -> None:
    history = [{"step": 1, "loss": 0.7}, {"step": 2, "loss": 0.5, "grad": None}, {"step": 3, "eval_loss": 1.0}]
    terminal = Console(width=80)
    with terminal.capture() as captured:
        terminal.print(console.trends(history, {"loss": "loss", "eval_loss": "held out", "grad": "gradient"}))
    assert captured.get().split() == ["loss", "0.7", "█▁", "0.5"]  # one value is no course


def test_a_row_a_run(tmp_path: Path) -> None:
    rows = printed([*study(tmp_path), signalled(tmp_path / "s")])
    assert rows[1].split("  ")[0] == "train a" and "loss 0.70 █▆▃▁ 0.40" in rows[1]
    assert "accuracy 0.812 [0.700, 0.900]" in rows[2] and " 100 " in rows[2] and "margins 0.0 " in rows[2]
    assert "depth 90 0.300 [0.200, 0.500]" in rows[3] and "by prefix 0.60 ▁▁ 0.60" in rows[3]


def test_text_of_a_run_is_no_markup_of_the_terminal(tmp_path: Path) -> None:
    rows = "\n".join(printed(study(tmp_path, f"[bold]{ATTACK}\x1b[31m")))
    assert "[bold]" in rows and "\x1b" not in rows


def test_the_command_prints_them_and_replaces_a_page_by_overwrite_alone(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = trained(tmp_path / "a", "loss")
    given = ["report", str(run.path), "--output", str(tmp_path / "r.html")]
    assert cli.main(given) == 0
    assert "▁▃▅▆█" in capsys.readouterr().out
    (tmp_path / "r.html").write_text("mine")
    assert cli.main(given) == 2 and "r.html · already exists · " in capsys.readouterr().err
    assert (tmp_path / "r.html").read_text() == "mine"
    assert cli.main([*given, "--overwrite"]) == 0 and (tmp_path / "r.html").stat().st_size > 1000
