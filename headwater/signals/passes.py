"""Models that score every prefix of a response in one forward pass: reward models, and policies with a reference."""

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
from headwater.data.tokens import TOKENS_PER_PASS, EncodeOptions, PairTokens, closing_tokens
from headwater.data.truncation import Truncation
from headwater.errors import DataError
from headwater.forward.finite import check_scores
from headwater.forward.format_check import row_format_for
from headwater.forward.passes import WINDOW, TokenValues, token_values
from headwater.forward.scores import TokenFunction, token_log_probs, token_rewards
from headwater.models import loading, positions
from headwater.models.heads import Head
from headwater.models.turn_ends import end_rule, end_tokens, say_place
from headwater.rewards import sampling
from headwater.rewards.responses import TokenScorer, reward_token_scorer, tokens_read
from headwater.signals.options import ScorerOptions
from headwater.signals.prefix_scorers import Ints, TokenRewards, implicit_reward_prefix_scorer, reward_prefix_scorer
from headwater.statistics import Floats

BETA = 0.1
"""Scale of the implicit reward where none is named."""


def head_of(model: str) -> Head:
    """Return whether `model` is a reward model or a policy. Errors: `ModelError`."""
    return loading.head_of(model)


@dataclass(frozen=True)
class PrefixModel:
    """A loaded model that scores every prefix of responses; `load_prefix_model` makes one."""

    tokenizer: Tokenizer
    encode_options: EncodeOptions
    """How pairs are encoded for the model, within its positions."""
    parameters: int
    score: Callable[[Sequence[PairTokens]], TokenRewards]
    """Pairs to the rewards of all their prefixes, from one forward pass a pair and model."""
    token_scorer: TokenScorer | None = None
    """Scores whole responses; None for a policy, whose prefix rewards already give the reward of any span."""
    max_tokens: int = TOKENS_PER_PASS
    """Tokens of a forward pass."""

    def score_with_spans(self, pairs: Sequence[PairTokens], spans: Sequence[Truncation]) -> TokenRewards:
        """Return the rewards of all prefixes and, from a reward model, of `spans` in forward passes of their own."""
        rewards = self.score(pairs)
        if not spans or self.token_scorer is None:
            return rewards
        if any(mask is not None for pair in pairs for mask in pair.masks):
            say("spans: none of responses of several turns, which a reward model reads from their beginning only")
            return rewards
        return replace(rewards, spans=_span_rewards(self.token_scorer, pairs, rewards, spans, self.max_tokens))


def load_prefix_model(
    model: str, options: ScorerOptions, seed: int, preferences: Sequence[Preference] = ()
) -> PrefixModel:
    """Load a reward model, or a policy and its reference, to score prefixes.

    `preferences` train the tokenizer of a scratch model. Errors: `UsageError` for options that the model has not, and
    for more tokens than it has positions; `ModelError`.
    """
    head = head_of(model)
    options.check_head(model, head)
    encode_options = EncodeOptions(Truncation(), options.end or end_rule(model), options.max_length)
    max_tokens = options.tokens_per_pass or TOKENS_PER_PASS
    if head == "reward":
        scorer, tokenizer = loading.load(model, "reward", preferences, seed, reward_head=options.reward_head)
        say_place(tokenizer, encode_options.end)
        return reward_prefix_model(scorer, tokenizer, encode_options, max_tokens)
    policy, tokenizer = loading.load(model, "policy", preferences, seed)
    reference = loading.reference_of(model, options.reference, tokenizer, seed)
    return policy_prefix_model(policy, reference, tokenizer, encode_options, max_tokens, options.beta or BETA)


def reward_prefix_model(
    scorer: Any, tokenizer: Tokenizer, encode_options: EncodeOptions, max_tokens: int = TOKENS_PER_PASS
) -> PrefixModel:
    """Return a loaded reward model as a scorer of prefixes. Errors: `UsageError` for more tokens than positions."""
    closing = closing_tokens(tokenizer, encode_options.end)

    def score(pairs: Sequence[PairTokens]) -> TokenRewards:
        values = _token_values(scorer, token_rewards, pairs, max_tokens, "rewards")
        return reward_prefix_scorer(pairs, values, closing)

    encode_options = positions.fitted(encode_options, scorer)
    parameters = scorer.num_parameters()
    return PrefixModel(tokenizer, encode_options, parameters, score, reward_token_scorer(scorer), max_tokens)


