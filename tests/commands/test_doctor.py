"""What `doctor` and `env` print: one line each, and no secret."""

from __future__ import annotations

from pathlib import Path

import pytest

from headwater.cli import main
from headwater.commands import doctor

CANARY = "canary-0123456789abcdef"


def test_doctor_looks_at_everything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor", "--output", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert {line.split()[1] for line in lines} >= {"installation", "device", "dtype", "packing", "hub", "cache", "disk"}
    assert all(line.startswith(("ok  ", "note")) for line in lines)
    assert "HF_HUB_OFFLINE is set" in next(line for line in lines if " hub " in line)


def test_what_does_not_work_ends_with_7(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken() -> None:
        raise RuntimeError(f"no kernel {CANARY}")

    (tmp_path / "file").touch()
    monkeypatch.setenv("HEADWATER_CACHE", str(tmp_path / "file"))
    monkeypatch.setenv("SOME_TOKEN", CANARY)
    monkeypatch.setattr(doctor, "_packing", broken)
    assert main(["doctor"]) == 7
    said = capsys.readouterr()
    assert (
        "FAIL cache" in said.out and "set HEADWATER_CACHE" in said.out and "does not work: packing, cache" in said.err
    )
    assert "FAIL packing       RuntimeError: no kernel ***" in said.out and CANARY not in said.out


def test_env_prints_versions_and_no_secret(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "short")
    monkeypatch.setenv("HF_TOKEN", CANARY)
    monkeypatch.setenv("HF_ENDPOINT", f"https://me:{CANARY}@mirror.example")
    assert main(["env"]) == 0
    printed = capsys.readouterr().out
    assert {"torch", "transformers", "python", "gpu", "cache"} <= {line.split(":")[0] for line in printed.splitlines()}
    assert "OPENAI_API_KEY: ***" in printed and "HF_TOKEN: ***" in printed and "mirror.example" in printed
    assert CANARY not in printed and "short" not in printed
