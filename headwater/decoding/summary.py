"""Summaries of decoded responses: means with intervals, means by position, and the responses as a data set."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from headwater import statistics
from headwater.data.preference import Candidates
from headwater.data.sampling import Asked, Drawn
from headwater.results.decoding import DecodedResponse, PositionMean, PositionMeans
from headwater.statistics import Estimate

RANGES = (1, 2, 5, 10, 20, 50, 100, 200, 500)
"""First positions of the ranges over which figures are averaged; a response's first token is 1."""
TOTALS = ("response_tokens", "policy_share", "kl", "kl_policy", "log_ratio", "monte_carlo", "complete")
BY_POSITION = ("policy_share", "kl", "kl_policy")


def summary(responses: Sequence[DecodedResponse], seed: int) -> dict[str, Estimate]:
    """Return means over responses of every total that is known and of every reward, clustered by conversation."""
    conversation_ids = [one.opening for one in responses]
    found = {}
    for name in TOTALS:
        values = [getattr(one, name) for one in responses]
        if values[0] is not None:
            found[name] = statistics.mean([float(value) for value in values], conversation_ids, seed)
    for model in responses[0].rewards:
        scored = [(one.rewards[model], one.opening) for one in responses]
        known = [(reward, conversation_id) for reward, conversation_id in scored if reward is not None]
        rewards, clusters = [reward for reward, _ in known], [conversation_id for _, conversation_id in known]
        found[f"reward_{Path(model).name}"] = statistics.mean(rewards, clusters, seed)
    return found


def position_means(responses: Sequence[DecodedResponse], seed: int) -> PositionMeans:
    """Return means a token over ranges of positions, over the responses that reach them."""
    return PositionMeans(tuple(_position_means(responses, seed)))


def _position_means(responses: Sequence[DecodedResponse], seed: int) -> Iterator[PositionMean]:
    conversation_ids = np.array([one.opening for one in responses])
    for what in BY_POSITION:
        columns = [np.array(getattr(one, f"token_{what}") or ()) for one in responses]
        for first, following in zip(RANGES, (*RANGES[1:], None), strict=True):
            last = None if following is None else following - 1
            parts = [column[first - 1 : last] for column in columns]
            reach = [row for row, part in enumerate(parts) if len(part)]
            if reach:
                tokens = np.array([len(parts[row]) for row in reach], dtype=np.float64)
                means = np.array([parts[row].mean() for row in reach])
                found = statistics.weighted_mean(means, tokens, conversation_ids[reach].tolist(), seed)
                yield PositionMean(what=what, first=first, last=last, **found._asdict())


def candidates(
    prompts: Sequence[Asked], responses: Sequence[DecodedResponse], n: int, reward_model: str | None
) -> list[Candidates]:
    """Return the `n` responses a prompt as a data set, scored by `reward_model` (None: without scores)."""
    found = []
    for index, one in enumerate(prompts):
        rows = responses[index * n : (index + 1) * n]
        scored = tuple(
            Drawn(row.response, row.complete).response(row.rewards[reward_model] if reward_model else None)
            for row in rows
        )
        found.append(Candidates(prompt=one.prompt, responses=scored, id=one.id, source=one.source))
    return found
