"""Pairs of the demo in three parts that share no prompt: for the judge, for the policy, and held-out ones."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from headwater import files
from headwater.data import reading
from headwater.data.preference import Preference, held_out
from headwater.data.topic_pairs import SHARES, Parts, TopicPairs, generate
from headwater.errors import DataError
from headwater.results import runs

COMMAND = "demo-pairs"
MOST_CHARACTERS = 1200
"""Longest prompt with both responses of a pair of the user's: longer ones take a small machine too long."""
PROMPTS = "prompts.jsonl"


def write_parts(data: Path | None, output: Path, count: int, prompts: int, seed: int, config: Any) -> None:
    """Write the three parts and the prompts to answer as a run, unless it is finished. Errors: `DataError`.

    Without `data`, the pairs are written from templates (`data/topic_pairs`).
    """
    if (output / "done").is_file():
        return
    read = None if data is None else reading.load(data)
    parts, says, dropped = _generated(count, seed) if read is None else _of_user(read.preferences, count, seed)
    writer = runs.start(output, COMMAND, config, inputs=read.files if read else ())
    writer.facts["says"] = [says]
    kept = sum(map(len, parts))
    if read is not None:
        writer.count_stages({"read": read.row_counts})
    writer.count("take", kept + dropped.total(), kept, dropped)
    for name, rows in parts._asdict().items():
        reading.write(writer.path / f"{name}.jsonl", rows)
    asked = list(itertools.islice(_prompts(parts.heldout), prompts))
    lines = (
        files.to_json({"id": row.id, "category": row.source, "prompt": [m.fields for m in row.prompt]}) for row in asked
    )
    files.write_text(writer.path / PROMPTS, "".join(f"{line}\n" for line in lines))
    writer.finish()


def _generated(count: int, seed: int) -> tuple[Parts, str, Counter[str]]:
    options = TopicPairs(count, seed=seed)
    parts = generate(options)
    says = (
        f"{sum(map(len, parts)):,} pairs are written from templates about ten topics: a friendly, right answer to the "
        "point beside one that is rude, evasive, wrong or about something else. Their lengths say nothing, and "
        f"{options.flip:.0%} of the labels are wrong on purpose, so that the best possible accuracy is "
        f"{options.ceiling:g}. A model without knowledge of a subject cannot tell its wrong answers, a quarter of all."
    )
    return parts, says, Counter()


def _of_user(rows: Sequence[Preference], count: int, seed: int) -> tuple[Parts, str, Counter[str]]:
    """Take the first rows that are short enough, and divide their conversations by hash. Errors: `DataError`."""
    short = [row for row in rows if _characters(row) <= MOST_CHARACTERS]
    taken = short[:count]
    dropped = +Counter({"too_long": len(rows) - len(short), "beyond_the_count": len(short) - len(taken)})
    total = sum(SHARES.values())
    parts = Parts([], [], [])
    for row in taken:
        if held_out(row.conversation_id, SHARES["heldout"] / total, seed):
            parts.heldout.append(row)
        else:
            side = held_out(row.conversation_id, SHARES["judge"] / (SHARES["judge"] + SHARES["policy"]), seed + 1)
            (parts.judge if side else parts.policy).append(row)
    empty = next((name for name, part in parts._asdict().items() if not part), None)
    if empty:
        raise DataError(
            f"{len(taken)} pairs of at most {MOST_CHARACTERS} characters", f"leave {empty} empty", "use more"
        )
    says = f"The first {len(taken):,} pairs of at most {MOST_CHARACTERS:,} characters, divided by conversation."
    return parts, says, dropped


def _characters(row: Preference) -> int:
    return sum(len(message.content) for message in row.prompt) + len(row.chosen.text) + len(row.rejected.text)


def _prompts(rows: Sequence[Preference]) -> Iterator[Preference]:
    """Yield held-out rows with different prompts, one of every source in turn."""
    by_source: dict[str, dict[str, Preference]] = {}
    for row in rows:
        by_source.setdefault(row.source, {}).setdefault(row.conversation_id, row)
    for turn in itertools.zip_longest(*(found.values() for found in by_source.values())):
        yield from (row for row in turn if row is not None)
