"""Run a command in this process and see what a user would see: exit code, output, files."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from headwater import cli


class SilentError(AssertionError):
    """A command that should have been refused ended as if all were well."""


class RowsLostError(AssertionError):
    """Rows in are not rows kept, quarantined and dropped."""


class Outcome(NamedTuple):
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """Both streams, as one text without the line breaks that a narrow terminal makes."""
        return re.sub(r"\s+", " ", self.out + " " + self.err)

    def refused(self, code: int, *words: str) -> None:
        """Check that the command ended with `code` and one line that holds `words`."""
        if self.code == 0 != code:
            raise SilentError(self.said)
        assert self.code == code, self.said
        assert "Traceback" not in self.err
        lines = [line for line in self.err.splitlines() if line.startswith("headwater: ")]
        assert len(lines) == 1, self.err
        for word in words:
            assert word in lines[0], lines[0]


Command = Callable[..., Outcome]


def runner(capfd: pytest.CaptureFixture[str]) -> Command:
    """Return a function from arguments of the command line to its outcome."""

    def run(*arguments: object) -> Outcome:
        capfd.readouterr()
        code = cli.main([str(argument) for argument in arguments])
        return Outcome(code, *capfd.readouterr())

    return run


def row_counts(run: Path, stage: str = "read") -> dict[str, Any]:
    """Return the row account of a run's stage, after a check that it balances."""
    stages = json.loads((run / "account.json").read_text(encoding="utf-8"))
    found: dict[str, Any] = next(each for each in stages if each["stage"] == stage)
    if found["rows_in"] != found["kept"] + found["quarantined"] + sum(found["dropped"].values()):
        raise RowsLostError(found)
    return found


def pair(number: int, **other: Any) -> dict[str, Any]:
    """Return a row of preference data that is good, but for what `other` says."""
    return {"prompt": f"Why {number}?", "chosen": f"Because of {number}.", "rejected": "Ask no more.", **other}


def write_rows(path: Path, *rows: Any) -> Path:
    """Write rows as JSON lines: mappings as JSON, bytes as they are."""
    lines = (row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode() for row in rows)
    path.write_bytes(b"".join(line + b"\n" for line in lines))
    return path
