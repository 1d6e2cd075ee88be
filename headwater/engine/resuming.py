"""Where a training that was stopped goes on: weights, optimizer, schedule, position and randomness, without pickle.

    RUN/checkpoint-40/
      state.safetensors     trained weights, the optimizer's moments, the state of torch's generators
      schedule.json         where the learning rate's schedule stands
      trainer_state.json    what transformers keeps of its trainer

transformers' own checkpoints hold optimizer, schedule and generators as pickles; these say the same in plain tensors,
so that what is continued is what was never stopped, bit for bit. A checkpoint is renamed into place when it is whole,
and replaces the one before; a finished run has none.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from headwater import files

PREFIX = "checkpoint-"


def latest(run: Path) -> Path | None:
    """Return the checkpoint that a run in `run` may go on from."""
    found = [path for path in run.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()]
    return max(found, key=step_of, default=None)


def step_of(checkpoint: Path) -> int:
    """Return the optimizer step after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix(PREFIX))


def remove(run: Path, keep: Path | None = None) -> None:
    """Remove the checkpoints of a run, begun ones too, but for `keep`."""
    for path in run.glob(f"{PREFIX}*"):
        if path != keep:
            shutil.rmtree(path)


def rewind(run: Path, checkpoint: Path) -> None:
    """Drop the history rows that were written after a checkpoint, or at the end of training: they will come again."""
    history = run / "history.jsonl"
    lines = history.read_text(encoding="utf-8").splitlines(keepends=True) if history.exists() else []
    rows = ((line, json.loads(line)) for line in lines)
    kept = (line for line, row in rows if row["step"] <= step_of(checkpoint) and "train_runtime" not in row)
    files.write_text(history, "".join(kept))


def save(run: Path, state: Any, model: torch.nn.Module, optimizer: Any, schedule: Any) -> None:
    """Write the checkpoint of a trainer's `state`, and remove the one before."""
    checkpoint = run / f"{PREFIX}{state.global_step}"
    begun = checkpoint.with_name(f"{checkpoint.name}.tmp")
    begun.mkdir(exist_ok=True)
    moments = {
        f"optimizer/{number}/{name}": value
        for number, entry in optimizer.state_dict()["state"].items()
        for name, value in entry.items()
    }
    tensors = {f"weights/{name}": weight.detach() for name, weight in _trained(model)} | moments | _generators()
    save_file({name: tensor.cpu().clone() for name, tensor in tensors.items()}, begun / "state.safetensors")
    plain = {name: value for name, value in schedule.state_dict().items() if name != "lr_lambdas"}
    files.write_json(begun / "schedule.json", plain)
    state.save_to_json(str(begun / "trainer_state.json"))
    begun.replace(checkpoint)
    remove(run, keep=checkpoint)


def load_weights(checkpoint: Path, model: torch.nn.Module) -> None:
    """Put the trained weights of a checkpoint into a model."""
    saved = load_file(checkpoint / "state.safetensors")
    with torch.no_grad():
        for name, weight in _trained(model):
            weight.copy_(saved[f"weights/{name}"])


def load_optimizer(checkpoint: Path, optimizer: Any, schedule: Any) -> None:
    """Put a checkpoint's moments into an optimizer, and its position into a schedule."""
    whole = optimizer.state_dict()
    whole["state"] = {}
    for key, value in load_file(checkpoint / "state.safetensors").items():
        kind, number, name = (*key.split("/", 2), "")[:3]
        if kind == "optimizer":
            whole["state"].setdefault(int(number), {})[name] = value
    position = json.loads((checkpoint / "schedule.json").read_text(encoding="utf-8"))
    for group, rate in zip(whole["param_groups"], position["_last_lr"], strict=True):
        group["lr"] = rate
    optimizer.load_state_dict(whole)
    schedule.load_state_dict({**position, "lr_lambdas": [None] * len(position["base_lrs"])})


def load_generators(checkpoint: Path) -> None:
    """Set torch's random generators to where they were (dropout draws from them)."""
    saved = load_file(checkpoint / "state.safetensors")
    torch.set_rng_state(saved["generator/cpu"])
    if torch.cuda.is_available() and "generator/cuda" in saved:
        torch.cuda.set_rng_state(saved["generator/cuda"])


def _trained(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    return ((name, weight) for name, weight in model.named_parameters() if weight.requires_grad)


def _generators() -> dict[str, torch.Tensor]:
    states = {"generator/cpu": torch.get_rng_state()}
    return states | ({"generator/cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})
