"""KTO's estimate of KL(π ‖ π_ref), from responses to other prompts (arXiv:2402.01306, section 4.1).

Partners are drawn when a batch is made, so rows may be shuffled: the rows are put in a random order with those of one
prompt together, and every prompt gets the responses a fixed distance further on, far enough to belong to another
prompt. The estimate is that of a whole batch, however many passes it takes, and reaches the loss as the column
`kl_estimate`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import xxhash

from headwater.data.tokens import PairTokens
from headwater.errors import DataError
from headwater.forward.packing import PairBatch, RowFormat, pack
from headwater.forward.scores import policy_scores
from headwater.losses.token_weights import Weights


@dataclass(frozen=True, slots=True)
class KLEstimate:
    """Estimates the KL divergence of a policy from a frozen reference, over rows of at most `max_length` tokens."""

    reference: torch.nn.Module
    max_length: int

    def partners(
        self, pairs: Sequence[PairTokens], row_format: RowFormat, max_tokens: int, weights: Weights
    ) -> list[PairBatch]:
        """Return the passes of the prompts of a batch with responses to other prompts, weighted like their own."""
        return pack(deranged(pairs, self.max_length), row_format, max_tokens, weights)["packs"]

    def __call__(self, policy: torch.nn.Module, passes: Sequence[PairBatch]) -> torch.Tensor:
        """Return `estimate_kl` of the policy from the reference over the partners of a batch."""
        return estimate_kl(policy, self.reference, passes)


def deranged(pairs: Sequence[PairTokens], max_length: int) -> list[PairTokens]:
    """Return rows in which every prompt has the responses of another row; the responses of each row are used once.

    They answer another prompt wherever no prompt has more than half of the rows; beyond, some answer the same one. The
    draw depends on the rows alone. Responses are cut where they would exceed `max_length` tokens with their new prompt.
    Errors: `DataError` for fewer than two rows.
    """
    if len(pairs) < 2:
        raise DataError(
            "kto",
            f"a batch of {len(pairs)} row",
            "expected 2 or more: its KL estimate needs responses to other prompts",
        )
    digest = xxhash.xxh3_64_intdigest("\n".join(pair.key for pair in pairs).encode())
    drawn = np.random.default_rng(digest).permutation(len(pairs)).tolist()
    groups: dict[bytes, list[int]] = {}
    for index in drawn:
        groups.setdefault(pairs[index].prompt.tobytes(), []).append(index)
    order = [index for group in groups.values() for index in group]
    # Turned by the largest group, no row meets its own group, unless that is more than half of them.
    shift = min(max(map(len, groups.values())), len(order) // 2)
    partner = dict(zip(order, np.roll(order, shift).tolist(), strict=True))
    return [_with_responses(pair, pairs[partner[index]], max_length) for index, pair in enumerate(pairs)]


def _with_responses(pair: PairTokens, other: PairTokens, max_length: int) -> PairTokens:
    max_tokens = max(1, max_length - len(pair.prompt))
    chosen_mask, rejected_mask = (None if mask is None else mask[:max_tokens] for mask in other.masks)
    return pair._replace(
        chosen=other.chosen[:max_tokens],
        rejected=other.rejected[:max_tokens],
        chosen_reference=None,
        rejected_reference=None,
        chosen_mask=chosen_mask,
        rejected_mask=rejected_mask,
    )


def add_estimate(batch: PairBatch, estimate: torch.Tensor | None) -> None:
    """Add an estimate, [], to the columns of a batch, the same for every pair; None adds nothing."""
    if estimate is not None:
        batch["columns"]["kl_estimate"] = estimate.expand(batch["num_pairs"])


def longest_partner(pairs: Sequence[PairTokens], max_length: int) -> int:
    """Return the most tokens that a prompt can have with the response to another one."""
    response = max((max(len(pair.chosen), len(pair.rejected)) for pair in pairs), default=0)
    prompt = max((len(pair.prompt) for pair in pairs), default=0)
    return max(prompt + 1, min(max_length, prompt + response))


def estimate_kl(policy: torch.nn.Module, reference: torch.nn.Module, passes: Sequence[PairBatch]) -> torch.Tensor:
    """Return the mean of log π − log π_ref over the responses of deranged rows, in nats: [], without a gradient.

    It may be negative, as an estimate of something that is not; the loss counts that as 0. Several processes average
    theirs.
    """
    with torch.no_grad():
        sides = [side for batch in passes for side in _changes(policy, reference, batch)]
    changes, tokens = (torch.cat(columns) for columns in zip(*sides, strict=True))
    return changes.sum() / (tokens > 0).sum()


def _changes(
    policy: torch.nn.Module, reference: torch.nn.Module, batch: PairBatch
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Yield log π − log π_ref of the responses of either side and their numbers of tokens, each [pairs]."""
    own, other = policy_scores(policy, batch), policy_scores(reference, batch)
    for mine, theirs in ((own.chosen, other.chosen), (own.rejected, other.rejected)):
        yield mine.value - theirs.value, mine.tokens
