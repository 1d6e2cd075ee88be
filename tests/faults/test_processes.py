"""R15 of the fault matrix: a process of two that hangs or dies ends the job, and the checkpoint before is whole."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from headwater.data.corpus import Corpus, generate
from headwater.data.writing import write
from headwater.training import checkpoints
from tests.conftest import ROOT

MODEL = "scratch(hidden=32, layers=1, vocab=300)"
TIMEOUT = 8


@pytest.mark.fault("R15")
@pytest.mark.parametrize("fault", ["hangs", "dies"])
def test_the_other_process_ends_with_a_reason_and_a_whole_checkpoint(fault: str, tmp_path: Path) -> None:
    write(tmp_path / "pairs.jsonl", generate(Corpus(pairs=24, seed=3)))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [
        sys.executable, "-m", "tests.faults.process_worker", "train-dpo", "--data", str(tmp_path / "pairs.jsonl"),
        "--output", str(tmp_path / "run"), "--model", MODEL, "--precision", "fp32", "--eval-fraction", "0",
        "--per-device-train-batch-size", "2", "--save-steps", "2", "--ddp-timeout", str(TIMEOUT),
    ]  # fmt: skip
    shared = os.environ | {
        "OMP_NUM_THREADS": "1", "HEADWATER_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT), "FAULT": fault,
        "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port),
    }  # fmt: skip
    job = [
        subprocess.Popen(
            command, cwd=ROOT, env=shared | {"RANK": rank, "LOCAL_RANK": rank}, stderr=subprocess.PIPE, text=True
        )
        for rank in "01"
    ]
    began = time.monotonic()
    try:
        said = job[0].communicate(timeout=240)[1]
    finally:
        for process in job:
            process.kill()
    assert job[0].returncode == 1
    (line,) = [line for line in said.splitlines() if line.startswith("headwater: ")]
    assert "2 processes · one of them ended, or did not answer" in line
    assert "Traceback" not in said
    assert checkpoints.latest(tmp_path / "run") == tmp_path / "run" / "checkpoint-2"
    assert time.monotonic() - began < 200
