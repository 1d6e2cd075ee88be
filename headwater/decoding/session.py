"""From prompts to responses with their accounts: what `decode` and `frontier` share."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from headwater.console import track
from headwater.data.preference import opening_of
from headwater.data.sampling import Asked, Drawn, Sampling
from headwater.data.tokenizers import Tokenizer
from headwater.decoding.accounting import Accountant, Spoken
from headwater.decoding.loop import Loop, requests
from headwater.decoding.options import DecodingOptions
from headwater.decoding.strategies import Strategy
from headwater.engine import models, sampling
from headwater.errors import ModelError, UsageError


class Pair(NamedTuple):
    """A policy and its reference, with the tokenizer they share."""

    policy: Any
    reference: Any
    tokenizer: Tokenizer
    ends: list[int]
    """The tokens that end a response."""


class Answer(NamedTuple):
    """A response, and what every token of it cost."""

    asked: Asked
    draw: int
    response: Drawn
    tokens: list[int]
    """With the one that ended it."""
    ends: list[int]
    """Where each token ends in the response, in characters; those that share a character end together."""
    spoken: Spoken

    def record(self, rewards: dict[str, float | None]) -> dict[str, Any]:
        """Return it as plain values: texts, totals, and tokens; `rewards` by model."""
        spoken = self.spoken
        totals = {
            "response_tokens": len(self.tokens),
            "kl": sum(spoken.kl),
            "kl_policy": sum(spoken.kl_policy),
            "log_ratio": sum(spoken.log_ratio),
            "policy_share": sum(spoken.policy_share) / len(self.tokens),
        }
        if spoken.monte_carlo:
            totals["monte_carlo"] = sum(spoken.monte_carlo)
        head = {"id": self.asked.id, "source": self.asked.source, "opening": opening_of(self.asked.prompt)}
        prompt = [{"role": message.role, "content": message.content} for message in self.asked.prompt]
        text = {"draw": self.draw, "response": self.response.text, "complete": self.response.complete}
        by_token = {f"token_{name}": values for name, values in spoken._asdict().items() if values}
        tokens = {"tokens": self.tokens, "token_ends": self.ends}
        return head | {"prompt": prompt} | text | totals | {"rewards": rewards} | tokens | by_token


def load_pair(model: str, reference: str | None, seed: int) -> Pair:
    """Load a policy and its reference (None: the one its training run names). Errors: `UsageError`, `ModelError`."""
    if models.head_of(model) == "reward":
        raise ModelError(model, "is a reward model", "name a policy")
    policy, tokenizer = models.load(model, "policy", (), seed)
    other = models.reference_of(model, reference, tokenizer, seed)
    ends = {end for each in (policy, other) for end in sampling.end_tokens(each, tokenizer)}
    return Pair(policy.eval(), other.eval(), tokenizer, sorted(ends))


class Session:
    """Prompts that fit two models."""

    def __init__(self, pair: Pair, prompts: Sequence[Asked], options: DecodingOptions) -> None:
        """Encode the prompts; those that leave no room for a response are left out (`too_long` counts them)."""
        self.pair, self.options = pair, options
        room = Sampling(max_new_tokens=options.max_new_tokens)
        longest = min(sampling.longest_prompt(model, room) for model in (pair.policy, pair.reference))
        ids = sampling.prompt_ids(prompts, pair.tokenizer, longest)
        self._ids = {one.key: found.tolist() for one, found in zip(prompts, ids, strict=True) if found is not None}
        self.prompts = [one for one in prompts if one.key in self._ids]
        self.too_long = len(prompts) - len(self.prompts)
        self.figures: dict[str, float] = {}
        """Of the last decoding: tokens a second, tokens read by each model, drafts taken."""

    def answers(self, strategy: Strategy, seed: int, draws: int = 0, n: int | None = None) -> Iterator[Answer]:
        """Decode and yield every response, in the order of the prompts and their draws.

        `draws` are those of the Monte-Carlo estimator; `n` responses a prompt, by default those of the options.
        """
        pair, options = self.pair, dataclasses.replace(self.options, n=n or self.options.n)
        loop = Loop(pair.policy, pair.reference, strategy, options, pair.ends, seed)
        asked = requests([one.key for one in self.prompts], [self._ids[one.key] for one in self.prompts], options.n)
        began = time.perf_counter()
        found = {(one.request.key, one.request.draw): one for one in track(loop.run(asked), "responses", len(asked))}
        self.figures = _figures(loop, found.values(), time.perf_counter() - began)
        order = [(one, draw, found[one.key, draw]) for one in self.prompts for draw in range(options.n)]
        accountant = Accountant(pair.policy, pair.reference, strategy, options)
        accounts = accountant.read([one for _, _, one in order], draws, seed)
        for (one, draw, decoded), spoken in zip(order, accounts, strict=True):
            tokens = decoded.tokens + ([] if decoded.end is None else [decoded.end])
            text = pair.tokenizer.decode(decoded.tokens, skip_special_tokens=True)
            ends = _ends(tokens, text, pair.tokenizer)
            yield Answer(one, draw, Drawn(text, decoded.end is not None), tokens, ends, spoken)


def _ends(tokens: Sequence[int], text: str, tokenizer: Tokenizer) -> list[int]:
    """Return where each token ends in `text`, which all of them decode to; the last one ends it.

    A token is decoded behind the last ones that made a text: what it says can depend on them (a space in front, the
    bytes of a character), but not on earlier ones.
    """
    ends: list[int] = []
    first = read = reached = 0
    for place in range(1, len(tokens) + 1):
        before, now = (tokenizer.decode(tokens[first:end], skip_special_tokens=True) for end in (read, place))
        if now.endswith("\ufffd") and place < len(tokens):  # bytes of a character that is not complete
            continue
        reached = len(text) if place == len(tokens) else min(len(text), reached + max(0, len(now) - len(before)))
        ends += [reached] * (place - len(ends))
        first, read = read, place
    return ends


def _figures(loop: Loop, responses: Any, seconds: float) -> dict[str, float]:
    tokens = sum(len(one.tokens) + (one.end is not None) for one in responses)
    figures = {
        "tokens": tokens,
        "tokens_per_second": tokens / seconds,
        "tokens_read_by_policy": loop.policy.tokens,
        "tokens_read_by_reference": loop.reference.tokens,
    }
    return figures | ({"drafts_taken": loop.taken / loop.drafted} if loop.drafted else {})


class Judges:
    """Reward models, loaded once."""

    def __init__(self, names: Sequence[str], told: str, seed: int, batch: int) -> None:
        """Load them; `told` is the condition of the prompts, if any. Errors: `UsageError`, `ModelError`."""
        if len(set(names)) < len(names):
            raise UsageError("--reward-model", "names a model twice", "name each one once")
        for name in names:
            models.check_conditions(name, [told])
        self._models = {name: models.load(name, "reward", (), seed) for name in names}
        self._batch = batch

    def rewards(self, answer: Answer) -> dict[str, float | None]:
        """Return the reward by every model; None for a response that is empty or too long."""
        found = {}
        for name, (model, tokenizer) in self._models.items():
            longest = getattr(model.config, "max_position_embeddings", None) or 10**9
            found[name] = sampling.scores(model, tokenizer, answer.asked, [answer.response], longest, self._batch)[0]
        return found
