"""DPO gradient of a prompt, and the bound on it by preference variance (arXiv:2510.13022).

At θ = ref, with labels P(i, j) = σ((r_i − r_j) / τ), the mean gradient over the pairs of a prompt's responses is
g = −β E[(P − ½)(s_i − s_j)], with s = ∇ log π(y | x). By Cauchy–Schwarz, and since E s = 0,

    ‖g‖ ≤ β √PVar √E‖s_i − s_j‖² = √2 β √PVar √E‖s‖².

E‖s‖² is estimated by half the mean of ‖s_i − s_j‖² over the drawn pairs. The estimate is unbiased for independent draws
of the policy, and the bound holds for the drawn pairs themselves, whatever model wrote them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch

from headwater.console import say, track
from headwater.data.preference import Candidates, Preference
from headwater.data.selection import PVar, unit_of
from headwater.data.selection.selecting import Selected
from headwater.data.tokenizers import Tokenizer
from headwater.data.tokens import PairTokens
from headwater.forward.finite import check_scores
from headwater.forward.packing import collate
from headwater.forward.scores import to_device, token_log_probs
from headwater.models import loading, positions
from headwater.results.selection import GradientRow
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


def gradient_rows(
    policy: str, chosen: Selected, records: Mapping[int, Preference | Candidates]
) -> tuple[GradientRow, ...]:
    """Load a policy and return the gradient norms of some rows of a selection, beside their bounds and scores.

    `records` are rows of the selection by their number; those whose responses do not fit are left out. Errors:
    `ModelError`.
    """
    pool, taken = chosen.read.pool, set(chosen.choice.rows.tolist())
    pvar = chosen.plan.selector if isinstance(chosen.plan.selector, PVar) else PVar()
    unit = unit_of(pool, pvar.tau, pvar.scale)
    model, tokenizer = loading.load(policy, "policy", (), chosen.seed)
    longest = positions.readable(model)
    rewarded = ((record, pool.rewards[:, pool.of_row(row)]) for row, record in records.items())
    found = measure(model, tokenizer, rewarded, unit, Reading("complete", longest, longest))
    measured = zip(records, track(found, "gradients", len(records)), strict=True)
    rows = tuple(
        GradientRow(
            id=pool.ids[row],
            opening=pool.conversation_ids[row],
            taken=row in taken,
            score=None if np.isnan(chosen.scores[row]) else float(chosen.scores[row]),
            **one._asdict(),
        )
        for row, one in measured
        if one
    )
    if len(rows) < len(records):
        lost = len(records) - len(rows)
        say(f"gradients: {lost} of {len(records)} rows are left out, their responses empty or too long")
    return rows


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
    batch = collate([response._replace(rejected=response.chosen[:0], rejected_mask=None)], "single")
    return token_log_probs(model, to_device(batch, next(model.parameters()).device)).sum()
