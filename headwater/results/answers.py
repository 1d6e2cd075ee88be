"""Answers of models to prompts, as `headwater generate` writes them: a file a model in AlpacaEval's format."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import NamedTuple

GRAM = 4
"""Words of a sequence whose repetition counts."""


class StoredAnswer(NamedTuple):
    """One answer of a model."""

    prompt: str
    text: str
    complete: bool | None
    """False for an answer that was cut off at the limit; None where it is not recorded."""
    tokens: int | None

    @property
    def repetition(self) -> float:
        """Share of the sequences of `GRAM` words that occurred before in the answer; 0 for a shorter answer."""
        words = self.text.split()
        grams = Counter(zip(*(words[start:] for start in range(GRAM)), strict=False))
        return 1 - len(grams) / grams.total() if grams else 0.0


def answers_of(run: Path) -> dict[str, list[StoredAnswer]]:
    """Return the answers of a `generate` run, by model, in the order of the files' names."""
    found: dict[str, list[StoredAnswer]] = {}
    for path in sorted(run.glob("*.json")):
        rows = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(rows, list) and rows and isinstance(rows[0], dict) and "generator" in rows[0]:
            found[str(rows[0]["generator"])] = [
                StoredAnswer(row["instruction"], row["output"], row.get("complete"), row.get("tokens")) for row in rows
            ]
    return found
