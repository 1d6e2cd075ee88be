"""DPO gradient of a prompt, and the bound on it by preference variance (arXiv:2510.13022).

At θ = ref, with labels P(i, j) = σ((r_i − r_j) / τ), the mean gradient over the pairs of a prompt's responses is
g = −β E[(P − ½)(s_i − s_j)], with s = ∇ log π(y | x). By Cauchy–Schwarz, and since E s = 0,

    ‖g‖ ≤ β √PVar √E‖s_i − s_j‖² = √2 β √PVar √E‖s‖².

E‖s‖² is estimated by half the mean of ‖s_i − s_j‖² over the drawn pairs. The estimate is unbiased for independent draws
of the policy, and the bound holds for the drawn pairs themselves, whatever model wrote them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from headwater.data.preference import Candidates, Preference
from headwater.data.tokenizers import Tokenizer
from headwater.data.tokens import PairTokens
from headwater.forward.finite import check_scores
from headwater.forward.packing import collate
from headwater.forward.scores import to_device, token_log_probs
from headwater.rewards.responses import Reading, encoded
from headwater.statistics import Floats


class Measured(NamedTuple):
    """Measured gradient of one prompt; norms are divided by β, which scales both."""

    responses: int
    pvar: float
    norm: float
    bound: float


def measure(
    model: Any,
    tokenizer: Tokenizer,
    rows: Iterable[tuple[Preference | Candidates, Floats]],
    tau: float,
    reading: Reading,
) -> Iterator[Measured | None]:
    """Yield the measurement of every row with its `rewards` [models, responses], in units of `tau`.

    None where fewer than two responses have rewards and fit. Takes one backward pass a response, and the memory of
    three gradients.
    """
    model.eval()
    for record, rewards in rows:
        (found,) = encoded([record], tokenizer, reading)
        known = [place for place in range(len(found.places)) if not np.isnan(rewards[:, found.places[place]]).any()]
        if len(known) < 2:
            yield None
            continue
        places = [found.places[place] for place in known]
        measured = _measured(model, [found.responses[place] for place in known], rewards[:, places] / tau)
        check_scores(np.array([[measured.norm, measured.bound]]), [record.id], "gradients")
        yield measured


def _measured(model: Any, responses: Sequence[PairTokens], rewards: Floats) -> Measured:
    # σ(x) − ½ = ½ tanh(x / 2); the preference of an ensemble is the mean over its models.
    half = (np.tanh((rewards[:, :, None] - rewards[:, None, :]) / 2) / 2).mean(axis=0)
    pairs = len(responses) * (len(responses) - 1)
    # Σ_ij (P_ij − ½)(s_i − s_j) = 2 Σ_i s_i Σ_j (P_ij − ½)
    squares, plain, weighted = _sums(model, responses, 2 * half.sum(axis=1) / pairs)
    apart = max(0.0, 2 * (len(responses) * squares - plain) / pairs)  # the mean of ‖s_i − s_j‖²
    pvar = float(np.square(half).sum() / pairs)
    return Measured(len(responses), pvar, weighted**0.5, (pvar * apart) ** 0.5)


def _sums(model: Any, responses: Sequence[PairTokens], weights: Floats) -> tuple[float, float, float]:
    """Return Σ ‖s_i‖², ‖Σ s_i‖² and ‖Σ w_i s_i‖² over responses."""
    parameters = [each for each in model.parameters() if each.requires_grad]
    plain, weighted = ([torch.zeros_like(each, dtype=torch.float32) for each in parameters] for _ in range(2))
    squares = 0.0
    for response, weight in zip(responses, weights.tolist(), strict=True):
        gradient = torch.autograd.grad(_log_prob(model, response), parameters, allow_unused=True)
        for place, part in enumerate(gradient):
            if part is not None:
                squares += _square(part)
                plain[place] += part
                weighted[place] += weight * part
    return squares, sum(map(_square, plain)), sum(map(_square, weighted))


def _square(values: torch.Tensor) -> float:
    return float(values.double().square().sum())


def _log_prob(model: Any, response: PairTokens) -> torch.Tensor:
    """Return log π(response | prompt)."""
    batch = collate([response._replace(rejected=response.chosen[:0])], "single")
    return token_log_probs(model, to_device(batch, next(model.parameters()).device)).sum()
