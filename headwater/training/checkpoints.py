"""Where a training that was stopped goes on: weights, optimizer, schedule, position and randomness, without pickle.

    RUN/checkpoint-40/
      state.safetensors     trained weights, the optimizer's moments, the state of torch's generators of every process
      position.json         where the schedule of the learning rate stands, what was not logged yet, skipped steps
      trainer_state.json    what transformers keeps of its trainer
      manifest.json         size and digest of the others, and fingerprints of all that the training depends on

transformers' own checkpoints hold optimizer, schedule and generators as pickles; these say the same in plain tensors,
so that what is continued is what was never stopped, bit for bit. A checkpoint is renamed into place when it is whole
and on the disk (`manifest.commit`), and replaces the ones before after it was read back. All stay until the run is
done. A training goes on from the newest one that is what its manifest says.
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
    """Where a training stands after an optimizer step, beside weights and moments: small enough to note every step."""

    state: Any
    """transformers' `TrainerState`."""
    schedule: Mapping[str, Any]
    generators: Generators
    """Of this process."""
    watched: int
    """Passes since the last log line."""

    @property
    def step(self) -> int:
        """The optimizer step."""
        return int(self.state.global_step)


def position(state: Any, schedule: Any, watched: int) -> Position:
    """Take note of where a training stands."""
    plain = {name: value for name, value in schedule.state_dict().items() if name != "lr_lambdas"}
    return Position(copy.copy(state), plain, generators(), watched)


@dataclass(frozen=True)
class Extras:
    """What else a training goes on with."""

    generators: Sequence[Generators]
    """Of every process."""
    tensors: Mapping[str, torch.Tensor]
    """What was not logged yet."""
    plain: Mapping[str, Any]
    """Skipped steps, last evaluation: what JSON holds."""


def latest(run: Path) -> Path | None:
    """Return the newest checkpoint of a run that is what its manifest says; say which are not, and why."""
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
    """Return what the training of a checkpoint depended on."""
    found: dict[str, Any] = manifest.read(checkpoint)["fingerprints"]
    return found


def remove(run: Path, keep: Path | None = None) -> None:
    """Remove the checkpoints of a run, begun ones too, but for `keep`."""
    for path in (*run.glob(f"{PREFIX}*"), *run.glob(f"{manifest.STAGED}{PREFIX}*")):
        if path != keep:
            shutil.rmtree(path, ignore_errors=True)


def rewind(run: Path, checkpoint: Path) -> None:
    """Drop the history rows that were written after a checkpoint: they will come again, as does the summary."""
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
    """Write a checkpoint, read it back, and remove the ones before. Errors: `ResourceError`."""
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
    position = load_plain(checkpoint)["schedule"]
    for group, rate in zip(whole["param_groups"], position["_last_lr"], strict=True):
        group["lr"] = rate
    optimizer.load_state_dict(whole)
    schedule.load_state_dict({**position, "lr_lambdas": [None] * len(position["base_lrs"])})


def load_generators(checkpoint: Path, process: int = 0) -> None:
    """Set torch's random generators to where those of a process were (dropout draws from them)."""
    saved = load_file(checkpoint / "state.safetensors")
    torch.set_rng_state(saved[f"generator/{process}/cpu"])
    if torch.cuda.is_available() and f"generator/{process}/cuda" in saved:
        torch.cuda.set_rng_state(saved[f"generator/{process}/cuda"])


def set_generators(states: Generators) -> None:
    """Set torch's random generators of this process to where they were."""
    torch.set_rng_state(states["cpu"])
    if "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"])


def load_tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Return the tensors of `Extras`."""
    saved = load_file(checkpoint / "state.safetensors")
    return {name.removeprefix("extra/"): value for name, value in saved.items() if name.startswith("extra/")}


def load_plain(checkpoint: Path) -> dict[str, Any]:
    """Return the schedule's position and the plain values of `Extras`."""
    found: dict[str, Any] = json.loads((checkpoint / "position.json").read_text(encoding="utf-8"))
    return found


def _checkpoints(run: Path) -> Iterator[Path]:
    return (path for path in run.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit())


def _tensors(model: torch.nn.Module, optimizer: Any, extras: Extras) -> dict[str, torch.Tensor]:
    """Return all tensors of a checkpoint, on the host, none sharing memory with another."""
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
    """Return where torch's random generators of this process are."""
    states = {"cpu": torch.get_rng_state()}
    return states | ({"cuda": torch.cuda.get_rng_state()} if torch.cuda.is_available() else {})
