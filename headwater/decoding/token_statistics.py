"""KL statistics of decoded responses: which model produced every token, and its divergence from the reference.

All statistics follow from the two distributions after each prefix. They are computed afterwards, in one forward pass of
each model over whole responses, so decoding does not wait for them. Three estimators, in nats, summed over a response:

- `kl`: exact KL(used ‖ reference) over the whole vocabulary. *used* is the distribution the token was drawn from,
  temperature and filters included; the reference is the unmodified model. The sum over a response is an unbiased
  estimate of the KL between the distributions of responses, with less variance than the next one.
- `log_ratio`: log used − log reference of the token drawn (summed in arXiv:2505.17122; may be negative).
- `kl_policy`: exact KL(policy ‖ reference), whichever model produced the token; `monte_carlo` is its mean over K draws
  from the policy (the same paper, section 5.1, with K = 1,000).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from headwater.data.sampling import seed_of
from headwater.data.tokens import PairTokens
from headwater.decoding.draws import Shaping
from headwater.decoding.loop import DecodedTokens
from headwater.decoding.options import DecodingOptions
from headwater.decoding.strategies import Mixture, Strategy, divergence
from headwater.forward.format_check import ROWS_OF_ONE, row_format_for
from headwater.forward.head import shape_of
from headwater.forward.hidden_states import hidden_states
from headwater.forward.packing import collate
from headwater.forward.scores import to_device

LOGITS = 2**23
"""Maximum number of logits of one model in a chunk: 64 MB in float64."""


class TokenStatistics(NamedTuple):
    """Statistics of a response, one value a token with the end token; a list is empty where values are unknown."""

    policy_share: list[float]
    """Weight of the policy in the distribution used: 1 policy alone, 0 reference alone."""
    kl: list[float]
    kl_policy: list[float]
    log_ratio: list[float]
    monte_carlo: list[float]
    """Present only on request."""


class StatisticsReader:
    """Computes the statistics of responses that were decoded from two models."""

    def __init__(self, policy: Any, reference: Any, strategy: Strategy, options: DecodingOptions) -> None:
        self._policy, self._reference, self._strategy = policy, reference, strategy
        self._shaping, self._batch = Shaping(options), options.batch_size

    @torch.inference_mode()
    def read(self, responses: Sequence[DecodedTokens], draws: int = 0, seed: int = 0) -> Iterator[TokenStatistics]:
        """Yield the statistics of every response; `draws` is the number of Monte-Carlo draws, 0 for none."""
        for start in range(0, len(responses), self._batch):
            chunk = responses[start : start + self._batch]
            states = [hidden(model, chunk) for model in (self._policy, self._reference)]
            for one, own, other in zip(chunk, *states, strict=True):
                yield self._statistics(one, own, other, draws, seed)

    def _statistics(
        self, one: DecodedTokens, own: torch.Tensor, other: torch.Tensor, draws: int, seed: int
    ) -> TokenStatistics:
        tokens = one.tokens + ([] if one.end is None else [one.end])
        size = max(1, LOGITS // self._policy.get_input_embeddings().weight.shape[0])
        generator = torch.Generator(own.device).manual_seed(seed_of(seed, one.request.key, one.request.draw))
        columns: list[list[float]] = [[], [], [], [], []]
        for start in range(0, len(tokens), size):
            part = slice(start, start + size)
            policy, reference = log_probs(self._policy, own[part]), log_probs(self._reference, other[part])
            mixture = self._mixture(policy, reference, start)
            used = self._shaping(mixture.log_probs)
            target = torch.tensor(tokens[part], device=used.device)[:, None]
            found = [
                mixture.share,
                divergence(used.log(), reference).clamp(min=0),
                divergence(policy, reference).clamp(min=0),
                _probability(used, target).log() - reference.gather(1, target)[:, 0],
            ]
            if draws:
                drawn = policy.exp().multinomial(draws, replacement=True, generator=generator)
                found.append((policy - reference).gather(1, drawn).mean(1))
            for column, values in zip(columns, found, strict=False):
                column += values.tolist()
        return TokenStatistics(*columns)

    def _mixture(self, policy: torch.Tensor, reference: torch.Tensor, start: int) -> Mixture:
        """Return the distributions used at all positions from `start` on."""
        turns = [self._strategy.turn(start + place) for place in range(len(policy))]
        both = [place for place, turn in enumerate(turns) if turn == "both"]
        share = torch.tensor([float(turn == "policy") for turn in turns], dtype=policy.dtype, device=policy.device)
        mixture = torch.where(share[:, None] == 1, policy, reference)
        if both:
            mixed = self._strategy.mix(policy[both], reference[both])
            mixture[both], share[both] = mixed.log_probs, mixed.share
        return Mixture(mixture, share)


@torch.inference_mode()
def drawn_with(
    model: Any, shaping: Shaping, responses: Sequence[DecodedTokens], batch: int
) -> Iterator[tuple[list[float], list[float]]]:
    """Yield the log-probabilities of every response's tokens: after temperature and filters, and by the model itself.

    The end token is included.
    """
    for start in range(0, len(responses), batch):
        chunk = responses[start : start + batch]
        for one, states in zip(chunk, hidden(model, chunk), strict=True):
            columns: list[list[float]] = [[], []]
            tokens = one.tokens + ([] if one.end is None else [one.end])
            size = max(1, LOGITS // model.get_input_embeddings().weight.shape[0])
            for place in range(0, len(tokens), size):
                plain = log_probs(model, states[place : place + size])
                target = torch.tensor(tokens[place : place + size], device=plain.device)[:, None]
                columns[0] += _probability(shaping(plain), target).log().tolist()
                columns[1] += plain.gather(1, target)[:, 0].tolist()
            yield columns[0], columns[1]


def _probability(used: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Return the probabilities [n] under `used` of the tokens [n, 1] that were drawn.

    Logits are rounded differently here than in the decoding loop, so a token at the edge of a filter may fall outside.
    It then gets the smallest probability inside.
    """
    edge = torch.where(used > 0, used, 1.0).min(1).values
    return torch.maximum(used.gather(1, target)[:, 0], edge)


def hidden(model: Any, responses: Sequence[DecodedTokens]) -> list[torch.Tensor]:
    """Return the hidden state before every token of each response, [tokens, hidden]."""
    texts = [[*one.tokens, *([] if one.end is None else [one.end])] for one in responses]
    pairs = [_as_pair(one.request.prompt, text) for one, text in zip(responses, texts, strict=True)]
    # Only formats in which the model uses its own attention: the same model continues decoding afterwards.
    row_format = row_format_for(model, pairs, allowed=ROWS_OF_ONE)
    batch = to_device(collate(pairs, row_format), next(model.parameters()).device)
    states = hidden_states(model, batch)[batch["predictor"]][batch["token"]]
    return list(torch.split(states, [len(text) for text in texts]))


def _as_pair(prompt: Sequence[int], response: Sequence[int]) -> PairTokens:
    """Return a response as a pair with one empty side."""
    ids, tokens = (np.asarray(part, dtype=np.int32) for part in (prompt, response))
    return PairTokens(ids, tokens, tokens[:0], id="", source="", conversation_id="")


def log_probs(model: Any, states: torch.Tensor) -> torch.Tensor:
    """Return log-probabilities [n, vocabulary] after hidden states [n, hidden], in float64."""
    logits = model.get_output_embeddings()(states).double()
    return shape_of(model).apply(logits).log_softmax(1)
