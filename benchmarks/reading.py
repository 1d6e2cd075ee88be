"""Measures reading: seconds, rows a second and peak memory for a million rows, and `datasets` on the same file.

    python benchmarks/reading.py                       # 1,000,000 rows of seeded words
    python benchmarks/reading.py --like FILE [FILE …]  # the same number of rows made from real ones (HH, or a `prompt`)
    python benchmarks/reading.py --compare             # alternated with `datasets.load_dataset("json")`

headwater parses every row, checks it, finds ties and duplicates, and makes a record of it; `datasets` parses into Arrow
columns and checks nothing, so that with `--compare` its rows are made Python objects too. Wall and processor time are
printed, because a machine is seldom idle. Rows made from real ones get a number in their first question, so that none
is a duplicate. The cache of `datasets` is empty at every turn.
"""

from __future__ import annotations

import argparse
import itertools
import os
import random
import resource
import shutil
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import orjson

os.environ.setdefault("HF_HUB_OFFLINE", "1")

from headwater.data import reading

WORDS = [f"{a}{b}{c}" for a in "bdfklmnprst" for b in "aeiou" for c in ("n", "r", "s", "ta", "lo")]


def make(path: Path, rows: int, characters: int) -> None:
    """Write `rows` pairs whose responses have about `characters` characters."""
    draw = random.Random(0)
    count = characters // 4
    with path.open("wb") as handle:
        for number in range(rows):
            prompt, chosen, rejected = (" ".join(draw.choices(WORDS, k=size)) for size in (20, count, count))
            row = {"prompt": f"{number}: {prompt}?", "chosen": chosen, "rejected": rejected}
            handle.write(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE))


def make_like(path: Path, models: list[Path], rows: int) -> None:
    """Write `rows` rows: those of the files again and again, each time with another number in their first question."""
    found = [row.fields for model in models for row in reading.read_rows(model)]
    with path.open("wb") as handle:
        for number, fields in enumerate(itertools.islice(itertools.cycle(found), rows)):
            numbered = fields | _numbered(fields, number // len(found))
            handle.write(orjson.dumps(numbered, option=orjson.OPT_APPEND_NEWLINE))


def _numbered(fields: dict[str, Any], number: int) -> dict[str, str]:
    if "prompt" in fields:
        return {"prompt": f"{number} {fields['prompt']}"}
    return {side: fields[side].replace("Human: ", f"Human: {number} ", 1) for side in ("chosen", "rejected")}


class Spent(NamedTuple):
    """Seconds of the clock, and of this process on all processors."""

    wall: float
    processor: float


def timed(read: Callable[[Path], int], path: Path) -> tuple[int, Spent]:
    """Return what `read` returns, and the time that it takes."""
    wall, processor = time.perf_counter(), time.process_time()
    found = read(path)
    return found, Spent(time.perf_counter() - wall, time.process_time() - processor)


def with_headwater(path: Path) -> int:
    """Read with headwater and return the number of rows."""
    row_reader = reading.stream(path)
    records = sum(1 for _ in row_reader)
    counts = row_reader.row_counts
    assert counts.kept == records
    assert counts.kept + counts.quarantined + counts.dropped.total() == counts.rows_in
    assert counts.kept > 0.98 * counts.rows_in
    return counts.rows_in


def with_datasets(path: Path) -> int:
    """Read with `datasets`, with an empty cache, and return the number of rows."""
    import datasets

    datasets.disable_progress_bars()
    cache = tempfile.mkdtemp(dir=path.parent)
    try:
        return sum(1 for _ in datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=cache))
    finally:
        shutil.rmtree(cache)


def measure(path: Path) -> None:
    """Print rows, seconds, rows a second, and the peak resident memory of this process."""
    rows, spent = timed(with_headwater, path)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    print(
        f"{rows:,} rows, {path.stat().st_size / 1e6:,.0f} MB: {spent.wall:.1f} s ({rows / spent.wall:,.0f} rows/s), "
        f"{spent.processor:.1f} s of processor time, peak {peak:.0f} MiB resident"
    )


def compare(path: Path, turns: int) -> None:
    """Time both readers in turn, several times, and print the ratio of their speeds."""
    readers = (with_headwater, with_datasets)
    for read in readers:  # imports, and the file into the page cache
        read(path)
    pairs = [[timed(read, path) for read in readers] for _ in range(turns)]
    for unit in Spent._fields:
        per_row = [[getattr(spent, unit) / rows * 1e6 for rows, spent in pair] for pair in pairs]
        ratios = sorted(theirs / ours for ours, theirs in per_row)
        ours, theirs = (statistics.median(column) for column in zip(*per_row, strict=True))
        print(
            f"{unit} time: headwater {ours:.1f} µs a row, datasets {theirs:.1f}; "
            f"ratio min {ratios[0]:.2f} median {statistics.median(ratios):.2f} max {ratios[-1]:.2f} (n = {turns})"
        )


def main() -> None:
    """Make the file and run the measurement."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--like", type=Path, nargs="+", help="files whose rows are repeated with another number")
    parser.add_argument("--compare", action="store_true", help="alternate with `datasets` on the same file")
    parser.add_argument("--rows", type=int, help="default: 1,000,000; with --compare 100,000")
    parser.add_argument("--characters", type=int, default=600, help="of a made response")
    parser.add_argument("--turns", type=int, default=5)
    given = parser.parse_args()
    rows = given.rows or (100_000 if given.compare else 1_000_000)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "pairs.jsonl")
        if given.like:
            make_like(path, given.like, rows)
        else:
            make(path, rows, given.characters)
        if given.compare:
            compare(path, given.turns)
        else:
            measure(path)


if __name__ == "__main__":
    main()
