"""Does preference variance choose better training pairs? Reward models on the planted corpus, at equal steps.

    python benchmarks/selection_training.py OUTPUT [--prompts 3000] [--seeds 5] [--temperature 1.0]

Every prompt gets four answers of the planted corpus (arXiv:2510.13022 samples them from a policy; here they are drawn
from the corpus's own answers on the topic). An answer's reward is its number of kind phrases, so that PVar is that of
the labels' own model: of a prompt's answers two are drawn at random, and the label is a draw from σ(difference / τ).
Trained are reward models on the 10 % of prompts with the highest PVar, on the lowest, on random ones, and on all; the
tenths are seen ten times, so that all take equally many steps. Judged on full pairs of another corpus, without noise.
Prints accuracy by arm and seed with its interval, and the share of labels that agree with the rewards.
"""

from __future__ import annotations

import argparse
import random
import statistics
from collections import defaultdict
from pathlib import Path

import numpy as np

from headwater.commands import evaluate, train_reward
from headwater.console import silence
from headwater.data import reading
from headwater.data import selection as picking
from headwater.data.corpus import PHRASES, Corpus, generate
from headwater.data.preference import Candidates, Preference, Response
from headwater.data.truncation_options import TruncationOptions
from headwater.models import loading
from headwater.results import runs
from headwater.training.options import TrainingOptions

ANSWERS = 4
MODEL = "scratch(hidden=64, layers=2, vocab=1024)"


def kindness(text: str) -> float:
    """Count the kind phrases of an answer: its reward."""
    lower = text.lower()
    return float(sum(any(kind in lower for kind, _ in slot) for slot in PHRASES))


def candidates(prompts: int) -> list[Candidates]:
    """Give every different prompt of a corpus four answers on its topic, with their rewards."""
    rows = generate(Corpus(pairs=prompts, flip=0.0, seed=0))
    answers: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        answers[row.source] += [row.chosen.text, row.rejected.text]
    draw = random.Random(0)
    return [
        Candidates(
            prompt=row.prompt,
            responses=tuple(Response(t, kindness(t)) for t in draw.sample(answers[row.source], ANSWERS)),
            id=row.id,
            source=row.source,
        )
        for row in rows
    ]


def labelled(row: Candidates, tau: float, seed: int) -> Preference:
    """Draw two answers and a label: the better one wins with probability σ(difference / τ)."""
    draw = random.Random(f"{seed}:{row.id}")
    one, other = draw.sample(row.responses, 2)
    wins = draw.random() < 1 / (1 + np.exp((other.score or 0.0) - (one.score or 0.0)) ** (1 / tau))
    chosen, rejected = (one, other) if wins else (other, one)
    return Preference(prompt=row.prompt, chosen=chosen, rejected=rejected, id=row.id, source=row.source)


def arms(rows: list[Candidates], tau: float, seed: int) -> dict[str, list[Preference]]:
    """Return the training pairs of every arm."""
    builder = picking.Builder()
    for row in rows:
        builder.add(row)
    pool = builder.pool("reward")
    pvar, ones = picking.PVar(tau)(pool), np.ones(len(rows), dtype=np.int64)
    tenth = picking.Budget.parse("10%")
    chosen = {
        "top 10 %": picking.choose(pvar, ones, tenth, "top", seed).rows,
        "bottom 10 %": picking.choose(pvar, ones, tenth, "bottom", seed).rows,
        "random 10 %": picking.choose(pvar, ones, tenth, "random", seed).rows,
        "all": np.arange(len(rows)),
    }
    return {arm: [labelled(rows[row], tau, seed) for row in places.tolist()] for arm, places in chosen.items()}


def accuracy(output: Path, arm: str, seed: int, pairs: list[Preference], start: Path, held_out: Path) -> float:
    """Train on some pairs and return the accuracy on the others."""
    home = output / f"{arm.split()[0]}-{seed}"
    reading.write(home / "pairs.jsonl", pairs)
    training = TrainingOptions(
        num_train_epochs=1.0 if arm == "all" else 10.0,
        learning_rate=1e-3,
        per_device_train_batch_size=16,
        precision="fp32",
        eval_fraction=0.0,
        seed=seed,
    )
    truncation = TruncationOptions(end="always")
    config = train_reward.Config(
        home / "pairs.jsonl", home / "reward", str(start), training=training, truncation=truncation
    )
    trained = train_reward.run(config)
    judged = evaluate.run(
        evaluate.Config(str(trained), held_out, output=home / "evaluation", allow_leakage=True, truncation=truncation)
    )
    found = runs.load(judged).metrics["accuracy"]
    right = sum((p.chosen.score or 0) > (p.rejected.score or 0) for p in pairs)
    wrong = sum((p.chosen.score or 0) < (p.rejected.score or 0) for p in pairs)
    print(
        f"seed {seed} · {arm:12} · {len(pairs):5} pairs · labels right {right}, tied {len(pairs) - right - wrong}, "
        f"wrong {wrong} · accuracy {found['value']:.3f} [{found['low']:.3f}, {found['high']:.3f}] (n = {found['n']})",
        flush=True,
    )
    return float(found["value"])


def main() -> None:
    """Train every arm with every seed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output", type=Path)
    parser.add_argument("--prompts", type=int, default=3000)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--temperature", type=float, default=1.0)
    arguments = parser.parse_args()
    rows = candidates(arguments.prompts)
    held_out = arguments.output / "held-out.jsonl"
    reading.write(held_out, generate(Corpus(pairs=600, flip=0.0, seed=1)))
    texts = generate(Corpus(pairs=1000, seed=2))  # the tokenizer of all arms
    results: dict[str, list[float]] = defaultdict(list)
    for seed in range(arguments.seeds):
        start = arguments.output / f"start-{seed}"
        loaded = loading.load(MODEL, "policy", texts, seed)
        loaded.model.save_pretrained(start)
        loaded.tokenizer.save_pretrained(start)
        for arm, pairs in arms(rows, arguments.temperature, seed).items():
            with silence():
                results[arm].append(accuracy(arguments.output, arm, seed, pairs, start, held_out))
    for arm, values in results.items():
        spread = statistics.stdev(values) if len(values) > 1 else float("nan")
        print(f"{arm:12} mean {statistics.mean(values):.3f}, sd {spread:.3f} over {len(values)} seeds")
    for arm in ("bottom 10 %", "random 10 %", "all"):
        gains = [top - other for top, other in zip(results["top 10 %"], results[arm], strict=True)]
        print(f"top 10 % minus {arm}: " + ", ".join(f"{gain:+.3f}" for gain in gains))


if __name__ == "__main__":
    main()
