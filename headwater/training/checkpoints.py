"""Checkpoints of a training run: weights, optimizer, schedule, position and random state, without pickle.

    RUN/checkpoint-40/
      state.safetensors     trained weights, the optimizer's moments, the state of torch's generators of every process
      position.json         state of the learning-rate schedule, figures not logged yet, skipped steps
      trainer_state.json    the `TrainerState` of transformers
      manifest.json         size and digest of the others, fingerprints of all that the training depends on

The checkpoints of transformers hold optimizer, schedule and generators as pickles, which can run code when they are
loaded. These hold the same as plain tensors, and a continued training ends with the same bits as one that was never
stopped. A checkpoint is renamed into place when it is complete and on the disk (`manifest.commit`); it is read back
before the earlier ones are removed. Checkpoints stay until the run is done, and training continues from the newest one
that matches its manifest.
"""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file

from headwater import files
from headwater.console import say
from headwater.files import manifest

PREFIX = "checkpoint-"
Generators = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Position:
    """State of a training after an optimizer step, except weights and moments: small enough to record every step."""

    state: Any
    """transformers' `TrainerState`."""
    schedule: Mapping[str, Any]
    generators: Generators
    """Random generators of this process."""
    watched: int
    """Passes since the last log line."""

    @property
    def step(self) -> int:
        """The optimizer step."""
        return int(self.state.global_step)


def position(state: Any, schedule: Any, watched: int) -> Position:
    """Return the current position of a training; the state is copied."""
    plain = {name: value for name, value in schedule.state_dict().items() if name != "lr_lambdas"}
    return Position(copy.copy(state), plain, generators(), watched)


@dataclass(frozen=True)
class Extras:
    """State beside the weights and the optimizer that a training continues with."""

    generators: Sequence[Generators]
    """Random generators of every process."""
    tensors: Mapping[str, torch.Tensor]
    """Figures that are not logged yet, and the best weights so far."""
    plain: Mapping[str, Any]
    """Skipped steps and the last evaluation, as JSON values."""


def latest(run: Path) -> Path | None:
    """Return the newest checkpoint of a run that matches its manifest; print which do not, and why."""
    for path in sorted(_checkpoints(run), key=step_of, reverse=True):
        problem = manifest.problem(path)
        if not problem:
            return path
        say(f"{path}: {problem}; it is passed over")
    return None


def step_of(checkpoint: Path) -> int:
    """Return the optimizer step after which a checkpoint was written."""
    return int(checkpoint.name.removeprefix(PREFIX))


def fingerprints(checkpoint: Path) -> dict[str, Any]:
    """Return the fingerprints stored in a checkpoint: settings, data, model, rows and versions."""
    found: dict[str, Any] = manifest.read(checkpoint)["fingerprints"]
    return found


def remove(run: Path, keep: Path | None = None) -> None:
    """Remove the checkpoints of a run, incomplete ones included, except `keep`."""
    for path in (*run.glob(f"{PREFIX}*"), *run.glob(f"{manifest.STAGED}{PREFIX}*")):
        if path != keep:
            shutil.rmtree(path, ignore_errors=True)


def rewind(run: Path, checkpoint: Path) -> None:
    """Remove the history rows written after a checkpoint, which will be written again, and the summary row."""
    history = run / "history.jsonl"
    lines = history.read_text(encoding="utf-8", errors="replace").splitlines() if history.exists() else []
    kept = [line for line in lines if _is_before(line, step_of(checkpoint))]
    files.write_text(history, "".join(f"{line}\n" for line in kept))


def _is_before(line: str, step: int) -> bool:
    try:
        row = json.loads(line)
        return row["step"] <= step and "train_loss" not in row
    except (ValueError, KeyError, TypeError):
        return False  # torn by what ended the run


