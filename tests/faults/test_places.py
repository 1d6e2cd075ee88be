"""R16 of the fault matrix: odd paths, an odd locale, a working folder that is gone; N3: rows without a token."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tokenizers import normalizers

from headwater.data.preference import Message, Preference, Response
from headwater.data.tokenizers import ScratchTokenizer
from headwater.data.tokens import tokenize
from tests.faults.outcome import Command, pair, row_counts, runner, write_rows

GOOD = [pair(number) for number in range(8)]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Command:
    return runner(capfd)


@pytest.mark.fault("R16")
@pytest.mark.parametrize("name", ["with spaces", "漢字", "👩‍👧 emoji", "quote'\"s", "-dash", "percent%20", "a=b;c&d"])
def test_a_path_may_hold_any_character(name: str, run: Command, tmp_path: Path) -> None:
    folder = tmp_path / name
    folder.mkdir()
    data = write_rows(folder / f"{name}.jsonl", *GOOD)
    output = folder / "out.jsonl"
    found = run("preprocess", "--input", data, "--output", output, "--keep", "50%")
    assert found.code == 0, found.said
    assert row_counts(Path(f"{output}.run"))["kept"] == 8
    assert run("inspect", output).code == 0


@pytest.mark.fault("R16")
def test_a_locale_without_unicode_and_a_working_folder_that_is_gone(tmp_path: Path) -> None:
    data = write_rows(tmp_path / "f.jsonl", *GOOD, pair(9, prompt="漢字 é?"))
    gone = tmp_path / "gone"
    gone.mkdir()
    arguments = ["preprocess", "--input", str(data), "--output", str(tmp_path / "o.jsonl"), "--keep", "50%"]
    code = f"import os, sys; os.rmdir(os.getcwd()); from headwater.cli import main; sys.exit(main({arguments!r}))"
    environment = {**os.environ, "LC_ALL": "C", "LANG": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    environment["PYTHONPATH"] = str(Path(__file__).parents[2])
    found = subprocess.run([sys.executable, "-c", code], cwd=gone, env=environment, capture_output=True, check=False)
    assert found.returncode == 0, found.stderr.decode(errors="replace")
    assert "漢字 é?" in (tmp_path / "o.jsonl").read_text(encoding="utf-8")


@pytest.mark.fault("N3")
def test_a_response_that_is_no_token_is_dropped_and_counted() -> None:
    tokenizer = ScratchTokenizer(vocab=300).train(["Why is it so?"])
    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("\u200b", "")
    rows = [
        Preference(prompt=(Message("user", "Why?"),), chosen=Response(text), rejected=Response("No."), id=str(number))
        for number, text in enumerate(["Yes.", "\u200b"])
    ]
    found = tokenize(rows, tokenizer, 100, "never")
    assert [each.id for each in found.pairs] == ["0"]
    assert found.row_counts.dropped == {"no_tokens": 1}
