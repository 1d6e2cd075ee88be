"""One forward pass a pair: what a reward model, or a policy with its reference, says of every prefix."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headwater.console import say, track
from headwater.data.preference import Preference
from headwater.data.preparation import Ledger, prepare
from headwater.data.tokens import PairTokens, View
from headwater.data.truncation import Truncation
from headwater.engine import models
from headwater.engine.attention import layout_for
from headwater.engine.responses import Voice, reward_voice, tokens_read
from headwater.engine.scoring import (
    WINDOW,
    TokenValues,
    policy_scores,
    response_values,
    reward_scores,
    token_log_probs,
    token_rewards,
    token_values,
)
from headwater.errors import ModelError
from headwater.signal.rulers import Ints, TokenRewards, implicit_reward_ruler, reward_ruler
from headwater.statistics import Floats


@dataclass(frozen=True)
class Prepared:
    """A model and the pairs it will read: everything that can be refused has been."""

    pairs: list[PairTokens]
    parameters: int
    read: Callable[[], TokenRewards]
    """Passes over the pairs."""


def head_of(model: str) -> models.Head:
    """Say whether `model` is a reward model or a policy. Errors: `ModelError`."""
    return models.head_of(model)


@dataclass(frozen=True)
class Request:
    """What is to be read, and how."""

    preferences: Sequence[Preference]
    view: View
    room: int
    """Tokens that are computed at once."""
    seed: int
    ledger: Ledger
    spans: Sequence[Truncation] = ()
    """Parts of responses, other than beginnings, that a reward model reads in passes of their own."""


def reward_model(model: str, request: Request) -> Prepared:
    """Load a reward model that will be read at every response token."""
    scorer, tokenizer = models.load(model, "reward", request.preferences, request.seed)
    pairs = prepare("read pairs", request.preferences, request.view, tokenizer, request.ledger)

    def read() -> TokenRewards:
        layout = layout_for(scorer, pairs, response_values(reward_scores))
        rewards = token_values(scorer, token_rewards, pairs, request.room, layout, "rewards")
        ruler = reward_ruler(pairs, rewards, tokenizer.all_special_ids)
        if not request.spans:
            return ruler
        return replace(ruler, spans=_span_rewards(reward_voice(scorer, layout), pairs, ruler, request))

    return Prepared(pairs, scorer.num_parameters(), read)


def _span_rewards(
    voice: Voice, pairs: Sequence[PairTokens], ruler: TokenRewards, request: Request
) -> dict[Truncation, Floats]:
    """Return reward differences [pairs] of the spans of a request, each read as a response of its own to the prompt.

    A prompt is read once for its spans, as far as `engine.responses` shares them.
    """
    bounds = [ruler.bounds(span) for span in request.spans]
    found = np.empty((len(pairs), len(bounds)))
    tokens = 0
    starts = range(0, len(pairs), WINDOW)
    for start in track(starts, "rewards of spans", len(starts)):
        window = range(start, min(start + WINDOW, len(pairs)))
        sides = [side for index in window for side in _sides(pairs[index], index, bounds)]
        rewards = np.array(voice.read(sides, request.room)).reshape(len(window), len(bounds), 2)
        same = np.array([np.array_equal(a.chosen, b.chosen) for a, b in zip(sides[::2], sides[1::2], strict=True)])
        found[start : window.stop] = np.where(same.reshape(len(window), -1), 0.0, rewards[..., 0] - rewards[..., 1])
        tokens += tokens_read(sides, request.room)
    times = tokens / sum(pair.length for pair in pairs)
    say(f"spans: {len(bounds)} other parts of every response, read in {times:.1f} × the tokens of the one pass")
    return dict(zip(request.spans, found.T, strict=True))


def _sides(pair: PairTokens, index: int, bounds: Sequence[tuple[Ints, Ints]]) -> Iterator[PairTokens]:
    """Yield every span of both responses as a response to the prompt, chosen and rejected in turn."""
    for first, end in bounds:
        for side, ids in enumerate((pair.chosen, pair.rejected)):
            span = ids[first[index, side] : end[index, side]]
            yield pair._replace(chosen=span, rejected=span, id=str(index))


@dataclass(frozen=True)
class TwoPolicies:
    """A policy and its reference, on pairs that both can read."""

    policy: Any
    reference: Any
    pairs: list[PairTokens]
    special: list[int]
    """The tokenizer's control tokens."""
    ends: list[int]
    """Those that end a response."""


def both_policies(model: str, reference: str | None, request: Request) -> TwoPolicies:
    """Load a policy and its reference (None: the one its training run names). Errors: `UsageError`, `ModelError`."""
    policy, tokenizer = models.load(model, "policy", request.preferences, request.seed)
    base = models.reference_of(model, reference, tokenizer, request.seed)
    pairs = prepare("read pairs", request.preferences, request.view, tokenizer, request.ledger)
    closing = {int(pair.chosen[-1]) for pair in pairs} & set(tokenizer.all_special_ids)
    ends = sorted({tokenizer.eos_token_id, *closing} - {None})
    if not ends:
        raise ModelError(model, "has no token that ends a response", "use a tokenizer with an EOS token")
    return TwoPolicies(policy, base, pairs, list(tokenizer.all_special_ids), ends)


def policy_and_reference(model: str, reference: str | None, beta: float, request: Request) -> Prepared:
    """Load a policy and its reference, read at every response token; see `both_policies`."""
    two = both_policies(model, reference, request)

    def read() -> TokenRewards:
        own = _log_probs(two.policy, two.pairs, request.room, "log-probabilities of the policy")
        other = _log_probs(two.reference, two.pairs, request.room, "log-probabilities of the reference")
        return implicit_reward_ruler(two.pairs, own, other, beta, two.special)

    return Prepared(two.pairs, two.policy.num_parameters(), read)


def _log_probs(model: Any, pairs: Sequence[PairTokens], room: int, what: str) -> list[TokenValues]:
    layout = layout_for(model, pairs, response_values(policy_scores))
    return token_values(model, token_log_probs, pairs, room, layout, what)
