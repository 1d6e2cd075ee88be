"""Length control with one model in memory at a time: the policy decodes all first parts, then the reference the rest.

Every response gets the tokens that the loop with both models gives it. Statistics that need both models at once are
left out: of the KL estimates there is only the log-ratio of the drawn tokens, whose two sides are computed separately.
"""

from __future__ import annotations

import dataclasses
import gc
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import torch

from headwater.console import track
from headwater.data.generated import ResponseTexts
from headwater.data.sampling import Asked
from headwater.data.tokenizers import load_tokenizer
from headwater.decoding.decoders import MeasuredResponse, Prompts, ends_of, key_of, longest_of
from headwater.decoding.draws import Shaping
from headwater.decoding.loop import DecodedTokens, DecodeRequest, Loop
from headwater.decoding.options import DecodingOptions
from headwater.decoding.strategies import Alone, LengthControl, Strategy
from headwater.decoding.token_statistics import TokenStatistics, drawn_with
from headwater.journal import Journal
from headwater.models import loading


class PolicyTokens(NamedTuple):
    """The policy's part of a response."""

    tokens: list[int]
    """Without the end token."""
    end: int | None
    log_probs: list[float]
    """Log-probabilities of the tokens under the distribution they were drawn from."""


class SequentialDecoder:
    """Decodes with the policy first, and with the reference afterwards."""

    def __init__(
        self,
        policy: str,
        reference: str | None,
        prompts: Sequence[Asked],
        options: DecodingOptions,
        seed: int,
        journal: Journal,
    ) -> None:
        """Load the reference for its limits, release it, and load the policy. Errors: `UsageError`, `ModelError`."""
        self._names, self._seed, self._options, self._journal = (policy, reference), seed, options, journal
        self._tokenizer = load_tokenizer(policy, ())
        self._texts = ResponseTexts(self._tokenizer)
        other = self._load_reference()
        ends, longest = ends_of(other, self._tokenizer), longest_of(other, options)
        del other
        _free_memory()
        self._policy: Any = loading.load(policy, "policy", (), seed).model.eval()
        self._ends = sorted(ends | ends_of(self._policy, self._tokenizer))
        self._prompts = Prompts(prompts, self._tokenizer, min(longest, longest_of(self._policy, options)))
        self.prompts, self.dropped = self._prompts.kept, {"too_long": self._prompts.too_long}
        self.figures: dict[str, float] = {}

    def _load_reference(self) -> Any:
        policy, reference = self._names
        return loading.reference_of(policy, reference, self._tokenizer, self._seed).eval()

    def responses(self, strategy: Strategy, seed: int, draws: int = 0) -> Iterator[MeasuredResponse]:
        """Decode and yield every response, in the order of the prompts and their draws; once only."""
        assert isinstance(strategy, LengthControl) and not draws  # the command has seen to it
        asked, began = self._prompts.requests(self._options.n), time.perf_counter()
        firsts = self._decode_first(asked, min(strategy.first, self._options.max_new_tokens), seed)
        self._policy = None
        _free_memory()
        reference = self._load_reference()
        whole, read = self._decode_rest(reference, asked, firsts, seed)
        tokens = sum(len(one.tokens) + (one.end is not None) for one in whole.values())
        self.figures |= {"tokens": tokens, "tokens_per_second": tokens / (time.perf_counter() - began)}
        self.figures["tokens_read_by_reference"] = read
        order = [(one, draw, whole[key_of(one.key, draw)]) for one in self.prompts for draw in range(self._options.n)]
        log_probs = drawn_with(
            reference, Shaping(self._options), [found for *_, found in order], self._options.batch_size
        )
        for (one, draw, found), (used, plain) in zip(order, log_probs, strict=True):
            first = firsts[key_of(one.key, draw)].log_probs
            share = [1.0] * len(first) + [0.0] * (len(used) - len(first))
            ratio = [a - b for a, b in zip([*first, *used[len(first) :]], plain, strict=True)]
            yield MeasuredResponse.of(one, found, self._texts, TokenStatistics(share, [], [], ratio, []))

    def _decode_first(self, asked: Sequence[DecodeRequest], first: int, seed: int) -> dict[str, PolicyTokens]:
        """Decode up to `first` tokens of every response with the policy."""
        names = [key_of(one.key, one.draw) for one in asked]
        left = [one for one, name in zip(asked, names, strict=True) if f"first {name}" not in self._journal]
        options = dataclasses.replace(self._options, max_new_tokens=first)
        loop = Loop(self._policy, self._policy, Alone("policy"), options, self._ends, seed)
        for one in track(loop.run(left), "the policy's tokens", len(left)):
            self._journal[f"first {key_of(one.request.key, one.request.draw)}"] = [one.tokens, one.end]
        self.figures["tokens_read_by_policy"] = loop.policy.tokens
        found = [DecodedTokens(one, *self._journal[f"first {name}"]) for one, name in zip(asked, names, strict=True)]
        logs = drawn_with(self._policy, Shaping(self._options), found, self._options.batch_size)
        return {
            name: PolicyTokens(one.tokens, one.end, used)
            for name, one, (used, _) in zip(names, found, logs, strict=True)
        }

    def _decode_rest(
        self, reference: Any, asked: Sequence[DecodeRequest], firsts: dict[str, PolicyTokens], seed: int
    ) -> tuple[dict[str, DecodedTokens], int]:
        """Decode the rest with the reference; returns whole responses and the number of tokens it read."""
        whole: dict[str, DecodedTokens] = {}
        left = []
        for one in asked:
            name = key_of(one.key, one.draw)
            first = firsts[name]
            if first.end is not None or len(first.tokens) == self._options.max_new_tokens:
                whole[name] = DecodedTokens(one, first.tokens, first.end)
            elif name in self._journal:
                whole[name] = DecodedTokens(one, *self._journal[name])
            else:
                left.append(one._replace(said=first.tokens))
        loop = Loop(reference, reference, Alone("reference"), self._options, self._ends, seed)
        for found in track(loop.run(left), "the reference's tokens", len(left)):
            name = key_of(found.request.key, found.request.draw)
            self._journal[name] = [found.tokens, found.end]
            whole[name] = found
        return whole, loop.reference.tokens


def _free_memory() -> None:
    """Free memory that is no longer referenced."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
