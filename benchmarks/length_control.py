"""Length-controlled win rates of AlpacaEval 2 beside the published ones, and where the difference comes from.

    HEADWATER_DATA=FOLDER python benchmarks/length_control.py

FOLDER holds alpaca_eval2: the leaderboard, the weights of its models, the difficulty of its instructions, and
annotations of some models. Two tables:

- every model with 805 judged prompts, its figure computed from its published weights: how many are how far off;
- every model whose annotations are there, fitted anew. Upstream adds the annotations of two gamed baselines to the
  fit, by which it regularises, and they are not available. "difficulty" is upstream's model without them, at the
  strength of L1 that its cross-validation chooses; "L1 off" the same with next to none, so that the step between the
  two is what L1 alone does. "loss" is the mean log-loss of the published weights on the model's own annotations, less
  that of ours: what the gamed baselines make upstream's fit give up. "length alone" has no difficulty: what any other
  prompt set has.
"""

from __future__ import annotations

import csv
import os
from pathlib import Path

import numpy as np

from headwater.evaluation import judgement_files, length_control
from headwater.evaluation.length_control import CONSTANT, DIFFICULTY, LENGTH, NOTHING, Reference
from headwater.statistics import Floats


def table(path: Path) -> dict[str, dict[str, str]]:
    """Read a table of upstream's by its first column, which has no name."""
    with path.open(encoding="utf-8", newline="") as handle:
        return {row[""]: row for row in csv.DictReader(handle)}


def from_weights(
    leaderboard: dict[str, dict[str, str]], weights: dict[str, dict[str, float]], reference: Reference
) -> None:
    """Print how far the figures that published weights give are from the published figures."""
    off = {
        name: length_control.from_weights(weights[name], reference.difficulty) - float(row["length_controlled_winrate"])
        for name, row in leaderboard.items()
        if name in weights and row["n_total"] == "805"
    }
    far = {name: error for name, error in off.items() if abs(error) > 0.01}
    print(f"from published weights: {len(off) - len(far)} of {len(off)} models within 0.01 points; beyond:")
    for name, error in far.items():
        print(f"  {name}: {error:+.3f}")


def log_loss(design: Floats, preferences: Floats, weights: dict[str, float]) -> float:
    """Return the mean log-loss in nats of a model with `weights` on rows [n, 3] and preferences [n]."""
    logits = design @ np.array([weights[term] for term in (LENGTH, DIFFICULTY, CONSTANT)])
    return float(np.mean(np.logaddexp(0, logits) - preferences * logits))


def refit(path: Path, published: float, weights: dict[str, float], reference: Reference) -> str:
    """Return a row of the table for the model whose annotations are at `path`."""
    judged = [one for one in judgement_files.read(path)[0] if one.preference is not None]
    preferences = np.array([one.preference for one in judged], dtype=np.float64)
    lengths = np.array([[len(text) for text in one.outputs or ()] for one in judged], dtype=np.float64)
    prompts = [one.prompt for one in judged]
    delta = lengths[:, 0] - lengths[:, 1]
    design = np.stack([np.tanh(delta / delta.std(ddof=1)), reference.difficulty, np.ones(len(delta))], axis=1)
    ours = length_control.win_rate(preferences, lengths, prompts, reference)
    alone = length_control.win_rate(preferences, lengths, prompts, NOTHING)
    free = length_control._likeliest(design, preferences, np.ones(len(delta)))
    without_l1 = length_control.from_weights({DIFFICULTY: free[1], CONSTANT: free[2]}, reference.difficulty)
    loss = log_loss(design, preferences, weights) - log_loss(design, preferences, ours.weights)
    cells = [
        f"{100 * preferences.mean():.2f}",
        f"{published:.2f}",
        f"{ours.estimate.value:.2f}",
        f"{ours.estimate.value - published:+.2f}",
        f"{ours.estimate.low:.1f} to {ours.estimate.high:.1f}",
        f"{without_l1:.2f}",
        f"{loss:+.5f}",
        " ".join(f"{weights[term]:.2f}/{ours.weights[term]:.2f}" for term in (LENGTH, DIFFICULTY, CONSTANT)),
        f"{alone.estimate.value:.2f}",
    ]
    return " | ".join([path.name.removeprefix("annotations_").removesuffix(".json.gz"), *cells])


def main() -> None:
    """Print both tables."""
    data = Path(os.environ["HEADWATER_DATA"]) / "alpaca_eval2"
    reference = length_control.read_reference(data / "instruction_difficulty_recovered.csv")
    leaderboard = table(data / "weighted_alpaca_eval_gpt4_turbo_leaderboard.csv")
    weights = {
        name: {term: float(value) for term, value in row.items() if term}
        for name, row in table(data / "lc_glm_weights_baseline_gpt4_1106_preview.csv").items()
    }
    from_weights(leaderboard, weights, reference)
    heads = "win rate | published | difficulty | off by | 95 % interval | L1 off | loss"
    print(f"model | {heads} | weights, published/ours: length difficulty constant | length alone")
    for path in sorted(data.glob("annotations_*.json.gz")):
        name = path.name.removeprefix("annotations_").removesuffix(".json.gz")
        if name in weights and leaderboard[name]["n_total"] == "805":
            published = float(leaderboard[name]["length_controlled_winrate"])
            print(refit(path, published, weights[name], reference))
        else:
            print(f"{name} | left out: {leaderboard[name]['n_total']} prompts judged")


if __name__ == "__main__":
    main()
