"""Evaluate a reward model from scratch on all pairs of a file, in folds by conversation, beside length and words.

    python benchmarks/reward_folds.py PAIRS OUTPUT [--seed 0] [flags of train-reward]

Conversations are dealt to five folds. A model is trained on four of them and evaluated on the fifth, five times over,
so that every pair is scored once by a model that has not seen its conversation; the bag of words of `headwater
signal` is fitted on the same folds. Flags that are not this script's go to `headwater train-reward`, with nothing
held out by default: settings are chosen before, and none by the evaluated pairs. Prints accuracy, n and 95 % interval
(bootstrap over conversations) of both and of length either way round, and the paired difference to the words with
McNemar's test.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from headwater import config as configs
from headwater import statistics
from headwater.commands import evaluate, train_reward
from headwater.console import silence
from headwater.data import reading
from headwater.data.truncation import Truncation
from headwater.evaluation.comparison import compare, summarise_rewards, wins
from headwater.results.evaluation import ScoredRows
from headwater.signals.words import FOLDS, Words
from headwater.statistics import Estimate, Floats


def judged(home: Path, pairs: Path, test: Path, flags: list[str]) -> dict[str, tuple[list[float], list[float]]]:
    """Train on `pairs`, judge `test`: rewards and lengths of chosen and rejected, by id."""
    call = ["--data", str(pairs), "--output", str(home / "model"), "--eval-fraction", "0", *flags]
    model = train_reward.run(configs.parse(train_reward.Config, call, "reward_folds", ""))
    run = evaluate.run(evaluate.Config(model=str(model), dataset=test, output=home / "judged"))
    scored = ScoredRows.read(run)
    values = zip(scored.sides("reward").tolist(), scored.sides("tokens").tolist(), strict=True)
    return {row.id: (rewards, lengths) for row, (rewards, lengths) in zip(scored.records, values, strict=True)}


def show(name: str, found: Estimate) -> None:
    """Print a figure with its interval."""
    print(f"{name:32} {found.value:+.4f} {found.interval()}, n = {found.n}")


def main() -> None:
    """Train and judge the folds, and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", type=Path)
    parser.add_argument("output", type=Path)
    parser.add_argument(
        "--seed", type=int, default=0, help="deals conversations to folds, and seeds weights and bootstrap"
    )
    arguments, flags = parser.parse_known_args()
    preferences = reading.load(arguments.pairs).preferences
    words = Words.read(preferences, arguments.seed)
    found: dict[str, tuple[list[float], list[float]]] = {}
    began = time.perf_counter()
    for fold in range(FOLDS):
        home = arguments.output / f"fold-{fold}"
        for name, inside in (("train", words.folds != fold), ("test", words.folds == fold)):
            rows = [preference for preference, there in zip(preferences, inside.tolist(), strict=True) if there]
            reading.write(home / f"{name}.jsonl", rows)
        with silence():
            files = home / "train.jsonl", home / "test.jsonl"
            found |= judged(home, *files, [*flags, "--seed", str(arguments.seed)])
        print(f"fold {fold}: {len(found):,} pairs judged, {time.perf_counter() - began:.0f} s", flush=True)

    known = [place for place, preference in enumerate(preferences) if preference.id in found]
    conversation_ids = [preferences[place].conversation_id for place in known]
    rewards, lengths = (np.array([found[preferences[place].id][what] for place in known]) for what in range(2))
    by_words: Floats = words.margins(Truncation(), np.ones(len(preferences)))[known]
    figures = summarise_rewards(rewards, lengths, conversation_ids, arguments.seed).known()
    shorter = summarise_rewards(rewards, -lengths, conversation_ids, arguments.seed).known()
    lexical = wins(by_words, np.zeros(len(by_words)))
    baseline = compare("bag of words", wins(*rewards.T), lexical, conversation_ids, arguments.seed)
    print(f"{len(known):,} of {len(preferences):,} pairs")
    show("reward model", figures["accuracy"])
    show("correlation with length", figures["length_correlation"])
    show("the longer one", figures["length_accuracy"])
    show("the shorter one", shorter["length_accuracy"])
    show("bag of words", statistics.mean(lexical, conversation_ids, arguments.seed))
    show("reward model less bag of words", baseline.difference)
    print(f"right alone {baseline.only_first}, wrong alone {baseline.only_second}, McNemar p = {baseline.p_value:.3g}")


if __name__ == "__main__":
    main()
