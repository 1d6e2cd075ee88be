"""How far a policy has moved from its reference at every position of a response: KL(π ‖ π_ref), and log π / π_ref.

Three estimators, by which texts they go along and how they sum over the vocabulary:

- exact, along given texts: KL of the two next-token distributions after every prefix of the data's responses (the
  measure of shallow alignment, arXiv:2406.05946, section 2.2).
- exact, along the policy's own samples: summed over positions, an unbiased estimate of the sequences' KL with less
  variance than the log-ratio of the samples.
- Monte-Carlo: at every position the mean of log π − log π_ref over K draws from π (arXiv:2505.17122, section 5.1).
  Unbiased for the exact one at that position, and may be negative.

The log-ratio of the tokens that stand there says which way the policy moved: towards this text or away from it. Along
the policy's own samples its mean is a fourth estimate of the KL, that of a single draw. All are in nats.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headwater.console import track
from headwater.data.tokens import PairTokens
from headwater.forward.distributions import log_distribution
from headwater.forward.format_check import common_row_format
from headwater.forward.hidden_states import hidden_states
from headwater.forward.packing import PairBatch
from headwater.forward.scores import TokenFunction, token_values
from headwater.signal.bootstrap import Bootstrap
from headwater.signal.prefix_scorers import Ints
from headwater.statistics import Estimate, Floats

if TYPE_CHECKING:
    import torch

LOGITS = 2**24
"""Logits a model and chunk of positions: 64 MB in float32."""
BINS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
"""First positions of the stretches over which the divergence is averaged; a response's first token is 1."""
FIRST = (1, 5, 10, 20, 50, 100)
"""Numbers of first tokens whose share of the whole divergence is told."""


class Readings(NamedTuple):
    """What is read at every response token: 2 × pairs arrays [tokens] each, chosen and rejected of a pair in turn."""

    exact: list[Floats]
    """KL of the two next-token distributions."""
    log_ratio: list[Floats]
    """log π − log π_ref of the token itself."""
    drawn: list[Floats] | None
    """The KL by Monte-Carlo; None without draws."""


def read_divergence(policy: Any, reference: Any, pairs: Sequence[PairTokens], max_tokens: int, draws: int) -> Readings:
    """Read all responses by both models, in passes of `max_tokens` tokens, with `draws` samples a position."""
    row_format = common_row_format([policy, reference], pairs, max_tokens)
    values = token_values(policy, _divergence(reference, draws), pairs, max_tokens, row_format, "divergence")
    sides = [side.astype(np.float64) for value in values for side in (value.chosen, value.rejected)]
    columns = [[side[:, column] for side in sides] for column in range(2 + bool(draws))]
    return Readings(columns[0], columns[1], columns[2] if draws else None)


def sampled_pairs(
    policy: Any, prompts: Sequence[PairTokens], tokens: int, ends: Sequence[int], batch: int
) -> list[PairTokens]:
    """Draw two responses of at most `tokens` tokens to every prompt, as the two sides of a pair.

    Plain ancestral sampling, whatever the model's own generation settings, seeded by torch's global generator. `ends`
    are the ids that end a response, which is part of it.
    """
    import transformers

    from headwater.forward.finite import FiniteLogits
    from headwater.rewards.generation import drawing_for, generate, plain_generation

    settings = transformers.GenerationConfig(
        do_sample=True, top_k=0, top_p=1.0, max_new_tokens=tokens, eos_token_id=list(ends), pad_token_id=ends[0]
    )
    found: list[PairTokens] = []
    policy.eval()
    ordered = sorted(prompts, key=lambda pair: len(pair.prompt))
    way = drawing_for(policy, max((len(pair.prompt) for pair in prompts), default=0) + tokens)
    batch = batch if way.together else 1
    starts = range(0, len(ordered), batch)
    for start in track(starts, "sampling", len(starts)):
        chunk = ordered[start : start + batch]
        width = max(len(pair.prompt) for pair in chunk)
        finite = FiniteLogits([pair.id for pair in chunk for _ in range(2)], "sampling")
        with plain_generation(policy):
            drawn = generate(policy, [pair.prompt.tolist() for pair in chunk], 2, way, settings, [finite])
        sides = [_until_end(row, ends) for row in drawn[:, width:].cpu().numpy().astype(np.int32)]
        found += [p._replace(chosen=a, rejected=b) for p, a, b in zip(chunk, sides[::2], sides[1::2], strict=True)]
    return found


