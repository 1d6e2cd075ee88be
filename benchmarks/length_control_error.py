"""Error of the minimal length-controlled win rate, against the published figures of AlpacaEval's leaderboard.

    python benchmarks/length_control_error.py DATA

DATA holds alpaca_eval2 (tatsu-lab/alpaca_eval): preferences of 29 models, and the leaderboard. Printed are the plain
win rate, the minimal figure with its bootstrap interval, and the published one; then how often the bootstrap interval,
and the interval that reaches to the plain win rate, hold the published figure.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
from pathlib import Path

import numpy as np

from headwater.evaluation import length_control


def preferences(path: Path) -> dict[str, list[tuple[str, float, int, int]]]:
    """Return by model: prompt, preference, and the lengths of the baseline's and its own answer."""
    found: dict[str, list[tuple[str, float, int, int]]] = {}
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        for row in map(json.loads, lines):
            for one in row["responses"]:
                if one["generator"] != row["baseline"] and one.get("pref") is not None:
                    lengths = len(row["baseline_output"]), len(one["output"])
                    found.setdefault(one["generator"], []).append((row["instruction"], one["pref"], *lengths))
    return found


def main() -> None:
    """Print a line a model, and the shares."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    data = parser.parse_args().data / "alpaca_eval2"
    with (data / "weighted_alpaca_eval_gpt4_turbo_leaderboard.csv").open(encoding="utf-8", newline="") as handle:
        board = {row[""]: float(row["length_controlled_winrate"]) for row in csv.DictReader(handle)}
    held, reached, errors = [], [], []
    for name, rows in preferences(data / "multi_response_preferences.jsonl.gz").items():
        prompts, shares, *lengths = zip(*rows, strict=True)
        p, sides = np.array(shares), np.array(lengths, dtype=np.float64).T
        found = length_control.win_rate(p, sides, prompts).estimate
        assert found.low is not None and found.high is not None
        plain, published = 100 * p.mean(), board[name]
        drawn = length_control._resampled(
            np.stack([np.tanh((d := sides[:, 0] - sides[:, 1]) / d.std(ddof=1)), np.ones(len(d))], axis=1),
            p,
            prompts,
            length_control.NOTHING,
            0,
        )
        low, high = np.percentile(drawn, [2.5, 97.5])
        held.append(low <= published <= high)
        reached.append(found.low <= published <= found.high)
        errors.append(abs(found.value - published))
        print(f"{name:32} plain {plain:5.1f}  minimal {found.value:5.1f} [{low:5.1f}, {high:5.1f}]  {published:5.1f}")
    off = sum(error > 5 for error in errors)
    print(f"{off} of {len(errors)} models are more than 5 points off, the largest error is {max(errors):.1f}")
    print(f"published figure inside: bootstrap interval {sum(held)}, reaching to the plain win rate {sum(reached)}")


if __name__ == "__main__":
    main()
