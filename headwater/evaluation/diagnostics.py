"""Diagnostics of a model that scores pairs, beside its accuracy: where it fails, and whether it is calibrated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from headwater.data.preference import Preference
from headwater.evaluation.calibration import calibration_error, reliability
from headwater.evaluation.comparison import accuracy_by, by_who_is_longer, compare, wins
from headwater.results.evaluation import Diagnostics, ExamplePair, ExamplePairs, ExampleResponse
from headwater.statistics import Floats

EXAMPLES = 5
"""Number of example pairs of each kind."""


@dataclass(frozen=True)
class ScoredPairs:
    """Pairs with the rewards of a model."""

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


def diagnose(scored: ScoredPairs, baselines: Mapping[str, Floats], seed: int) -> Diagnostics:
    """Return the diagnostics of scored pairs; `baselines` are what other models won of the same pairs, [pairs] each."""
    conversation_ids, margins, won = scored.conversation_ids, scored.margins, scored.won
    longer = scored.lengths[:, 0] - scored.lengths[:, 1]
    sides = by_who_is_longer(won, scored.lengths, conversation_ids, seed)
    return Diagnostics(
        by_length_difference=tuple(accuracy_by(longer, won, conversation_ids, seed)),
        by_margin=tuple(accuracy_by(np.abs(margins), won, conversation_ids, seed)),
        calibration_error=calibration_error(margins, won, conversation_ids, seed),
        reliability=tuple(reliability(margins, won, conversation_ids, seed)),
        preferred_is={side: accuracy for side, accuracy in sides.items() if accuracy.n},
        baselines=tuple(compare(name, won, theirs, conversation_ids, seed) for name, theirs in baselines.items()),
        examples=_examples(scored),
    )


def _examples(scored: ScoredPairs) -> ExamplePairs:
    """Return the pairs with the most negative margins, and those with margins closest to 0."""
    by_margin = np.argsort(scored.margins, kind="stable")
    wrong = [int(row) for row in by_margin if scored.margins[row] < 0][:EXAMPLES]
    closest = np.argsort(np.abs(scored.margins), kind="stable")[:EXAMPLES]
    return ExamplePairs(
        wrong=tuple(_example(scored, row) for row in wrong), close=tuple(_example(scored, int(row)) for row in closest)
    )


def _example(scored: ScoredPairs, row: int) -> ExamplePair:
    preference = scored.preferences[row]
    chosen, rejected = (
        ExampleResponse(response.shown, float(scored.rewards[row, side]), int(scored.lengths[row, side]))
        for side, response in enumerate((preference.chosen, preference.rejected))
    )
    prompt = "\n".join(f"{message.role}: {message.shown}" for message in preference.prompt)
    return ExamplePair(preference.id, float(scored.margins[row]), prompt, chosen, rejected)
