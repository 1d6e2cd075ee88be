from __future__ import annotations

from fractions import Fraction
from pathlib import Path

import pytest

from headwater import cli
from headwater.results import runs
from headwater.studies.demo import Config, kept_ratios
from tests.test_readme import README_ON_DEMO


def test_the_kept_ratios_lie_below_at_and_above_the_planted_depth() -> None:
    assert kept_ratios(0.3) == [Fraction(n, 100) for n in (10, 20, 30, 45, 100)]
    assert kept_ratios(0.8) == [Fraction(n, 100) for n in (27, 53, 80, 100)]


def test_the_demo_runs_from_corpus_to_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Small enough for a test: that every step is there and linked. What it finds needs the full size."""
    monkeypatch.chdir(tmp_path)
    root = Path("demo")
    model = "scratch(hidden=32, layers=1, vocab=400)"
    assert cli.main(["demo", "--output", str(root), "--pairs", "120", "--model", model]) == 0
    said = capsys.readouterr()
    assert said.out.replace("\n", "").endswith("report.html")
    assert "planted in the first 30 %" in said.out.replace("\n", " ")
    assert "[36/36] write the report" in said.err
    text = (root / "report.html").read_text(encoding="utf-8")
    assert "planted depth" in text
    assert "Accuracy against kept ratio" in text
    for keep in (10, 20, 30, 45, 100):
        for kind, name in (("reward", "reward model"), ("dpo", "dpo")):
            run = runs.load(root / f"{kind}-{keep}-on-100")
            assert run.facts["keep"] == pytest.approx(keep / 100)
            assert (run.facts["kind"], run.facts["planted_depth"]) == (name, 0.3)
            assert run.metrics["accuracy"]["n"] == len(run.records()) > 10
    assert len(README_ON_DEMO) == 2
    for arguments in README_ON_DEMO:
        assert cli.main(arguments) == 0, arguments
    assert "win rate, demo/reward-100/dpo-100 " in capsys.readouterr().err


def test_a_demo_is_not_overwritten_unasked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runs.start(tmp_path / "demo" / "corpus", "demo-corpus", Config(tmp_path / "demo")).finish()
    assert cli.main(["demo", "--output", str(tmp_path / "demo"), "--seed", "7"]) == 2, "another one was stopped"
    assert "--overwrite" in capsys.readouterr().err
    (tmp_path / "demo" / "report.html").touch()
    assert cli.main(["demo", "--output", str(tmp_path / "demo")]) == 2, "it is finished"
    assert "--overwrite" in capsys.readouterr().err
