"""Length-balanced training: as many of either kind, every pair accounted for, and less pay for length."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from headwater.data import reading
from headwater.data.balancing import balanced_by_length
from headwater.data.corpus import Corpus, generate
from headwater.errors import DataError
from headwater.results import runs
from headwater.results.evaluation import Diagnostics
from tests.conftest import random_pairs
from tests.support.commands import succeed

SIZES = [(3, 9, 4)] * 7 + [(3, 4, 9)] * 3 + [(3, 5, 5)] * 2


def test_both_kinds_are_as_many_and_nothing_is_lost() -> None:
    pairs = random_pairs(SIZES, 50)
    kept, row_counts = balanced_by_length(pairs, 0)
    longer = [np.sign(len(pair.chosen) - len(pair.rejected)) for pair in kept]
    assert (longer.count(1), longer.count(-1), longer.count(0)) == (3, 3, 2)
    assert (row_counts.rows_in, row_counts.kept, row_counts.dropped) == (12, 8, {"preferred_longer": 4})
    order = [pair.id for pair in pairs]
    assert [pair.id for pair in kept] == sorted((pair.id for pair in kept), key=order.index)
    assert [pair.id for pair in balanced_by_length(pairs, 0).pairs] == [pair.id for pair in kept]
    assert any([p.id for p in balanced_by_length(pairs, seed).pairs] != [p.id for p in kept] for seed in (1, 2, 3))
    with pytest.raises(DataError, match="preferred shorter"):
        balanced_by_length(pairs[:7], 0)


def test_training_treats_length_bias_and_evaluate_shows_it(tmp_path: Path) -> None:
    """Length is all that these pairs have to say, in three of four: a plain model learns it, the treated ones less."""
    random = np.random.default_rng(0)
    rows = generate(Corpus(pairs=320, seed=3))
    texts = [["so it is " * int(random.integers(*span)) for _ in rows] for span in ((3, 8), (9, 14))]
    pairs = []
    for number, (row, short, long) in enumerate(zip(rows, *texts, strict=True)):
        chosen, rejected = (short, long) if number % 4 == 0 else (long, short)
        better, worse = (dataclasses.replace(row.chosen, text=f"{text}{number}.") for text in (chosen, rejected))
        pairs.append(dataclasses.replace(row, chosen=better, rejected=worse))
    reading.write(tmp_path / "pairs.jsonl", pairs)

    common = ["--data", tmp_path / "pairs.jsonl", "--model", "scratch(hidden=32, layers=1, vocab=400)"]
    common += ["--precision", "fp32", "--num-train-epochs", 3, "--eval-fraction", "0.4", "--learning-rate", "5e-3"]
    treatments = {
        "plain": [],
        "balanced": ["--length-balanced"],
        "regularised": ["--loss", "length_bradley_terry(alpha=0.06)"],
    }
    for name, flags in treatments.items():
        succeed("train-reward", *common, *flags, "--output", tmp_path / name)
        against = [] if name == "plain" else ["--against", tmp_path / "plain-on-pairs"]
        succeed("evaluate", "--model", tmp_path / name, "--dataset", tmp_path / "pairs.jsonl", *against)
    row_counts = {stage["stage"]: stage for stage in runs.load(tmp_path / "balanced").row_counts}[
        "choose, training part"
    ]
    assert row_counts["dropped"]["preferred_longer"] > 50
    assert row_counts["rows_in"] == row_counts["kept"] + sum(row_counts["dropped"].values())
    metrics = {name: runs.load(tmp_path / f"{name}-on-pairs").metrics for name in treatments}
    assert metrics["plain"]["length_correlation"]["value"] > 0.6, "learnt nothing: nothing tested"
    # What length explains is not in the reward: little is left of a margin that was nothing but length.
    assert abs(metrics["regularised"]["margin_mean"]["value"]) < 0.1 * metrics["plain"]["margin_mean"]["value"]
    (other,) = Diagnostics.read(tmp_path / "balanced-on-pairs").length_bias
    figure = other.figures["length_correlation"]
    assert [each._asdict() for each in figure] == [metrics[n]["length_correlation"] for n in ("plain", "balanced")]
    assert figure.after.high is not None and figure.before.low is not None
    assert figure.after.high < figure.before.low
