"""What one should know of a model that rewards responses, beside its accuracy: where it fails, and whether it knows.

The result is plain data, kept in a run's `scrutiny.json`; the report draws from it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from headwater.data.preference import Preference
from headwater.evaluation.calibration import calibration_error, reliability
from headwater.evaluation.comparison import Group, accuracy_by, by_who_is_longer, compare, wins
from headwater.statistics import Floats

FILE = "scrutiny.json"
EXAMPLES = 5
"""Rows that are shown of a kind."""


@dataclass(frozen=True)
class Judged:
    """Pairs and what a model made of them."""

    preferences: Sequence[Preference]
    rewards: Floats
    """[pairs, 2] of chosen and rejected."""
    lengths: Floats
    """[pairs, 2] in tokens."""

    @property
    def conversation_ids(self) -> list[str]:
        """The clusters of the bootstrap, [pairs]."""
        return [preference.conversation_id for preference in self.preferences]

    @property
    def margins(self) -> Floats:
        """Reward of the chosen response less that of the rejected one, [pairs]."""
        margins: Floats = self.rewards[:, 0] - self.rewards[:, 1]
        return margins

    @property
    def won(self) -> Floats:
        """1 where the chosen response has the higher reward, ½ for a tie, [pairs]."""
        return wins(*self.rewards.T)


def diagnose(judged: Judged, baselines: Mapping[str, Floats], seed: int) -> dict[str, Any]:
    """Return what `scrutiny.json` holds; `baselines` are what other models won of the same pairs, [pairs] each."""
    conversation_ids, margins, won = judged.conversation_ids, judged.margins, judged.won
    longer = judged.lengths[:, 0] - judged.lengths[:, 1]
    sides = by_who_is_longer(won, judged.lengths, conversation_ids, seed)
    return {
        "preferred_is": {side: accuracy._asdict() for side, accuracy in sides.items() if accuracy.n},
        "by_length_difference": _plain(accuracy_by(longer, won, conversation_ids, seed)),
        "by_margin": _plain(accuracy_by(np.abs(margins), won, conversation_ids, seed)),
        "calibration_error": calibration_error(margins, won, conversation_ids, seed)._asdict(),
        "reliability": [
            {"confidence": each.confidence, **each.accuracy._asdict()}
            for each in reliability(margins, won, conversation_ids, seed)
        ],
        "rivals": [_baseline(name, won, theirs, conversation_ids, seed) for name, theirs in baselines.items()],
        "examples": _examples(judged),
    }


def _plain(groups: Sequence[Group]) -> list[dict[str, Any]]:
    return [{"from": each.low, "to": each.high, **each.accuracy._asdict()} for each in groups]


def _baseline(name: str, won: Floats, theirs: Floats, conversation_ids: Sequence[str], seed: int) -> dict[str, Any]:
    found = compare(won, theirs, conversation_ids, seed)
    return (
        {"name": name, "accuracy": float(theirs.mean())} | found._asdict() | {"difference": found.difference._asdict()}
    )


def _examples(judged: Judged) -> dict[str, list[dict[str, Any]]]:
    """Return the rows that the model is most wrong about, and those it cannot tell apart, with their texts."""
    by_margin = np.argsort(judged.margins, kind="stable")
    wrong = [int(row) for row in by_margin if judged.margins[row] < 0][:EXAMPLES]
    closest = np.argsort(np.abs(judged.margins), kind="stable")[:EXAMPLES]
    return {name: [_example(judged, int(row)) for row in rows] for name, rows in (("wrong", wrong), ("close", closest))}


def _example(judged: Judged, row: int) -> dict[str, Any]:
    preference = judged.preferences[row]
    texts = {"chosen": preference.chosen.text, "rejected": preference.rejected.text}
    sides = {
        side: {"text": text, "reward": float(judged.rewards[row, place]), "tokens": int(judged.lengths[row, place])}
        for place, (side, text) in enumerate(texts.items())
    }
    prompt = "\n".join(f"{message.role}: {message.content}" for message in preference.prompt)
    return {"id": preference.id, "margin": float(judged.margins[row]), "prompt": prompt, **sides}
