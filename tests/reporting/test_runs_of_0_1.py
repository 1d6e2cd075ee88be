"""Runs that version 0.1 wrote (`runs_0_1/`, without weights) are read, shown and configured as before."""

from __future__ import annotations

import importlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from headwater import config
from headwater.reporting import page
from headwater.results import runs

RUNS = sorted(each for each in (Path(__file__).parent / "runs_0_1").iterdir() if each.is_dir())


def numbers(value: Any) -> Iterator[float]:
    """Yield the estimates in the metrics of a run."""
    if isinstance(value, dict) and isinstance(value.get("value"), float):
        yield value["value"]
    elif isinstance(value, dict):
        for each in value.values():
            yield from numbers(each)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> str:
    target = tmp_path_factory.mktemp("report") / "report.html"
    page.write([runs.load(path) for path in RUNS], target)
    return target.read_text("utf-8")


@pytest.mark.parametrize("path", RUNS, ids=lambda path: path.name)
def test_a_run_of_0_1_is_shown_with_its_figures(path: Path, report: str) -> None:
    run = runs.load(path)
    assert run.command == json.loads((path / "environment.json").read_text("utf-8"))["command"]
    assert path.name in report
    shown = report.replace("−", "-")
    for value in numbers(json.loads((path / "metrics.json").read_text("utf-8"))):
        assert f"{value:.3f}" in shown, value


@pytest.mark.parametrize(
    "path", [path for path in RUNS if "_" not in path.name and path.name != "signal-reward"], ids=lambda path: path.name
)
def test_the_flags_of_0_1_are_flags_today(path: Path, tmp_path: Path) -> None:
    command = runs.load(path).command
    settings = yaml.safe_load((path / "config.yaml").read_text("utf-8"))
    module = importlib.import_module(f"headwater.commands.{command.replace('-', '_')}")
    written = tmp_path / "config.yaml"
    written.write_text(yaml.safe_dump(settings), "utf-8")
    parsed = config.flatten(config.parse(module.Config, ["--config", str(written)], command))
    assert {str(value) for value in settings.values()} <= {str(value) for value in parsed.values()}
