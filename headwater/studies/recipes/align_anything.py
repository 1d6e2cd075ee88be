"""A step of recipes: one part of pairs in the layout of align-anything, of a file or written from templates.

A row holds `question`, `response_1`, `response_2` and `overall_response`, the number of the better one. Which response
is the first is drawn, so that the place says nothing.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from headwater.console import say_stages
from headwater.data import reading
from headwater.data.preference import Preference, held_out, question_of
from headwater.data.reading import RowCounts
from headwater.data.topic_pairs import SHARES, TopicPairs, generate
from headwater.errors import UsageError
from headwater.files import to_json, write_text
from headwater.results import runs
from headwater.results.recording import recording

HELD_OUT = SHARES["heldout"] / sum(SHARES.values())


@dataclass(frozen=True)
class Config:
    """Options of the step `align-anything`."""

    output: Path
    """Directory of the run, which is data itself."""
    part: Literal["train", "test"]
    """Pairs to write: a sixth of the questions is held out for test."""
    data: Path | None = None
    """Preference pairs of any layout with a prompt of one turn. Default: pairs written from templates."""
    pairs: int = 480
    """Number of pairs to write, or to take from the data, in both parts."""
    seed: int = 0
    """Random seed of the pairs, the parts and the order of responses."""
    overwrite: bool = False
    """Replace an existing run at --output."""

    def __post_init__(self) -> None:
        """Refuse a number that is none. Errors: `UsageError`."""
        if self.pairs < 1:
            raise UsageError(f"pairs {self.pairs}", "expected 1 or more")


def run(config: Config) -> Path:
    """Write the pairs of the part and return the run directory."""
    runs.check_free(config.output, config.overwrite, config)
    read = None if config.data is None else reading.load(config.data)
    stages: dict[str, RowCounts] = {} if read is None else {"read": read.row_counts}
    rows, stages["part"] = _generated(config) if read is None else _of_file(config, read.preferences)
    say_stages(stages)
    with recording(config.output, "align-anything", config, read=read, stages=stages) as writer:
        rng = random.Random(config.seed)
        lines = (to_json(_row(row, rng.random() < 0.5)) for row in rows)
        write_text(writer.path / reading.PREFERENCES, "".join(f"{line}\n" for line in lines))
    return config.output


def _row(row: Preference, better_is_first: bool) -> dict[str, str | int]:
    first, second = (row.chosen, row.rejected) if better_is_first else (row.rejected, row.chosen)
    return {
        "question": question_of(row.prompt),
        "response_1": first.text,
        "response_2": second.text,
        "overall_response": 1 if better_is_first else 2,
    }


def _generated(config: Config) -> tuple[Sequence[Preference], RowCounts]:
    """Return written pairs of one part; no two parts share a subject."""
    parts = generate(TopicPairs(config.pairs, seed=config.seed))
    rows = parts.heldout if config.part == "test" else [*parts.judge, *parts.policy]
    total = sum(map(len, parts))
    return rows, RowCounts(total, len(rows), Counter(other_part=total - len(rows)))


def _of_file(config: Config, found: Sequence[Preference]) -> tuple[Sequence[Preference], RowCounts]:
    """Return the pairs of one part whose prompts are one question, which is all that the layout holds."""
    single = [row for row in found if len(row.prompt) == 1]
    taken = single[: config.pairs]
    rows = [row for row in taken if held_out(row.conversation_id, HELD_OUT, config.seed) == (config.part == "test")]
    dropped = Counter(
        several_turns=len(found) - len(single),
        beyond_the_count=len(single) - len(taken),
        other_part=len(taken) - len(rows),
    )
    return rows, RowCounts(len(found), len(rows), +dropped)
