"""The README's commands and Python run as they are written, and the documentation names only files that exist."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from headwater import cli
from headwater.data import reading
from headwater.data.corpus import Corpus, generate
from headwater.results import runs
from tests.conftest import ROOT

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])
README = ROOT / "README.md"


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def commands(page: Path, language: str) -> Iterator[list[str]]:
    """Yield the headwater commands of a page; in a console block they follow a `$`."""
    for block in blocks(page, language):
        for line in block.splitlines():
            if line.startswith("headwater ") or line.startswith("$ headwater "):
                yield shlex.split(line.removeprefix("$ "))[1:]


README_ON_DEMO = [
    arguments for arguments in commands(README, "console") if any("demo/" in argument for argument in arguments)
]
"""Commands of the README that need a finished demo: tests/studies/test_demo.py runs them."""


@pytest.fixture
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A working folder with `pairs.jsonl` and `questions.json`."""
    monkeypatch.chdir(tmp_path)
    reading.write(Path("pairs.jsonl"), generate(Corpus(pairs=96)))
    questions = [{"instruction": row.prompt[-1].content} for row in generate(Corpus(pairs=12, seed=1))]
    Path("questions.json").write_text(json.dumps(questions), encoding="utf-8")


@pytest.mark.usefixtures("data")
def test_the_commands_run() -> None:
    found = [one for one in commands(README, "console") if one not in README_ON_DEMO and one[0] != "demo"]
    assert len(found) == 5
    for arguments in found:
        assert cli.main(arguments) == 0, arguments
    assert Path("report.html").stat().st_size > 10_000


@pytest.mark.usefixtures("data")
def test_the_python_runs() -> None:
    found = blocks(README, "python")
    assert found
    for block in found:
        result = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr


@pytest.mark.usefixtures("data")
def test_policies_are_compared_as_the_guide_says() -> None:
    for arguments in commands(ROOT / "docs" / "evaluation.md", "sh"):
        assert cli.main(arguments) == 0, arguments
    matrix = {name for name in runs.load(Path("runs/compared")).metrics if name.startswith("win_rate/")}
    judges, policies = ("runs/reward-half", "runs/reward-whole"), ("dpo-whole", "dpo-half")
    assert matrix == {f"win_rate/{judge}/{policy}" for judge in judges for policy in policies}


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").split()) <= 1000


def test_the_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"`make ([a-z]+)`", README.read_text(encoding="utf-8"))):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_the_exit_codes_are_those_of_the_command_line() -> None:
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (\d+) \| (.+) \|$", page, flags=re.MULTILINE)
    assert {int(code): meaning for code, meaning in rows} == cli.EXIT_CODES


def test_every_command_is_documented() -> None:
    page = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert {name for name in cli.COMMANDS if f"`{name}`" not in page} == set()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    targets = [target.partition("#")[0] for target in re.findall(r"\]\(([^)\s]+)\)", text) if "://" not in target]
    missing = [target for target in targets if target and not (page.parent / target).exists()]
    assert not missing


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "docs/performance.md", "docs/architecture.md", "docs/commands.md"])
def test_named_files_exist(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    paths = re.findall(r"`((?:headwater|tests|benchmarks|docs)/[\w/.]*?)`", text)
    assert [path for path in paths if "NAME" not in path and not (ROOT / path).exists()] == []
