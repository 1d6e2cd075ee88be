"""Scores of parts of responses: how far the chosen response is ahead when only a part of each is read.

Curves, controls and depth are computed from any `PrefixScorer`: a reward model, a policy with its reference
(`TokenRewards`, from one forward pass a pair), or a bag of words (`words.Words`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from headwater.data.tokens import PairTokens
from headwater.data.truncation import Truncation
from headwater.data.turns import Closing, closing_of
from headwater.statistics import Floats

Ints = NDArray[np.int64]


class PrefixScorer(Protocol):
    """Scores the same part of both responses of every pair, and returns margins of the chosen one."""

    @property
    def unit(self) -> str:
        """Unit of lengths: tokens or words."""
        ...

    @property
    def lengths(self) -> Ints:
        """Lengths of chosen and rejected response, [pairs, 2], as a cut counts them."""
        ...

    def reads(self, truncation: Truncation) -> bool:
        """Return whether this part of a response can be scored."""
        ...

    def margins(self, truncation: Truncation, labels: Floats) -> Floats:
        """Return the margin in favour of the labelled response of every pair, [pairs].

        `labels` [pairs] are 1, or −1 where chosen and rejected change places (shuffled labels); a scorer that is
        fitted is fitted to these.
        """
        ...


def kept_of(truncation: Truncation, lengths: Ints) -> Ints:
    """Return how many units of responses with `lengths` [pairs, 2] are kept: `Truncation.counts` for all pairs."""
    if truncation.cut == "own":
        base = lengths
    else:
        shorter_or_longer = lengths.min(axis=1) if truncation.cut == "equal" else lengths.max(axis=1)
        base = np.broadcast_to(shorter_or_longer[:, None], lengths.shape)
    amount = truncation.keep.amount
    if truncation.keep.unit == "ratio":
        wanted = base * amount.numerator // amount.denominator  # whole numbers: 0.1 × 30 is 3
    else:
        wanted = np.minimum(base, int(amount))
    return np.minimum(np.maximum(wanted, 1), lengths)


def first_of(truncation: Truncation, lengths: Ints, kept: Ints) -> Ints:
    """Return the index of the first unit that is kept, [pairs, 2].

    A random span is placed by one uniform draw a response, so that those of a response are nested like its prefixes.
    """
    max_tokens = lengths - kept
    if truncation.part == "random-span":
        draw = np.random.default_rng(truncation.seed).random(lengths.shape)
        return np.asarray(draw * (max_tokens + 1), dtype=np.int64)
    return {"prefix": np.zeros_like(max_tokens), "suffix": max_tokens, "middle": max_tokens // 2}[truncation.part]


@dataclass(frozen=True)
class TokenRewards:
    """The reward of every prefix of every response, from one forward pass a pair.

    A token of a causal model does not attend to what follows it, so that the output at token k is that of the response
    cut there. Where rewards are sums over tokens (β Σ log π/π_ref), the reward of any span is the difference of two
    prefixes, in its own context. A reward model scores a span that is no prefix in a forward pass of its own, in which
    the span stands right behind the prompt (`spans`).
    """

    rewards: Floats  # [all tokens] of the prefix that ends at a token; response after response
    starts: Ints  # [pairs, 2] where a response begins in `rewards`
    whole: Ints  # [pairs, 2] tokens of the response, with what closes the turn
    lengths: Ints  # [pairs, 2] tokens of its text alone, which a cut counts
    common: Ints  # [pairs] tokens with which both responses begin: up to there, they are the same prefix
    sums: bool
    """Whether rewards are sums over tokens."""
    spans: Mapping[Truncation, Floats] = field(default_factory=dict)
    """Reward differences [pairs] of the parts that were scored in forward passes of their own."""

    unit = "tokens"

    def reads(self, truncation: Truncation) -> bool:
        """Return whether this part was scored; prefixes always are."""
        return self.sums or truncation.part == "prefix" or truncation in self.spans

    def bounds(self, truncation: Truncation) -> tuple[Ints, Ints]:
        """Return the first token that is kept and the first behind it, [pairs, 2] each."""
        kept = kept_of(truncation, self.lengths)
        first = first_of(truncation, self.lengths, kept)
        # A part that reaches the end of the response includes the tokens that close its turn.
        return first, np.where(first + kept == self.lengths, self.whole, first + kept)

    def margins(self, truncation: Truncation, labels: Floats) -> Floats:
        """Return reward differences [pairs] of the kept parts, 0 where both are the same tokens."""
        if truncation in self.spans:
            return labels * self.spans[truncation]
        first, end = self.bounds(truncation)
        rewards = self._until(end) - (self._until(first) if self.sums else 0.0)
        same = (first == 0).all(axis=1) & (end[:, 0] == end[:, 1]) & (end[:, 0] <= self.common)
        return np.where(same, 0.0, labels * (rewards[:, 0] - rewards[:, 1]))

    def _until(self, end: Ints) -> Floats:
        """Return the rewards of the prefixes of `end` [pairs, 2] tokens; that of no token is 0."""
        return np.where(end > 0, self.rewards[self.starts + np.maximum(end, 1) - 1], 0.0)


class TokenPair(Protocol):
    """Values of the tokens of either response, such as `forward.scores.TokenValues`."""

    @property
    def chosen(self) -> NDArray[np.float32]: ...  # noqa: D102
    @property
    def rejected(self) -> NDArray[np.float32]: ...  # noqa: D102


def reward_prefix_scorer(pairs: Sequence[PairTokens], rewards: Sequence[TokenPair], closing: Closing) -> TokenRewards:
    """Return the prefix rewards of a reward model, one a response token; `closing` is what closes a turn."""
    values = [value.astype(np.float64) for pair in rewards for value in (pair.chosen, pair.rejected)]
    return _prefix_scorer(pairs, values, closing, sums=False)


def implicit_reward_prefix_scorer(
    pairs: Sequence[PairTokens],
    policy: Sequence[TokenPair],
    reference: Sequence[TokenPair],
    beta: float,
    closing: Closing,
) -> TokenRewards:
    """Return β Σ (log π − log π_ref) up to every token (arXiv:2505.17122, section 3.1; arXiv:2305.18290, eq. 5)."""
    columns = [
        beta * np.cumsum(own.astype(np.float64) - other)
        for p, r in zip(policy, reference, strict=True)
        for own, other in ((p.chosen, r.chosen), (p.rejected, r.rejected))
    ]
    return _prefix_scorer(pairs, columns, closing, sums=True)


def _prefix_scorer(pairs: Sequence[PairTokens], values: Sequence[Floats], closing: Closing, sums: bool) -> TokenRewards:
    responses = [(pair.chosen, pair.rejected) for pair in pairs]
    whole = np.array([pair.scored for pair in pairs], dtype=np.int64)
    closed = np.array([[closing_of(ids, closing) for ids in pair] for pair in responses], dtype=np.int64)
    starts = np.concatenate([[0], np.cumsum(whole.ravel())[:-1]]).reshape(-1, 2)
    common = np.array([_common(pair) for pair in pairs], dtype=np.int64)
    # A response of nothing but its closing token counts as text: a cut keeps at least one token.
    return TokenRewards(np.concatenate(values), starts, whole, np.maximum(whole - closed, 1), common, sums)


def _common(pair: PairTokens) -> int:
    """Count the scored tokens with which both responses begin."""
    shorter = min(len(pair.chosen), len(pair.rejected))
    differs = np.flatnonzero(pair.chosen[:shorter] != pair.rejected[:shorter])
    common = int(differs[0]) if len(differs) else shorter
    return min(common if mask is None else int(mask[:common].sum()) for mask in pair.masks)
