"""Kill trainings at random moments, and let the same command go on until each has finished.

    python -m benchmarks.soak --kills 60

Every run must end with the weights of the run that nobody disturbed, bit for bit. Children are forked from a process
that has torch imported, so that a kill falls into the training and not into imports.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from pathlib import Path

import torch
from safetensors.torch import load_file

from headwater.commands import train_dpo
from headwater.console import silence
from headwater.data.corpus import Corpus, generate
from headwater.data.writing import write
from headwater.training.options import TrainingOptions

OPTIONS = TrainingOptions(
    precision="fp32", num_train_epochs=8, logging_steps=1, per_device_train_batch_size=4, learning_rate=1e-3,
    save_steps=2, eval_fraction=0.2,
)  # fmt: skip


def config_of(home: Path, name: str) -> train_dpo.Config:
    """Return the command: a tiny model, a checkpoint every other step."""
    model = "scratch(hidden=32, layers=1, vocab=300)"
    return train_dpo.Config(data=home / "pairs.jsonl", output=home / name, model=model, training=OPTIONS)


def begin(config: train_dpo.Config) -> int:
    """Fork a child that trains, and return its process id."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        with silence():
            train_dpo.run(config)
        code = 0
    finally:
        os._exit(code)


def main() -> None:
    """Count kills until there are enough, comparing the weights of every run that finished."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    wanted = parser.parse_args()
    draw = random.Random(wanted.seed)
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        os.environ["HEADWATER_CACHE"] = str(home / "cache")
        write(home / "pairs.jsonl", generate(Corpus(pairs=60, seed=3)))
        for name in ("warm", "whole"):  # the first one imports what is imported late
            began = time.monotonic()
            with silence():
                expected = load_file(train_dpo.run(config_of(home, name)) / "model.safetensors")
            whole = time.monotonic() - began
        kills = runs = refused = 0
        while kills < wanted.kills:
            config = config_of(home, f"run-{runs}")
            while not (config.output / "done").exists():
                child = begin(config)
                time.sleep(draw.uniform(0, 0.6 * whole))
                os.kill(child, signal.SIGKILL)
                _, status = os.waitpid(child, 0)
                kills += os.WIFSIGNALED(status)
                refused += os.WIFEXITED(status) and os.WEXITSTATUS(status) != 0
                assert not refused, "a command that was killed did not go on"
            found = load_file(config.output / "model.safetensors")
            assert all(torch.equal(found[name], weight) for name, weight in expected.items()), config.output.name
            runs += 1
    print(f"{kills} kills in {runs} runs of {whole:.1f} s, seed {wanted.seed}: every run ended bit for bit alike")


if __name__ == "__main__":
    main()