def save(
    run: Path,
    position: Position,
    model: torch.nn.Module,
    optimizer: Any,
    extras: Extras,
    fingerprints: Mapping[str, Any],
) -> Path:
    """Write a checkpoint, read it back, and remove the earlier ones. Errors: `ResourceError`."""
    checkpoint = run / f"{PREFIX}{position.step}"
    if checkpoint.exists() and not manifest.problem(checkpoint):
        return checkpoint  # a stop right after a save
    plain = {"schedule": position.schedule, **extras.plain}

    def fill(staged: Path) -> None:
        save_file(_tensors(model, optimizer, extras), staged / "state.safetensors")
        files.write_json(staged / "position.json", plain)
        position.state.save_to_json(str(staged / "trainer_state.json"))

    manifest.commit(checkpoint, fill, {"step": position.step, "fingerprints": fingerprints})
    problem = manifest.problem(checkpoint)
    if problem:
        raise OSError(f"{checkpoint} {problem} right after it was written")
    remove(run, keep=checkpoint)
    return checkpoint


def load_weights(checkpoint: Path, model: torch.nn.Module) -> None:
    """Copy the trained weights of a checkpoint into a model."""
    saved = load_file(checkpoint / "state.safetensors")
    with torch.no_grad():
        for name, weight in _trained(model):
            weight.copy_(saved[f"weights/{name}"])


def load_optimizer(checkpoint: Path, optimizer: Any, schedule: Any) -> None:
    """Load the moments of a checkpoint into an optimizer, and its schedule state into a schedule."""
    whole = optimizer.state_dict()  # its groups name the parameters, in the order of the checkpoint
    whole["state"] = {}
    for key, value in load_file(checkpoint / "state.safetensors").items():
        kind, number, name = (*key.split("/", 2), "")[:3]
        if kind == "optimizer":
            whole["state"].setdefault(int(number), {})[name] = value
    position = load_plain(checkpoint)["schedule"]
    for group, rate in zip(whole["param_groups"], position["_last_lr"], strict=True):
        group["lr"] = rate
    optimizer.load_state_dict(whole)
    schedule.load_state_dict({**position, "lr_lambdas": [None] * len(position["base_lrs"])})


def load_generators(checkpoint: Path, process: int = 0) -> None:
    """Restore the random generators of a process, from which dropout and NEFTune draw."""
    saved = load_file(checkpoint / "state.safetensors")
    torch.set_rng_state(saved[f"generator/{process}/cpu"])
    if torch.cuda.is_available() and f"generator/{process}/cuda" in saved:
        torch.cuda.set_rng_state(saved[f"generator/{process}/cuda"])


def set_generators(states: Generators) -> None:
    """Restore the random generators of this process."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])


def load_tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of `Extras`."""
    saved = load_file(checkpoint / "state.safetensors")
    return {name.removeprefix("extra/"): value for name, value in saved.items() if name.startswith("extra/")}


def load_plain(checkpoint: Path) -> dict[str, Any]:
    """Return the state of the schedule and the plain values of `Extras`."""
    found: dict[str, Any] = json.loads((checkpoint / "position.json").read_text(encoding="utf-8"))
    return found


def _checkpoints(run: Path) -> Iterator[Path]:
    return (path for path in run.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit())


def _tensors(model: torch.nn.Module, optimizer: Any, extras: Extras) -> dict[str, torch.Tensor]:
    """Return all tensors of a checkpoint as copies on the host: safetensors refuses tensors that share memory."""
    found = {f"weights/{name}": weight.detach() for name, weight in _trained(model)}
    for number, entry in optimizer.state_dict()["state"].items():
        found |= {f"optimizer/{number}/{name}": value for name, value in entry.items()}
    for process, states in enumerate(extras.generators):
        found |= {f"generator/{process}/{name}": state for name, state in states.items()}
    found |= {f"extra/{name}": value for name, value in extras.tensors.items()}
    return {name: tensor.cpu().clone() for name, tensor in found.items()}


def _trained(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    return ((name, weight) for name, weight in model.named_parameters() if weight.requires_grad)


def generators() -> Generators:
    """Return the state of the random generators of this process."""
    states = {"cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})
