"""How fast rows are read and checked, beside `datasets.load_dataset("json")` on the same file; and in how much memory.

    python benchmarks/reading.py                   # rows a second, alternated, and the ratio
    python benchmarks/reading.py --like FILE       # the same, on the rows of a file (HH, or a `prompt` text), repeated
    python benchmarks/reading.py --memory          # 1,000,000 rows read, checked and written; peak resident memory

`datasets` parses into Arrow columns in a file, and checks no row; headwater parses, finds bad rows, ties and
duplicates, and accounts for all (`Intake.finish`). Neither makes Python objects of the rows; a second comparison has
both do that too. The cache of `datasets` is empty at every turn. Wall and processor time are printed, because a machine
is seldom at rest. Rows are made from the words of a seeded generator, so that the file is the same on every machine;
those of a FILE are numbered, so that none is a duplicate.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
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


def make_like(path: Path, model: Path, rows: int) -> None:
    """Write `rows` rows: those of `model` again and again, each time with another number in their first question."""
    found = [row.fields for row in reading.read_rows(model)]
    with path.open("w", encoding="utf-8") as handle:
        for number, fields in enumerate(itertools.islice(itertools.cycle(found), rows)):
            handle.write(json.dumps(fields | _numbered(fields, number // len(found)), ensure_ascii=False) + "\n")


def _numbered(fields: dict[str, Any], number: int) -> dict[str, str]:
    if "prompt" in fields:
        return {"prompt": f"{number} {fields['prompt']}"}
    return {side: fields[side].replace("Human: ", f"Human: {number} ", 1) for side in ("chosen", "rejected")}


class Spent(NamedTuple):
    """Seconds by the clock, and of all processors."""

    wall: float
    processor: float


def timed(work: Callable[[], int], rows: int) -> Spent:
    """Time some reading of so many rows."""
    wall, processor = time.perf_counter(), time.process_time()
    found = work()
    spent = Spent(time.perf_counter() - wall, time.process_time() - processor)
    assert found == rows
    return spent


def checked(path: Path, records: bool) -> int:
    """Read with headwater and return the number of rows."""
    row_reader = reading.stream(path)
    if records:
        assert sum(1 for _ in row_reader) == row_reader.row_counts.kept
    row_counts = row_reader.finish()
    assert row_counts.kept + row_counts.dropped.total() == row_counts.rows_in
    assert row_counts.kept > 0.98 * row_counts.rows_in
    return row_counts.rows_in


def loaded(path: Path, records: bool) -> int:
    """Read with `datasets`, with an empty cache, and return the number of rows."""
    import datasets

    datasets.disable_progress_bars()
    cache = tempfile.mkdtemp(dir=path.parent)
    try:
        found = datasets.load_dataset("json", data_files=str(path), split="train", cache_dir=cache)
        return sum(1 for _ in found) if records else found.num_rows
    finally:
        shutil.rmtree(cache)


def compare(path: Path, what: str, rows: int, turns: int) -> None:
    """Time both in turn, several times, and print the ratios of their speeds."""
    print(f"{rows:,} rows, {path.stat().st_size / 1e6:.0f} MB, {what}, {turns} turns, {os.cpu_count()} CPUs")
    _compare(path, rows, turns, False, "parsed, checked, accounted for")
    _compare(path, rows, turns, True, "and every row a Python object")


def _compare(path: Path, rows: int, turns: int, records: bool, says: str) -> None:
    readers = (checked, loaded)
    for read in readers:  # imports, and the file into the page cache
        read(path, records)
    spent = [[timed(functools.partial(read, path, records), rows) for read in readers] for _ in range(turns)]
    for unit in ("wall", "processor"):
        ours, theirs = ([getattr(found, unit) / rows * 1e6 for found in column] for column in zip(*spent, strict=True))
        ratios = sorted(their / our for our, their in zip(ours, theirs, strict=True))
        print(
            f"  {says}, {unit} time: headwater {statistics.median(ours):.1f} µs a row, datasets "
            f"{statistics.median(theirs):.1f}; ratio min {ratios[0]:.2f} median {statistics.median(ratios):.2f} "
            f"max {ratios[-1]:.2f}"
        )


def memory(folder: Path, rows: int, characters: int) -> None:
    """Read, check and write a large file and print the peak resident memory of this process."""
    path = folder / "pairs.jsonl"
    make(path, rows, characters)
    began = time.perf_counter()
    row_reader = reading.stream(path)
    reading.write(folder / "written.jsonl", row_reader)
    seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    row_counts = row_reader.row_counts
    print(
        f"{row_counts.rows_in:,} rows, {path.stat().st_size / 1e6:.0f} MB: "
        f"{row_counts.kept:,} read, checked and written"
    )
    print(f"  peak {peak / 2**20:.0f} MiB resident, {seconds:.0f} s ({row_counts.rows_in / seconds:,.0f} rows/s)")
    assert row_counts.kept == rows
    assert peak < 2**30, "more than 1 GB"


def main() -> None:
    """Run the comparison, or the memory check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--like", type=Path)
    parser.add_argument("--rows", type=int)
    parser.add_argument("--characters", type=int, default=600)
    parser.add_argument("--turns", type=int, default=7)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.memory:
            memory(Path(folder), given.rows or 1_000_000, given.characters)
        else:
            path, rows = Path(folder, "pairs.jsonl"), given.rows or 100_000
            if given.like:
                make_like(path, given.like, rows)
            else:
                make(path, rows, given.characters)
            what = f"like {given.like.name}" if given.like else f"responses of {given.characters} characters"
            compare(path, what, rows, given.turns)


if __name__ == "__main__":
    main()
