"""KL(π ‖ π_ref) of a policy and its reference at every position of a response, and the log-ratio of its tokens.

Three estimators differ in the texts they follow and in how they sum over the vocabulary:

- exact, along given texts: KL of the two next-token distributions after every prefix of the data's responses (the
  measure of shallow alignment, arXiv:2406.05946, section 2.2).
- exact, along the policy's own samples: summed over positions, an unbiased estimate of the sequences' KL with less
  variance than the log-ratio of the samples.
- Monte-Carlo: at every position the mean of log π − log π_ref over K draws from π (arXiv:2505.17122, section 5.1).
  Unbiased for the exact one at that position, and may be negative.

The log-ratio of the tokens of a text is positive where the policy moved towards it and negative where it moved away.
Along the policy's own samples its mean is a fourth estimate of the KL, with a single draw. All are in nats.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headwater.console import track
from headwater.data.reading import RowCounts
from headwater.data.tokens import PairTokens
from headwater.forward.distributions import log_distribution
from headwater.forward.format_check import common_row_format
from headwater.forward.hidden_states import hidden_states
from headwater.forward.packing import PairBatch
from headwater.forward.passes import token_values
from headwater.forward.scores import TokenFunction
from headwater.results.signal import Divergence, DivergencePoint
from headwater.signals.bootstrap import Bootstrap
from headwater.signals.options import DivergenceOptions
from headwater.signals.passes import TwoPolicies
from headwater.signals.prefix_scorers import Ints
from headwater.statistics import Estimate, Floats

if TYPE_CHECKING:
    import torch

LOGITS = 2**24
"""Logits of a model that are held at a time: 64 MB in float32."""
BINS = (1, 2, 5, 10, 20, 50, 100, 200, 500)
"""First positions of the ranges over which the divergence is averaged; a response's first token is 1."""
FIRST = (1, 5, 10, 20, 50, 100)
"""Numbers of first tokens whose share of the whole divergence is reported."""
SAMPLE_TOKENS = 256
"""Most tokens of a sample by default."""
SAMPLED_AT_ONCE = 16
"""Prompts of a batch of samples."""


class TokenDivergence(NamedTuple):
    """Values at every response token: 2 × pairs arrays [tokens] each, chosen and rejected of a pair in turn."""

    exact: list[Floats]
    """KL of the two next-token distributions."""
    log_ratio: list[Floats]
    """log π − log π_ref of the token itself."""
    drawn: list[Floats] | None
    """The KL by Monte-Carlo; None without draws."""


def read_divergence(
    policy: Any, reference: Any, pairs: Sequence[PairTokens], max_tokens: int, draws: int
) -> TokenDivergence:
    """Return the divergence at every response token, in forward passes of `max_tokens` tokens.

    `draws` are the Monte-Carlo draws a position; 0 for none.
    """
    row_format = common_row_format([policy, reference], pairs, max_tokens)
    values = token_values(policy, _divergence(reference, draws), pairs, max_tokens, row_format, "divergence")
    sides = [side.astype(np.float64) for value in values for side in (value.chosen, value.rejected)]
    columns = [[side[:, column] for side in sides] for column in range(2 + bool(draws))]
    return TokenDivergence(columns[0], columns[1], columns[2] if draws else None)


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
        found += [
            p._replace(chosen=a, rejected=b, chosen_mask=None, rejected_mask=None)
            for p, a, b in zip(chunk, sides[::2], sides[1::2], strict=True)
        ]
    return found


def _until_end(ids: NDArray[np.int32], ends: Sequence[int]) -> NDArray[np.int32]:
    """Return a response up to the first token that ends it, with that token."""
    found = np.flatnonzero(np.isin(ids, ends))
    return ids[: found[0] + 1] if len(found) else ids


def _divergence(reference: Any, draws: int) -> TokenFunction:
    """Return a function that computes the columns of `TokenDivergence` at every response token, [N, 2 or 3]."""
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
    """Return the columns of `TokenDivergence` [n, 2 or 3] from log-probabilities [n, V] and tokens [n]."""
    import torch

    probabilities, ratio = own.exp(), own - other
    found = [(probabilities * ratio).sum(1), ratio.gather(1, targets[:, None])[:, 0]]
    if draws:
        drawn = probabilities.multinomial(draws, replacement=True)
        found.append(ratio.gather(1, drawn).mean(1))
    return torch.stack(found, dim=1)


class Stretch(NamedTuple):
    """Mean over the positions `first` to `last` (None: to the end), in nats a token."""

    first: int
    last: int | None
    mean: Estimate


