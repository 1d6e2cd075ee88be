"""The pair for which every loss is computed by hand in its docstring.

The chosen response has log π = −1 and 4 tokens, the rejected one log π = −3 and 2 tokens; log π_ref = −1.5 of both, so
Δ = 0.5 and −1.5, and h = 2. The data's scores differ by 0.8, the self-likelihood of either response is −0.1, their
divergences are 0.3 and 0.5, and the KL estimate is 0.2.
"""

from __future__ import annotations

import torch

from headwater.losses.sorted_batch import SortedBatch
from headwater.losses.types import Loss, PairScores, Score


def _score(value: float, tokens: int, divergence: float) -> Score:
    numbers = torch.tensor([[value], [-0.1], [divergence]], dtype=torch.float64)
    return Score(numbers[0], torch.tensor([tokens]), self_likelihood=numbers[1], divergence=numbers[2])


_COLUMNS = {
    "score_gap": torch.tensor([0.8], dtype=torch.float64),
    "kl_estimate": torch.tensor([0.2], dtype=torch.float64),
}
POLICY = PairScores(_score(-1.0, 4, 0.3), _score(-3.0, 2, 0.5), _COLUMNS)
REFERENCE = PairScores(_score(-1.5, 4, 0.3), _score(-1.5, 2, 0.5))


def worked(loss: Loss) -> float:
    """Return the loss of the pair, rounded to four places."""
    policy = POLICY
    if isinstance(loss, SortedBatch):
        policy = policy._replace(columns=loss.batch_columns(POLICY, REFERENCE))
    found = loss(policy, REFERENCE if loss.needs_reference else None)
    return round(found.loss.item(), 4)
