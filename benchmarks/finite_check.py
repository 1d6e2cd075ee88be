"""Share of a training step that the check for finite losses and gradients takes, on this processor.

    python -m benchmarks.finite_check [--steps 60] [--hidden 256] [--layers 4]

The three methods of `StepGuard` that run in every step are timed inside a DPO training of a scratch model, and compared
with the time of whole steps. On a GPU the host does not wait for the flags, so that this measures a CPU only.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from headwater.commands import train_dpo
from headwater.data.corpus import Corpus, generate
from headwater.data.writing import write
from headwater.forward.finite import StepGuard
from headwater.training.options import TrainingOptions

METHODS = ("see_rows", "see_batch", "decide")
WARM_UP = 5
"""First steps that are not counted."""


def timed(spent: list[float], method: Callable[..., Any]) -> Callable[..., Any]:
    """Return `method`, which adds the seconds that it takes to the last entry of `spent`."""

    def measured(*arguments: Any) -> Any:
        begin = time.perf_counter()
        try:
            return method(*arguments)
        finally:
            spent[-1] += time.perf_counter() - begin

    return measured


def main() -> None:
    """Print the share of the check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=4)
    options = parser.parse_args()
    spent, ends = [0.0], [time.perf_counter()]
    for name in METHODS:
        setattr(StepGuard, name, timed(spent, getattr(StepGuard, name)))
    decide = StepGuard.decide

    def ending(*arguments: Any) -> Any:
        found = decide(*arguments)
        ends.append(time.perf_counter())
        spent.append(0.0)
        return found

    StepGuard.decide = ending  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / "pairs.jsonl", generate(Corpus(pairs=8 * options.steps, seed=0)))
        train_dpo.run(
            train_dpo.Config(
                data=Path(folder) / "pairs.jsonl",
                output=Path(folder) / "run",
                model=f"scratch(hidden={options.hidden}, layers={options.layers})",
                training=TrainingOptions(eval_fraction=0.0, precision="fp32", logging_steps=1000),
            )
        )
    steps = [after - before for before, after in itertools.pairwise(ends)][WARM_UP:]
    shares = [100 * check / step for check, step in zip(spent[WARM_UP:], steps, strict=False)]
    low, _, high = statistics.quantiles(shares, n=4)
    print(f"step {1000 * statistics.median(steps):.1f} ms, check {statistics.median(shares):.2f} % of it", end=" ")
    print(
        f"(quartiles {low:.2f} and {high:.2f}; n = {len(steps)} steps, {sum(spent[WARM_UP:]) / sum(steps):.2%} in all)"
    )


if __name__ == "__main__":
    main()
