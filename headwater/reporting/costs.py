"""Costs of runs: tokens, floating-point operations, wall time, memory."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from headwater.reporting.cells import MISSING, Cell, duration, large
from headwater.reporting.findings import count
from headwater.results.runs import Run

GIB = 1 << 30


def costs(runs: Sequence[Run], names: Mapping[Any, str]) -> list[dict[str, Cell]]:
    """Return a row for every run that counted its tokens; [] without any.

    Facts are inherited by later runs, so only the training run itself shows its counts.
    """
    return [_row(run, names[run.path]) for run in runs if _tokens(run)]


def _tokens(run: Run) -> float:
    """Return the tokens that a training run read, or a decoding run wrote; 0 where they were not counted."""
    found = run.facts.get("training_tokens") if run.history else run.metrics.get("tokens")
    return float(found) if isinstance(found, int | float) else 0.0


def _row(run: Run, name: str) -> dict[str, Cell]:
    flops, peak = run.facts.get("training_flops"), run.facts.get("memory_bytes", {}).get("peak")
    tokens = _tokens(run)
    seconds = run.training_history.seconds or run.seconds
    rates = [f"{count(round(tokens / seconds))} tokens a second"] if seconds else []
    return {
        "run": Cell(name),
        "command": Cell(run.command, _trained(run) if run.history else ""),
        "tokens": Cell(count(round(tokens)), "read" if run.history else "written"),
        "FLOPs": Cell(large(flops) if run.history and flops else MISSING),
        "wall time": Cell(duration(run.seconds), " · ".join(rates)),
        "peak memory": Cell(f"{peak / GIB:.2f} GiB" if run.history and peak else MISSING),
    }


def _trained(run: Run) -> str:
    """Return which layers were trained where the others were frozen."""
    sizes = run.facts.get("frozen")
    if not sizes:
        return ""
    count = sizes["trained_layers"]
    return f"the last {count} of {sizes['layers']} layers" if count else "the head alone"