def policy_prefix_model(
    policy: Any,
    reference: Any,
    tokenizer: Tokenizer,
    encode_options: EncodeOptions,
    max_tokens: int = TOKENS_PER_PASS,
    beta: float = BETA,
) -> PrefixModel:
    """Return a policy and its reference as a scorer of prefixes, by implicit rewards β (log π − log π_ref).

    Errors: `UsageError` for more tokens than either has positions.
    """
    closing = closing_tokens(tokenizer, encode_options.end)

    def score(pairs: Sequence[PairTokens]) -> TokenRewards:
        own, other = (
            _token_values(model, token_log_probs, pairs, max_tokens, f"log-probabilities of the {name}")
            for model, name in ((policy, "policy"), (reference, "reference"))
        )
        return implicit_reward_prefix_scorer(pairs, own, other, beta, closing)

    encode_options = positions.fitted(encode_options, policy, reference)
    return PrefixModel(tokenizer, encode_options, policy.num_parameters(), score, max_tokens=max_tokens)


def _token_values(
    model: Any, function: TokenFunction, pairs: Sequence[PairTokens], max_tokens: int, what: str
) -> list[TokenValues]:
    """Return a value for every response token of `pairs`; `what` names it on the progress bar and in errors."""
    row_format = row_format_for(model, pairs, max_tokens)
    return token_values(model, function, pairs, max_tokens, row_format, what)


def _span_rewards(
    token_scorer: TokenScorer,
    pairs: Sequence[PairTokens],
    rewards: TokenRewards,
    spans: Sequence[Truncation],
    max_tokens: int,
) -> dict[Truncation, Floats]:
    """Return reward differences [pairs] of every span, scored as a response of its own to the prompt.

    What a reward model gives a span depends on what stands before it: behind the prompt, a span is read as a whole
    response. All spans of a pair are scored together, so that their prompt is read once
    (`rewards.responses.TokenScorer`).
    """
    bounds = [rewards.bounds(span) for span in spans]
    found = np.empty((len(pairs), len(bounds)))
    tokens = 0
    starts = range(0, len(pairs), WINDOW)
    for start in track(starts, "rewards of spans", len(starts)):
        window = range(start, min(start + WINDOW, len(pairs)))
        sides = [side for index in window for side in _sides(pairs[index], index, bounds)]
        values = np.array(token_scorer.read(sides, max_tokens)).reshape(len(window), len(bounds), 2)
        check_scores(values, [pairs[index].id for index in window], "rewards of spans")
        same = np.array([np.array_equal(a.chosen, b.chosen) for a, b in zip(sides[::2], sides[1::2], strict=True)])
        # Equal texts are a tie, whatever the rounding of two forward passes makes of them.
        found[start : window.stop] = np.where(same.reshape(len(window), -1), 0.0, values[..., 0] - values[..., 1])
        tokens += tokens_read(sides, max_tokens)
    times = tokens / sum(pair.length for pair in pairs)
    say(f"spans: {len(bounds)} other parts of every response, read in {times:.1f} × the tokens of the one pass")
    return dict(zip(spans, found.T, strict=True))


def _sides(pair: PairTokens, index: int, bounds: Sequence[tuple[Ints, Ints]]) -> Iterator[PairTokens]:
    """Yield every span of both responses as a response to the prompt, chosen and rejected in turn."""
    for first, end in bounds:
        for side, ids in enumerate((pair.chosen, pair.rejected)):
            span = ids[first[index, side] : end[index, side]]
            yield pair._replace(chosen=span, rejected=span, id=str(index))


@dataclass(frozen=True)
class TwoPolicies:
    """A policy and its reference, with the pairs that both can read."""

    policy: Any
    reference: Any
    pairs: list[PairTokens]
    ends: list[int]
    """The tokens that end a response of either model."""

    def with_room(self, pairs: Sequence[PairTokens], tokens: int) -> list[PairTokens]:
        """Return the pairs whose prompts leave both models room for `tokens` new tokens.

        Errors: `ModelError` where no prompt has room, `DataError` where none of these has.
        """
        wanted = Sampling(max_new_tokens=tokens)
        longest = min(sampling.longest_prompt(model, wanted) for model in (self.policy, self.reference))
        found = [pair for pair in pairs if len(pair.prompt) <= longest]
        if not found:
            shortest = min(len(pair.prompt) for pair in pairs)
            problem = f"{longest} tokens are left for prompts, the shortest has {shortest}"
            raise DataError(f"--max-new-tokens {tokens}", problem, "draw fewer tokens")
        return found


def load_two_policies(
    model: str,
    reference: str | None,
    preferences: Sequence[Preference],
    encode_options: EncodeOptions,
    seed: int,
    prep_log: PrepLog,
) -> TwoPolicies:
    """Load a policy and its reference (None: the one that its training run names), and encode `preferences` for both.

    Row counts go to `prep_log`. Errors: `UsageError`, `ModelError`.
    """
    policy, tokenizer = loading.load(model, "policy", preferences, seed)
    base = loading.reference_of(model, reference, tokenizer, seed)
    pairs = prepare("read pairs", preferences, positions.fitted(encode_options, policy, base), tokenizer, prep_log)
    ends = sorted({*end_tokens(policy, tokenizer), *end_tokens(base, tokenizer)})
    return TwoPolicies(policy, base, pairs, ends)
