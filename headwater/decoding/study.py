"""The responses of a grid of strategies: decoded, scored and stored point by point, so that a stopped study resumes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headwater import config as configs
from headwater import files
from headwater.console import say, steps
from headwater.decoding.decoders import PairDecoder, RewardModels
from headwater.decoding.frontier import FrontierOptions, StrategyResponses, best_of
from headwater.decoding.strategies import STRATEGIES
from headwater.errors import UsageError
from headwater.files import destinations, locks
from headwater.results.decoding import DecodedResponse
from headwater.results.stored import from_json
from headwater.statistics import Floats

SETTINGS = "settings.yaml"
"""In the directory of a study: what all points have in common."""
Responses = Sequence[DecodedResponse]


def check_settings(output: Path, settings: Mapping[str, Any]) -> None:
    """Refuse a directory whose points were decoded with other settings, and lock it. Errors: `UsageError`."""
    path = output / SETTINGS
    destinations.check_directory(output)
    locks.hold(output)
    if path.is_file():
        before = configs.read_yaml(path)
        changed = next((name for name, value in settings.items() if before.get(name) != value), None)
        if changed:
            flag = f"--{changed.replace('_', '-')} {settings[changed]}"
            raise UsageError(flag, f"{output} was begun with {before.get(changed)}", "name another --output")
    elif output.exists() and any(output.iterdir()):
        raise UsageError(f"--output {output}", "holds files that are not a frontier", "name another directory")


def store_settings(output: Path, settings: Mapping[str, Any]) -> None:
    """Begin a study, unless it was begun before."""
    if not (output / SETTINGS).is_file():
        files.write_text(output / SETTINGS, configs.to_yaml(dict(settings)))


def decode_grid(
    output: Path, options: FrontierOptions, decoder: PairDecoder, reward_models: RewardModels, seed: int
) -> dict[str, Responses]:
    """Return the responses of every strategy by its name; those that are in `output` are not decoded again."""
    wanted = {point.name: point.name for point in options.grid()}
    if options.best_of:
        wanted[_most_of(options)] = "reference"
    paths = {name: output / "points" / f"{_file_name(name)}.jsonl" for name in wanted}
    missing = [name for name in wanted if not paths[name].is_file()]
    say(f"frontier: {len(wanted)} points, {len(wanted) - len(missing)} done")
    with steps(len(missing)) as bar:
        for name in missing:
            n = max(options.best_of) if name == _most_of(options) else None
            strategy = configs.build(wanted[name], STRATEGIES, "strategy")
            with bar.step(name):
                measured = decoder.responses(strategy, seed, n=n)
                lines = [files.to_json(one.stored(reward_models.rewards(one)).record()) for one in measured]
                files.write_text(paths[name], "\n".join(lines) + "\n")
    return {name: _read(path) for name, path in paths.items()}


def _most_of(options: FrontierOptions) -> str:
    """Return the name of the point with the most responses a prompt, of which every best of n takes the first n."""
    return f"best-of-{max(options.best_of, default=0)}"


def _file_name(strategy: str) -> str:
    return re.sub(r"[^a-z0-9_.=-]+", "-", strategy).strip("-")


def _read(path: Path) -> Responses:
    lines = path.read_text(encoding="utf-8").splitlines()
    return [from_json(DecodedResponse, json.loads(line)) for line in lines]


def strategy_responses(
    options: FrontierOptions, responses: Mapping[str, Responses], model: str, picker: str
) -> Iterator[StrategyResponses]:
    """Yield KL and reward by `model` of every strategy; the best of n is picked by the rewards of `picker`."""
    for name, family, setting in options.grid():
        rows = responses[name]
        kl = np.array([row.kl for row in rows], dtype=np.float64)
        yield StrategyResponses(name, family, setting, kl, _rewards(rows, model), [row.opening for row in rows])
    if options.best_of:
        most, rows = max(options.best_of), responses[_most_of(options)]
        own, picked_by = (_rewards(rows, each).reshape(-1, most) for each in (model, picker))
        conversation_ids = [row.opening for row in rows[::most]]
        for n in sorted(set(options.best_of)):
            yield best_of(own, picked_by, conversation_ids, n)


def _rewards(rows: Responses, model: str) -> Floats:
    return np.array([row.rewards[model] for row in rows], dtype=np.float64)
