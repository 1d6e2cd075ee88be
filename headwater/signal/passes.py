"""One forward pass a pair: what a reward model, or a policy with its reference, says of every prefix."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from headwater.console import say, track
from headwater.data.preference import Preference
from headwater.data.preparation import PrepLog, prepare
from headwater.data.sampling import Sampling
from headwater.data.tokenizers import Tokenizer
from headwater.data.tokens import EncodeOptions, PairTokens
from headwater.data.truncation import Truncation
from headwater.data.turns import turn_end
from headwater.errors import DataError
from headwater.forward.finite import check_scores
from headwater.forward.format_check import row_format_for
from headwater.forward.scores import WINDOW, TokenFunction, TokenValues, token_log_probs, token_rewards, token_values
from headwater.models import loading, positions
from headwater.models.heads import Head
from headwater.models.turn_ends import end_tokens
from headwater.rewards import sampling
from headwater.rewards.responses import TokenScorer, reward_token_scorer, tokens_read
from headwater.rewards.reward_models import refuse_head as refuse_head
from headwater.signal.prefix_scorers import Ints, TokenRewards, implicit_reward_prefix_scorer, reward_prefix_scorer
from headwater.statistics import Floats


@dataclass(frozen=True)
class Prepared:
    """A model and the pairs it will read: everything that can be refused has been."""

    pairs: list[PairTokens]
    parameters: int
    read: Callable[[], TokenRewards]
    """Passes over the pairs."""


def head_of(model: str) -> Head:
    """Say whether `model` is a reward model or a policy. Errors: `ModelError`."""
    return loading.head_of(model)


@dataclass(frozen=True)
class Request:
    """What is to be read, and how."""

    preferences: Sequence[Preference]
    encode_options: EncodeOptions
    max_tokens: int
    """Tokens that are computed at once."""
    seed: int
    prep_log: PrepLog
    spans: Sequence[Truncation] = ()
    """Parts of responses, other than beginnings, that a reward model reads in passes of their own."""
    reward_head: int | None = None
    """Which output of a reward model with several is the reward."""


@dataclass(frozen=True)
class PrefixReader:
    """A model that has been loaded, and what it says of every prefix of pairs, whenever it is asked."""

    tokenizer: Tokenizer
    parameters: int
    read: Callable[[Sequence[PairTokens]], TokenRewards]
    models: tuple[Any, ...]

    def fitted(self, encode_options: EncodeOptions) -> EncodeOptions:
        """Return a view that the models can read. Errors: `UsageError` for more tokens than they have positions."""
        return positions.fitted(encode_options, *self.models)


class _Values:
    """What a model says of every response token."""

    def __init__(self, model: Any, read: TokenFunction, max_tokens: int, what: str) -> None:
        self._model, self._read, self._max_tokens, self._what = model, read, max_tokens, what

    def __call__(self, pairs: Sequence[PairTokens]) -> list[TokenValues]:
        row_format = row_format_for(self._model, pairs, self._max_tokens)
        return token_values(self._model, self._read, pairs, self._max_tokens, row_format, self._what)


def reward_reader(model: str, max_tokens: int, seed: int, reward_head: int | None = None) -> PrefixReader:
    """Load a reward model that computes `max_tokens` tokens at once. Errors: `UsageError`, `ModelError`."""
    scorer, tokenizer = loading.load(model, "reward", (), seed, reward_head=reward_head)
    values = _Values(scorer, token_rewards, max_tokens, "rewards")

    def read(pairs: Sequence[PairTokens]) -> TokenRewards:
        return reward_prefix_scorer(pairs, values(pairs), turn_end(tokenizer).ids)

    return PrefixReader(tokenizer, scorer.num_parameters(), read, (scorer,))


def reward_model(model: str, request: Request) -> Prepared:
    """Load a reward model that will be read at every response token."""
    loading.check_conditions(model, (preference.condition for preference in request.preferences))
    scorer, tokenizer = loading.load(
        model, "reward", request.preferences, request.seed, reward_head=request.reward_head
    )
    encode_options = positions.fitted(request.encode_options, scorer)
    pairs = prepare("read pairs", request.preferences, encode_options, tokenizer, request.prep_log)
    values = _Values(scorer, token_rewards, request.max_tokens, "rewards")

    def read() -> TokenRewards:
        prefix_scorer = reward_prefix_scorer(pairs, values(pairs), turn_end(tokenizer).ids)
        if not request.spans:
            return prefix_scorer
        return replace(prefix_scorer, spans=_span_rewards(reward_token_scorer(scorer), pairs, prefix_scorer, request))

    return Prepared(pairs, scorer.num_parameters(), read)


def _span_rewards(
    token_scorer: TokenScorer, pairs: Sequence[PairTokens], prefix_scorer: TokenRewards, request: Request
) -> dict[Truncation, Floats]:
    """Return reward differences [pairs] of the spans of a request, each read as a response of its own to the prompt.

    A prompt is read once for its spans, as far as `engine.responses` shares them.
    """
    bounds = [prefix_scorer.bounds(span) for span in request.spans]
    found = np.empty((len(pairs), len(bounds)))
    tokens = 0
    starts = range(0, len(pairs), WINDOW)
    for start in track(starts, "rewards of spans", len(starts)):
        window = range(start, min(start + WINDOW, len(pairs)))
        sides = [side for index in window for side in _sides(pairs[index], index, bounds)]
        rewards = np.array(token_scorer.read(sides, request.max_tokens)).reshape(len(window), len(bounds), 2)
        check_scores(rewards, [pairs[index].id for index in window], "rewards of spans")
        same = np.array([np.array_equal(a.chosen, b.chosen) for a, b in zip(sides[::2], sides[1::2], strict=True)])
        found[start : window.stop] = np.where(same.reshape(len(window), -1), 0.0, rewards[..., 0] - rewards[..., 1])
        tokens += tokens_read(sides, request.max_tokens)
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
    closing: tuple[int, ...]
    """The tokens with which a complete response closes its turn."""
    ends: list[int]
    """The tokens that end a response of either model."""


def both_policies(model: str, reference: str | None, request: Request) -> TwoPolicies:
    """Load a policy and its reference (None: the one its training run names). Errors: `UsageError`, `ModelError`."""
    policy, base, tokenizer = _both(model, reference, request.seed, request.preferences)
    encode_options = positions.fitted(request.encode_options, policy, base)
    pairs = prepare("read pairs", request.preferences, encode_options, tokenizer, request.prep_log)
    ends = sorted({*end_tokens(policy, tokenizer), *end_tokens(base, tokenizer)})
    return TwoPolicies(policy, base, pairs, turn_end(tokenizer).ids, ends)


def with_max_tokens(two: TwoPolicies, pairs: Sequence[PairTokens], tokens: int) -> list[PairTokens]:
    """Return the pairs behind whose prompts both policies can say `tokens` tokens.

    Errors: `ModelError` where there is room for no prompt, `DataError` where there is for none of these.
    """
    wanted = Sampling(max_new_tokens=tokens)
    longest = min(sampling.longest_prompt(model, wanted) for model in (two.policy, two.reference))
    found = [pair for pair in pairs if len(pair.prompt) <= longest]
    if not found:
        shortest = min(len(pair.prompt) for pair in pairs)
        problem = f"{longest} tokens are left for prompts, the shortest has {shortest}"
        raise DataError(f"--max-new-tokens {tokens}", problem, "draw fewer tokens")
    return found


def _both(
    model: str, reference: str | None, seed: int, preferences: Sequence[Preference]
) -> tuple[Any, Any, Tokenizer]:
    policy, tokenizer = loading.load(model, "policy", preferences, seed)
    return policy, loading.reference_of(model, reference, tokenizer, seed), tokenizer


def policy_and_reference(model: str, reference: str | None, beta: float, request: Request) -> Prepared:
    """Load a policy and its reference, read at every response token; see `both_policies`."""
    refuse_head(model, "policy", request.reward_head)
    two = both_policies(model, reference, request)
    read = _implicit(two.policy, two.reference, beta, request.max_tokens, two.closing)
    return Prepared(two.pairs, two.policy.num_parameters(), lambda: read(two.pairs))


def policy_reader(model: str, reference: str | None, beta: float, max_tokens: int, seed: int) -> PrefixReader:
    """Load a policy and its reference (None: the one its training run names). Errors: `UsageError`, `ModelError`."""
    policy, base, tokenizer = _both(model, reference, seed, ())
    read = _implicit(policy, base, beta, max_tokens, turn_end(tokenizer).ids)
    return PrefixReader(tokenizer, policy.num_parameters(), read, (policy, base))


def _implicit(
    policy: Any, reference: Any, beta: float, max_tokens: int, closing: Sequence[int]
) -> Callable[[Sequence[PairTokens]], TokenRewards]:
    own, other = (
        _Values(model, token_log_probs, max_tokens, f"log-probabilities of the {name}")
        for model, name in ((policy, "policy"), (reference, "reference"))
    )
    return lambda pairs: implicit_reward_prefix_scorer(pairs, own(pairs), other(pairs), beta, closing)
