"""Decode prompts into responses with their KL statistics; shared by `decode` and `frontier`."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from headwater.console import say, track
from headwater.data.generated import ResponseTexts
from headwater.data.preference import conversation_id_of
from headwater.data.sampling import Asked, Drawn, Sampling
from headwater.data.templates import given_template
from headwater.data.tokenizers import Tokenizer
from headwater.decoding.loop import DecodedTokens, DecodeRequest, Loop, decode_requests
from headwater.decoding.options import DecodingOptions
from headwater.decoding.strategies import Strategy
from headwater.decoding.token_statistics import StatisticsReader, TokenStatistics
from headwater.errors import ModelError, UsageError
from headwater.journal import Journal
from headwater.models import loading, positions
from headwater.models.turn_ends import end_rule, end_tokens
from headwater.results.decoding import DecodedResponse
from headwater.rewards import sampling


class ModelPair(NamedTuple):
    """A policy and its reference, with their common tokenizer."""

    policy: Any
    reference: Any
    tokenizer: Tokenizer
    ends: list[int]
    """The tokens that end a response."""


class MeasuredResponse(NamedTuple):
    """A response, and the statistics of its tokens."""

    asked: Asked
    draw: int
    response: Drawn
    tokens: list[int] | None
    """Tokens with the end token; None where a server did not return them."""
    ends: list[int]
    """Character offset in the response at which each token ends; tokens that share a character end together."""
    statistics: TokenStatistics

    @classmethod
    def of(
        cls, asked: Asked, found: DecodedTokens, texts: ResponseTexts, statistics: TokenStatistics
    ) -> MeasuredResponse:
        """Return the answer to a prompt that was decoded locally."""
        prompt, tokens = found.request.prompt, found.tokens + ([] if found.end is None else [found.end])
        text, same_tokens = texts.of(asked.prompt, prompt, found.tokens)
        response = Drawn(text, found.end is not None, len(found.tokens), same_tokens)
        return cls(asked, found.request.draw, response, tokens, texts.ends(text, prompt, tokens), statistics)

    def stored(self, rewards: dict[str, float | None]) -> DecodedResponse:
        """Return what a run stores of it, with `rewards` by model; unknown values are None."""
        statistics = {name: values or None for name, values in self.statistics._asdict().items()}
        share = self.statistics.policy_share
        totals: dict[str, Any] = {
            name: sum(values) for name, values in statistics.items() if values and name != "policy_share"
        }
        return DecodedResponse(
            id=self.asked.id,
            source=self.asked.source,
            opening=conversation_id_of(self.asked.prompt),
            prompt=[{"role": message.role, "content": message.shown} for message in self.asked.prompt],
            draw=self.draw,
            response=self.response.text,
            complete=self.response.complete,
            same_tokens=self.response.same_tokens,
            response_tokens=len(share),
            policy_share=sum(share) / max(1, len(share)),
            **totals,
            rewards=rewards,
            tokens=self.tokens,
            token_ends=None if self.tokens is None else self.ends,
            **{f"token_{name}": values for name, values in statistics.items()},
        )


def load_pair(model: str, reference: str | None, seed: int) -> ModelPair:
    """Load a policy and its reference (None: the one in its training run). Errors: `UsageError`, `ModelError`."""
    if loading.head_of(model) == "reward":
        raise ModelError(model, "is a reward model", "name a policy")
    policy, tokenizer = loading.load(model, "policy", (), seed)
    other = loading.reference_of(model, reference, tokenizer, seed)
    ends = ends_of(policy, tokenizer) | ends_of(other, tokenizer)
    return ModelPair(policy.eval(), other.eval(), tokenizer, sorted(ends))


def ends_of(model: Any, tokenizer: Tokenizer) -> set[int]:
    """Return the end tokens of a model."""
    return set(end_tokens(model, tokenizer))


def longest_of(model: Any, options: DecodingOptions) -> int:
    """Return the maximum length of a prompt in tokens. Errors: `ModelError` when it is 0."""
    return sampling.longest_prompt(model, Sampling(max_new_tokens=options.max_new_tokens))


def key_of(prompt: str, draw: int) -> str:
    """Return the key of a response in the journal."""
    return f"{prompt}:{draw}"


class Prompts:
    """Encoded prompts that are short enough."""

    def __init__(self, prompts: Sequence[Asked], tokenizer: Tokenizer, longest: int) -> None:
        """Leave out prompts of more than `longest` tokens; `too_long` counts them."""
        ids = sampling.prompt_ids(prompts, tokenizer, longest)
        self.ids = {one.key: found.tolist() for one, found in zip(prompts, ids, strict=True) if found is not None}
        self.kept = [one for one in prompts if one.key in self.ids]
        self.too_long = len(prompts) - len(self.kept)

    def requests(self, n: int) -> list[DecodeRequest]:
        """Return n requests a prompt, sorted by length."""
        return decode_requests([one.key for one in self.kept], [self.ids[one.key] for one in self.kept], n)


class Decoder(Protocol):
    """Interface of everything that answers prompts under a strategy."""

    prompts: list[Asked]
    """The prompts that are answered."""
    dropped: dict[str, int]
    """Number of prompts left out, by reason."""
    figures: dict[str, float]

    def responses(self, strategy: Strategy, seed: int, draws: int = 0) -> Iterator[MeasuredResponse]:
        """Yield every response, in the order of the prompts and their draws."""


class PairDecoder:
    """Local decoding with both models in memory."""

    def __init__(
        self, pair: ModelPair, prompts: Sequence[Asked], options: DecodingOptions, journal: Journal | None = None
    ) -> None:
        """Encode the prompts; those without space for a response are left out (`dropped` counts them).

        Responses in the `journal` are not decoded again.
        """
        self.pair, self.options, self._journal = pair, options, journal
        longest = min(longest_of(model, options) for model in (pair.policy, pair.reference))
        self._prompts = Prompts(prompts, pair.tokenizer, longest)
        self.prompts, self.dropped = self._prompts.kept, {"too_long": self._prompts.too_long}
        self.figures: dict[str, float] = {}
        """Figures of the last decoding: tokens a second, tokens read by each model, accepted drafts."""

    def responses(
        self, strategy: Strategy, seed: int, draws: int = 0, n: int | None = None
    ) -> Iterator[MeasuredResponse]:
        """Decode and yield every response, in the order of the prompts and their draws.

        `draws` is the number of Monte-Carlo draws; `n` the number of responses a prompt, by default that of the
        options.
        """
        pair, options = self.pair, dataclasses.replace(self.options, n=n or self.options.n)
        loop = Loop(pair.policy, pair.reference, strategy, options, pair.ends, seed)
        found = self._decoded(loop, self._prompts.requests(options.n))
        order = [(one, found[key_of(one.key, draw)]) for one in self.prompts for draw in range(options.n)]
        reader = StatisticsReader(pair.policy, pair.reference, strategy, options)
        measured = reader.read([decoded for _, decoded in order], draws, seed)
        texts = ResponseTexts(pair.tokenizer)
        for (one, decoded), statistics in zip(order, measured, strict=True):
            yield MeasuredResponse.of(one, decoded, texts, statistics)

    def _decoded(self, loop: Loop, asked: Sequence[DecodeRequest]) -> dict[str, DecodedTokens]:
        """Return all responses by their keys; each is in the journal before the next one is decoded."""
        names = [key_of(one.key, one.draw) for one in asked]
        journal: Any = {} if self._journal is None else self._journal
        left = [one for one, name in zip(asked, names, strict=True) if name not in journal]
        if len(left) < len(asked):
            say(f"resumed: {len(asked) - len(left):,} of {len(asked):,} responses are in {journal.path}")
        began, tokens = time.perf_counter(), 0
        for one in track(loop.run(left), "responses", len(left)):
            journal[key_of(one.request.key, one.request.draw)] = [one.tokens, one.end]
            tokens += len(one.tokens) + (one.end is not None)
        self.figures = _figures(loop, tokens, time.perf_counter() - began)
        return {name: DecodedTokens(one, *journal[name]) for one, name in zip(asked, names, strict=True)}


def _figures(loop: Loop, tokens: int, seconds: float) -> dict[str, float]:
    figures = {
        "tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "tokens_read_by_policy": loop.policy.tokens,
        "tokens_read_by_reference": loop.reference.tokens,
    }
    return figures | ({"drafts_taken": loop.taken / loop.drafted} if loop.drafted else {})


class RewardModels:
    """Reward models, loaded once."""

    def __init__(self, names: Sequence[str], condition: str, seed: int, batch: int) -> None:
        """Load them; `condition` is that of the prompts, empty for none. Errors: `UsageError`, `ModelError`."""
        if len(set(names)) < len(names):
            raise UsageError("--reward-model", "names a model twice", "name each one once")
        for name in names:
            loading.check_conditions(name, [condition])
        with given_template(None):  # a reward model is asked as it was trained
            self._models = {name: (*loading.load(name, "reward", (), seed), end_rule(name)) for name in names}
        self._batch = batch

    def rewards(self, answer: MeasuredResponse) -> dict[str, float | None]:
        """Return the reward by every model; None for a response that is empty or too long."""
        found = {}
        for name, (model, tokenizer, end) in self._models.items():
            longest = positions.readable(model)
            asked, drawn = answer.asked, [answer.response]
            found[name] = sampling.scores(model, tokenizer, asked, drawn, longest, self._batch, end)[0]
        return found
