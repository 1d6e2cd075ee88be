"""The README's commands run as they stand there, in order, beside `pairs.jsonl` and `questions.json`."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from headwater import cli
from headwater.data import reading
from headwater.data.corpus import Corpus, generate
from headwater.results import runs
from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, flags=re.DOTALL)


def commands() -> list[list[str]]:
    lines = [line for block in blocks("sh") for line in block.splitlines()]
    return [shlex.split(line)[1:] for line in lines if line.startswith("headwater ")]


def test_the_commands_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    reading.write(Path("pairs.jsonl"), generate(Corpus(pairs=64)))
    questions = [{"instruction": row.prompt[-1].content} for row in generate(Corpus(pairs=12, seed=1))]
    Path("questions.json").write_text(json.dumps(questions), encoding="utf-8")
    found = commands()
    assert len(found) >= 6
    for arguments in found:
        assert cli.main(arguments) == 0, arguments
    assert Path("report.html").stat().st_size > 10_000
    matrix = {name for name in runs.load(Path("runs/compared")).metrics if name.startswith("win_rate/")}
    judges, policies = ("runs/reward", "runs/reward-whole"), ("dpo-whole", "dpo-half")
    assert matrix == {f"win_rate/{judge}/{policy}" for judge in judges for policy in policies}
    for block in blocks("python"):
        result = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr


def test_the_make_targets_exist() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    for target in set(re.findall(r"make ([a-z]+)", README)):
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_the_exit_codes_are_those_of_the_command_line() -> None:
    for code, meaning in cli.EXIT_CODES.items():
        assert re.search(rf"\b{code} {re.escape(meaning)}", README.replace("\n", " ")), (code, meaning)
