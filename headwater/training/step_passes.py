"""The forward passes of an optimizer step, repeated in smaller ones where memory runs out.

How a batch is divided into passes changes rounding only, so a step that did not fit is computed again with passes of
half the size, and no later pass is larger. Dropout draws the same numbers again, as far as the passes are the same.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

from headwater.data.tokens import PairTokens
from headwater.forward import halving
from headwater.forward.packing import Packs, PairBatch, RowFormat, pack, tokens_of
from headwater.losses.token_weights import Weights
from headwater.training import checkpoints
from headwater.training.kl_estimate import KLEstimate


class StepPasses:
    """Divides batches into forward passes, and holds the batches of the current optimizer step."""

    def __init__(
        self, row_format: RowFormat, max_tokens: int, weights: Weights, kl_estimate: KLEstimate | None
    ) -> None:
        """Take the row format, the most tokens of a pass, and what else the rows of a batch are packed with."""
        self.row_format, self.max_tokens, self.weights = row_format, max_tokens, weights
        self._kl_estimate = kl_estimate
        self._batches: list[Packs] = []
        self._generators: checkpoints.Generators = {}

    def pack(self, pairs: Sequence[PairTokens]) -> Packs:
        """Return the passes of a batch, each of at most `max_tokens` tokens or one pair."""
        packs = pack(pairs, self.row_format, self.max_tokens, self.weights)
        packs["partners"] = self.partners(pairs)
        return packs

    def partners(self, pairs: Sequence[PairTokens]) -> list[PairBatch]:
        """Return the passes of the prompts of a batch with responses to others; none where no estimate is needed."""
        if self._kl_estimate is None:
            return []
        return self._kl_estimate.partners(pairs, self.row_format, self.max_tokens, self.weights)

    def begin(self, packs: Packs) -> Packs:
        """Add a batch to the step and return it, packed again where its passes have become too large meanwhile."""
        if any(each["num_pairs"] > 1 and each["input_ids"].numel() > self.max_tokens for each in packs["packs"]):
            packs = self.pack(packs["rows"].pairs)
        if not self._batches:
            self._generators = checkpoints.generators()
        self._batches.append(packs)
        return packs

    def end_step(self) -> None:
        """Forget the batches of a step whose gradient is complete."""
        self._batches = []

    def halved(self, processes: int, error: str) -> list[Packs]:
        """Halve the passes and return the batches of the step so far, packed anew; random generators are reset.

        Errors: `ResourceError` for passes of one pair, and for several processes.
        """
        halving.release()
        of_pair = functools.partial(tokens_of, row_format=self.row_format)
        self.max_tokens = halving.smaller(self._batches[-1], of_pair, processes, error)
        batches, self._batches = self._batches, []
        checkpoints.set_generators(self._generators)
        return [self.pack(batch["rows"].pairs) for batch in batches]