class Share(NamedTuple):
    """Share of a response's whole divergence in its first `tokens` tokens."""

    tokens: int
    share: Estimate


class Profile(NamedTuple):
    """The divergence of responses by position."""

    total: Estimate
    """Nats a response."""
    stretches: list[Stretch]
    shares: list[Share]


def profile(values: Sequence[Floats], conversation_ids: Sequence[str], seed: int) -> Profile:
    """Return means over responses with the divergences `values` [tokens]; intervals cluster by `conversation_ids`."""
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
    """Return means of `values` [tokens] over ranges of positions; intervals cluster by `conversation_ids`."""
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
    """Yield first and last position of every range that a response of `longest` tokens reaches."""
    for first, following in zip(BINS, (*BINS[1:], None), strict=True):
        if first <= longest:
            yield first, None if following is None else following - 1


def _between(sums: Sequence[Floats], lengths: Ints, start: int, end: int | None) -> tuple[Floats, Floats]:
    """Return the sum over every response between two positions, and how many of its tokens lie there."""
    stops = lengths if end is None else np.minimum(lengths, end)
    starts = np.minimum(start, stops)
    between = [found[stop] - found[begin] for found, begin, stop in zip(sums, starts, stops, strict=True)]
    return np.array(between), (stops - starts).astype(np.float64)


class DivergenceMeasurement(NamedTuple):
    """A measured divergence, and the figures that a run keeps as metrics."""

    divergence: Divergence
    metrics: dict[str, Estimate]


def distinct_prompts(two: TwoPolicies, tokens: int) -> tuple[list[PairTokens], RowCounts]:
    """Return one pair a prompt, of prompts that leave room for `tokens` new tokens, with the row counts.

    Errors: `ModelError`, `DataError` where no prompt has room.
    """
    once = list({pair.prompt.tobytes(): pair for pair in two.pairs}.values())
    found = two.with_room(once, tokens)
    dropped = Counter({"repeated_prompt": len(two.pairs) - len(once), "too_long": len(once) - len(found)})
    return found, RowCounts(len(two.pairs), len(found), dropped)


def measure_divergence(
    two: TwoPolicies, pairs: Sequence[PairTokens], options: DivergenceOptions, seed: int
) -> DivergenceMeasurement:
    """Return how far the policy has moved from its reference, along the responses of `pairs` or along samples.

    With `options.along` "samples", the policy draws two responses to the prompt of every pair.
    """
    if options.along == "samples":
        tokens = options.max_new_tokens or SAMPLE_TOKENS
        pairs = sampled_pairs(two.policy, pairs, tokens, two.ends, SAMPLED_AT_ONCE)
    values = read_divergence(two.policy, two.reference, pairs, options.tokens_per_pass, options.draws)
    conversation_ids = [pair.conversation_id for pair in pairs for _ in range(2)]
    estimates = {"exact": values.exact}
    if values.drawn is not None:
        estimates[f"Monte-Carlo, {options.draws} draws"] = values.drawn
    profiles = {name: profile(each, conversation_ids, seed) for name, each in estimates.items()}
    # Responses of the data are chosen or rejected; the two samples of a prompt are exchangeable.
    sides = {"chosen": slice(0, None, 2), "rejected": slice(1, None, 2)}
    sides = sides if options.along == "texts" else {"samples": slice(None)}
    points = [point for name, found in profiles.items() for point in _kl_points(name, found)]
    for name, side in sides.items():
        for stretch in by_position(values.log_ratio[side], conversation_ids[side], seed):
            points.append(_point("log_ratio_a_token", stretch.first, stretch.last, stretch.mean, responses=name))
    exact = profiles["exact"]
    shares = {f"kl_share_of_first_{share.tokens}": share.share for share in exact.shares}
    return DivergenceMeasurement(Divergence(tuple(points)), {"kl_a_response": exact.total, **shares})


def _kl_points(estimator: str, found: Profile) -> Iterator[DivergencePoint]:
    for stretch in found.stretches:
        yield _point("kl_a_token", stretch.first, stretch.last, stretch.mean, estimator=estimator)
    for share in found.shares:
        yield _point("share", 1, share.tokens, share.share, estimator=estimator)
    yield _point("kl_a_response", 1, None, found.total, estimator=estimator)


def _point(
    what: str,
    first: int,
    last: int | None,
    found: Estimate,
    *,
    estimator: str | None = None,
    responses: str | None = None,
) -> DivergencePoint:
    return DivergencePoint(
        what=what, first=first, last=last, estimator=estimator, responses=responses, **found._asdict()
    )
