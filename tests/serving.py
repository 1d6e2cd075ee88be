"""A real OpenAI-compatible server on this machine, `transformers serve`, and a policy for it, made on the spot.

It takes a path for a model's name, so that one server serves whatever the tests make. It knows `/v1/chat/completions`
and `/v1/completions`, ignores `logprobs`, refuses what OpenAI does not know (`top_k`), and samples only where the
model's own `generation_config.json` says so.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path

from headwater.data.preference import Preference
from headwater.engine import models

PATIENCE = 120
"""Seconds a server may take to start."""


@contextlib.contextmanager
def transformers_server(log: Path) -> Iterator[str]:
    """Yield the base address of a server that runs as long as the block."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    serve = [sys.executable, "-m", "transformers.cli.transformers", "serve"]
    where = ["--host", "127.0.0.1", "--port", str(port), "--device", "cpu"]
    with log.open("wb") as handle:
        environment = os.environ | {"HF_HUB_OFFLINE": "1"}
        process = subprocess.Popen([*serve, *where], stdout=handle, stderr=handle, env=environment)
    try:
        _await(f"http://127.0.0.1:{port}/health", process, log)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.terminate()
        process.wait(30)


def _await(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end and process.poll() is None:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"the server did not start: {log.read_text('utf-8')[-2000:]}")


def save_policy(path: Path, preferences: Sequence[Preference], model: str, seed: int = 0) -> Path:
    """Save a scratch policy as a server takes it, sampling where a request does not ask for temperature 0."""
    policy, tokenizer = models.load(model, "policy", preferences, seed)
    policy.generation_config.do_sample = True
    policy.save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path
