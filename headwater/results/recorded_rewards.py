"""Rewards, implicit rewards and likelihoods that runs recorded of some data, for a selection from that data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from headwater.data.recorded import Recorded, RowName
from headwater.errors import UsageError
from headwater.results import runs

Kind = Literal["rewards", "implicit", "likelihood"]


def recorded_rewards(
    rewards: Sequence[Path], implicit: Sequence[Path], likelihoods: Sequence[Path]
) -> dict[str, list[Recorded[Sequence[float]]]]:
    """Return what the named runs recorded, by kind and model. Errors: `UsageError` for a run of another kind."""
    kinds: dict[Kind, Sequence[Path]] = {"rewards": rewards, "implicit": implicit, "likelihood": likelihoods}
    return {kind: [found for path in paths for found in _recorded(path, kind)] for kind, paths in kinds.items()}


def _recorded(path: Path, kind: Kind) -> list[Recorded[Sequence[float]]]:
    """Return the rewards that a run recorded, by the models that it scored with. Errors: `UsageError`."""
    run = runs.load(path)
    if kind == "implicit" and run.facts.get("kind") == "reward model":
        raise UsageError(f"--implicit {path}", "scored with a reward model", "name it with --rewards")
    likely = run.facts.get("scores") == "likelihood"
    if likely and kind != "likelihood":
        raise UsageError(f"--{kind} {path}", "recorded likelihoods", "name it with --likelihoods")
    if kind == "likelihood" and not likely:
        raise UsageError(f"--likelihoods {path}", "recorded rewards", "name a run of score --value mean_log_prob")
    models: dict[str, list[tuple[RowName, Sequence[float]]]] = {}
    for row in run.records():
        models.setdefault(str(row.get("model") or run.name), []).append((RowName.read(row), _rewards_of(row)))
    if not any(rewards for rows in models.values() for _, rewards in rows):
        raise UsageError(str(path), "recorded no rewards", "name a run of evaluate, or of sample --reward-model")
    return [Recorded(name, rows) for name, rows in models.items()]


def _rewards_of(row: Mapping[str, Any]) -> Sequence[float]:
    """Return the recorded rewards of a row: of its candidates, or of chosen and rejected."""
    if "rewards" in row:
        return [float("nan") if value is None else float(value) for value in row["rewards"]]
    return [float(row[side]) for side in ("chosen_reward", "rejected_reward") if row.get(side) is not None]
