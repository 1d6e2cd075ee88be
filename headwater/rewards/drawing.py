"""Draw responses from a local model or a server, so that a stopped command continues; and score them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from headwater.console import say, track
from headwater.data.generated import differences
from headwater.data.preference import Candidates
from headwater.data.sampling import Asked, Drawn, Journal, Sampling, ask_many
from headwater.data.templates import given_template
from headwater.errors import UsageError
from headwater.network.endpoint import Endpoint, Refusals

AT_ONCE = 8
"""Prompts at a time by default."""
Rewards = list[float | None]
"""Rewards of the responses to one prompt; None for one that is empty or too long."""


@dataclass(frozen=True)
class SamplerOptions:
    """Sampler options: where responses are drawn, on a local model or a server."""

    endpoint: str | None = None
    """OpenAI-compatible server to ask instead of a local model, such as http://localhost:8000/v1; its key is read
    from OPENAI_API_KEY."""
    batch_size: int | None = None
    """Number of prompts a local model answers at a time. Does not change results. Default: 8."""
    concurrency: int | None = None
    """Number of prompts sent to a server at a time; each response is a request. Default: 8."""

    def check(self, chat_template: str | None, scores: bool = False) -> None:
        """Refuse options that cannot work or have no effect. Errors: `UsageError`.

        `scores` says that a local reward model scores the responses, for which the batch size counts too.
        """
        if self.concurrency is not None and not self.endpoint:
            raise UsageError("--concurrency", "has no effect on a local model", "leave it out, or see --batch-size")
        if self.batch_size is not None and self.endpoint and not scores:
            raise UsageError("--batch-size", "has no effect on a server", "leave it out, or see --concurrency")
        if chat_template is not None and self.endpoint:
            raise UsageError("--chat-template", "has no effect on a server, which has its own", "leave it out")
        for flag, value in (("--batch-size", self.batch_size), ("--concurrency", self.concurrency)):
            if value is not None and value < 1:
                raise UsageError(f"{flag} {value}", "expected 1 or more")
        if self.endpoint:
            Endpoint(self.endpoint)

    @property
    def batch(self) -> int:
        """Prompts that a local model reads at a time."""
        return self.batch_size or AT_ONCE


def draw_missing(
    model: str,
    prompts: Sequence[Asked],
    sampling: Sampling,
    options: SamplerOptions,
    seed: int,
    journal: Journal,
    refusals: Refusals,
    *,
    key: Callable[[Asked], str] = lambda one: one.key,
    what: tuple[str, str] = ("prompts", "prompts"),
) -> list[Asked]:
    """Draw responses to the prompts that the journal does not hold, and return those that have responses now.

    Every response is in the journal before the next is drawn. `refusals` counts the requests that a server refuses;
    `key` names a prompt in the journal; `what` names the responses in messages and on the progress bar. Prompts
    without space for a response are left out.
    """
    left = [one for one in prompts if key(one) not in journal]
    if len(left) < len(prompts):
        say(f"resumed: {len(prompts) - len(left):,} of {len(prompts):,} {what[0]} are in {journal.path}")
    for one, responses in track(_draws(model, left, sampling, options, seed, refusals), what[1], len(left)):
        journal.add(key(one), responses)
    drawn = [one for one in prompts if key(one) in journal]
    if told := differences([each.same_tokens for one in drawn for each in journal.drawn(key(one))]):
        say(f"{what[0]}: {told}")
    return drawn


def _draws(
    model: str,
    prompts: Sequence[Asked],
    sampling: Sampling,
    options: SamplerOptions,
    seed: int,
    refusals: Refusals,
) -> Iterable[tuple[Asked, list[Drawn]]]:
    if not prompts:
        return []
    if options.endpoint:
        at_once = options.concurrency or AT_ONCE
        return ask_many(Endpoint(options.endpoint), model, prompts, sampling, seed, at_once, refusals)
    from headwater.rewards.sampling import draw_from

    return draw_from(model, prompts, sampling, seed, options.batch)


def score_drawn(
    reward_models: Sequence[str], prompts: Sequence[Asked], journal: Journal, condition: str, batch: int, seed: int
) -> dict[str, list[Rewards]]:
    """Return the rewards of all responses by reward model, prompt by prompt. Errors: `UsageError`, `ModelError`."""
    from headwater.models import loading, positions
    from headwater.models.turn_ends import end_rule
    from headwater.rewards import sampling

    found: dict[str, list[Rewards]] = {}
    for name in reward_models:
        loading.check_conditions(name, [condition])
        with given_template(None):  # a reward model is asked as it was trained
            (model, tokenizer), end = loading.load(name, "reward", (), seed), end_rule(name)
        longest = positions.readable(model)
        found[name] = [
            sampling.scores(model, tokenizer, one, journal.drawn(one.key), longest, batch, end)
            for one in track(prompts, f"rewards by {Path(name).name}", len(prompts))
        ]
    return found


def candidates(prompts: Sequence[Asked], journal: Journal, rewards: Sequence[Rewards] | None) -> list[Candidates]:
    """Return prompts with their responses and, as scores, their `rewards` [prompts]."""
    found = []
    for row, one in enumerate(prompts):
        drawn = journal.drawn(one.key)
        scores = rewards[row] if rewards else [None] * len(drawn)
        responses = tuple(each.response(reward) for each, reward in zip(drawn, scores, strict=True))
        found.append(Candidates(prompt=one.prompt, responses=responses, id=one.id, source=one.source))
    return found


def counts(rows: Sequence[Candidates]) -> dict[str, int]:
    """Return the numbers of prompts, and of responses: all, complete, different within their row, and scored."""
    responses = [response for row in rows for response in row.responses]
    return {
        "prompts": len(rows),
        "responses": len(responses),
        "complete": sum(bool(response.complete) for response in responses),
        "different": sum(len({response.text for response in row.responses}) for row in rows),
        "scored": sum(response.score is not None for response in responses),
    }
