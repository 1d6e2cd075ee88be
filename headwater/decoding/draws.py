"""Sampling from distributions: temperature, filters, and draws that depend only on a row's own random numbers.

Where both models take part, a token is drawn in two steps: the reference proposes a token, and it is accepted or
replaced so that the result has exactly the target distribution (speculative sampling, arXiv:2211.17192, appendix A.1).
The same random numbers give the same tokens, however many tokens are proposed ahead.
"""

from __future__ import annotations

import numpy as np
import torch
import transformers
from numpy.typing import NDArray

from headwater.data.sampling import seed_of
from headwater.decoding.options import DecodingOptions

PROPOSE, TAKE, REPLACE = range(3)
"""Index of the three random numbers of a token: proposal, acceptance, replacement."""


def random_numbers(seed: int, key: str, draw: int, tokens: int) -> NDArray[np.float64]:
    """Return the random numbers of one draw of a prompt, [3, tokens] in [0, 1).

    The first row is the one that `headwater sample` draws with: a single model generates the same tokens in both.
    """
    seeds = [seed_of(seed, key + step, draw) for step in ("", ":take", ":replace")]
    return np.stack([np.random.default_rng(each).random(tokens) for each in seeds])


class Shaping:
    """Turns log-probabilities into the probabilities that tokens are drawn with: temperature, top-k, top-p, min-p."""

    def __init__(self, options: DecodingOptions) -> None:
        self._temperature = options.temperature
        self._filters = transformers.LogitsProcessorList()
        if options.top_k is not None:
            self._filters.append(transformers.TopKLogitsWarper(options.top_k))
        if options.top_p < 1:
            self._filters.append(transformers.TopPLogitsWarper(options.top_p))
        if options.min_p > 0:
            self._filters.append(transformers.MinPLogitsWarper(options.min_p))

    def __call__(self, log_probs: torch.Tensor) -> torch.Tensor:
        """Return probabilities [n, vocabulary] in float64, from log-probabilities up to a constant a row."""
        if self._temperature == 0:
            best = log_probs.argmax(1, keepdim=True)
            return torch.zeros_like(log_probs, dtype=torch.float64).scatter_(1, best, 1.0)
        # In float64: a sum of 150,000 float32 terms is too inaccurate for the last tokens.
        scores: torch.Tensor = self._filters(None, log_probs / self._temperature).double()
        return scores.softmax(1)


def drawn(probabilities: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Return the token at which the cumulative probability passes u, for weights [n, vocabulary] and u [n]: [n]."""
    cumulative = probabilities.cumsum(1)
    # Scaled by the actual sum, so that u never lies beyond the last token with a probability.
    return torch.searchsorted(cumulative, u[:, None] * cumulative[:, -1:], right=True)[:, 0]


def taken(proposed: torch.Tensor, wanted: torch.Tensor, proposal: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Return whether tokens [n] drawn from `proposal` stand as draws from `wanted`, both [n, vocabulary]: [n]."""
    p, q = (each.gather(1, proposed[:, None])[:, 0] for each in (wanted, proposal))
    return u * q < p


def replaced(wanted: torch.Tensor, proposal: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Draw replacements for rejected proposals from the residual max(0, wanted − proposal): [n]."""
    return drawn((wanted - proposal).clamp(min=0), u)