def _until_end(ids: NDArray[np.int32], ends: Sequence[int]) -> NDArray[np.int32]:
    """Cut a response behind the first token that ends it."""
    found = np.flatnonzero(np.isin(ids, ends))
    return ids[: found[0] + 1] if len(found) else ids


def _divergence(reference: Any, draws: int) -> TokenFunction:
    """Return a function that reads the columns of `Readings` at every response token, [N, 2 or 3]."""
    import torch

    def read(policy: Any, batch: PairBatch) -> torch.Tensor:
        own, other = (hidden_states(model, batch)[batch["predictor"]] for model in (policy, reference))
        targets = batch["input_ids"].flatten()[batch["position"]]
        size = max(1, LOGITS // policy.get_output_embeddings().weight.shape[0])
        found = []
        for start in range(0, len(own), size):
            rows = slice(start, start + size)
            both = log_distribution(policy, own[rows]), log_distribution(reference, other[rows])
            found.append(_estimates(*both, targets[rows], draws))
        return torch.cat(found)[batch["token"]]

    return read


def _estimates(own: torch.Tensor, other: torch.Tensor, targets: torch.Tensor, draws: int) -> torch.Tensor:
    """Return the columns of `Readings` [n, 2 or 3] from log-probabilities [n, V] and the tokens that follow [n]."""
    import torch

    probabilities, ratio = own.exp(), own - other
    found = [(probabilities * ratio).sum(1), ratio.gather(1, targets[:, None])[:, 0]]
    if draws:
        drawn = probabilities.multinomial(draws, replacement=True)
        found.append(ratio.gather(1, drawn).mean(1))
    return torch.stack(found, dim=1)


class Stretch(NamedTuple):
    """The mean over positions `first` to `last` (None: to the end), in nats a token."""

    first: int
    last: int | None
    mean: Estimate


class Share(NamedTuple):
    """The share of a response's whole divergence that lies in its first `tokens` tokens."""

    tokens: int
    share: Estimate


class Profile(NamedTuple):
    """Where the divergence lies."""

    total: Estimate
    """Nats a response."""
    stretches: list[Stretch]
    shares: list[Share]


def profile(values: Sequence[Floats], conversation_ids: Sequence[str], seed: int) -> Profile:
    """Average the divergence of the `values` [tokens] of responses; intervals are clustered by `conversation_ids`."""
    bootstrap = Bootstrap(conversation_ids, seed)
    sums, lengths = _running(values)
    total = np.array([found[-1] for found in sums])
    first_tokens = [tokens for tokens in FIRST if tokens < lengths.max()]
    heads = np.stack([_between(sums, lengths, 0, tokens)[0] for tokens in first_tokens])
    by_share = bootstrap.ratios(heads, np.broadcast_to(total, heads.shape))
    return Profile(
        bootstrap.means(total[None]).estimates()[0],
        by_position(values, conversation_ids, seed),
        [Share(tokens, share) for tokens, share in zip(first_tokens, by_share.estimates(), strict=True)],
    )


def by_position(values: Sequence[Floats], conversation_ids: Sequence[str], seed: int) -> list[Stretch]:
    """Average `values` [tokens] over ranges of positions; intervals are clustered by `conversation_ids`."""
    sums, lengths = _running(values)
    bounds = list(_bounds(int(lengths.max())))
    parts = [_between(sums, lengths, first - 1, last) for first, last in bounds]
    above, below = (np.stack(column) for column in zip(*parts, strict=True))
    means = Bootstrap(conversation_ids, seed).ratios(above, below).estimates()
    return [Stretch(*bound, mean) for bound, mean in zip(bounds, means, strict=True)]


def _running(values: Sequence[Floats]) -> tuple[list[Floats], Ints]:
    """Return the sums of the first 0, 1, … tokens of every response, and the responses' lengths."""
    return [np.concatenate([[0.0], np.cumsum(value)]) for value in values], np.array([len(value) for value in values])


def _bounds(longest: int) -> Iterator[tuple[int, int | None]]:
    """Yield first and last position of every stretch that a response of `longest` tokens reaches."""
    for first, following in zip(BINS, (*BINS[1:], None), strict=True):
        if first <= longest:
            yield first, None if following is None else following - 1


def _between(sums: Sequence[Floats], lengths: Ints, start: int, end: int | None) -> tuple[Floats, Floats]:
    """Return the sum over every response between two positions, and how many of its tokens lie there."""
    stops = lengths if end is None else np.minimum(lengths, end)
    starts = np.minimum(start, stops)
    between = [found[stop] - found[begin] for found, begin, stop in zip(sums, starts, stops, strict=True)]
    return np.array(between), (stops - starts).astype(np.float64)
