"""How often the interval of the signal depth covers the depth of the best scorer, which the planted depth decides.

    python benchmarks/depth_coverage.py                     # 100 corpora at each of six depths, 600 pairs each
    python benchmarks/depth_coverage.py --pairs 2000 --repetitions 20

Every repetition draws a corpus of its own and measures it as `headwater signal` does without a model: with the
words scorer, at tenths of the responses. The truth is what the best scorer would show on the same tenths
(`corpus.best_depth`, exact). Up to 0.5 that is the planted depth. From 0.6 on it is the tenth before, which already
holds two words of the last deciding phrase in most wordings; at 0.6 by a hair (the best scorer has 0.915 there, and
0.905 is asked), so that scorers below the best may well need the next tenth.
"""

from __future__ import annotations

import argparse
import time
from fractions import Fraction

import numpy as np

from headwater.data.corpus import Corpus, best_depth, generate
from headwater.signals.curves import Grid, measure
from headwater.signals.depth import depth_metrics
from headwater.signals.words import Words
from headwater.statistics import Estimate

RATIOS = tuple(Fraction(n, 10) for n in range(1, 11))
DEPTHS = (0.3, 0.4, 0.5, 0.6, 0.7, 0.8)
SHARE = 0.9


def depth_of(pairs: int, planted: float, seed: int) -> Estimate:
    """Measure one corpus."""
    preferences = generate(Corpus(pairs=pairs, planted_depth=planted, seed=seed))
    grid = Grid(RATIOS, cuts=("own",), parts=(), shuffles=0, seed=seed)
    curves = measure(Words.read(preferences, seed), [p.conversation_id for p in preferences], {}, grid)
    return depth_metrics(curves, RATIOS)["depth_90"]


def main() -> None:
    """Print the count for every planted depth."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=600)
    parser.add_argument("--repetitions", type=int, default=100)
    options = parser.parse_args()
    for planted in DEPTHS:
        began = time.perf_counter()
        found = [depth_of(options.pairs, planted, seed) for seed in range(options.repetitions)]
        truth = float(best_depth(Corpus(planted_depth=planted), RATIOS, SHARE))
        covered = sum(f.low <= truth <= f.high for f in found if f.low is not None and f.high is not None)
        middle = np.median([f.value for f in found])
        widths = [f.high - f.low for f in found if f.low is not None and f.high is not None]
        print(
            f"planted {planted}, best scorer's D90 {truth:g}: covered {covered} of {len(found)} times; "
            f"median D90 {middle:.2f}, median width {np.median(widths):.2f}; {options.pairs} pairs, "
            f"{time.perf_counter() - began:.0f} s"
        )


if __name__ == "__main__":
    main()
