"""What a loss on the sorted values of a batch reads beside a pair: computed before, from all passes of the batch.

AOT compares the k-th smallest value of a batch with the k-th smallest of another one (losses/sorted_batch.py). One more
forward pass without gradients gives all values of the batch, so the loss does not depend on how memory divides it. With
several processes, each sorts its own share of a batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

import torch

from headwater.data.tokens import PairTokens
from headwater.forward.packing import PairBatch
from headwater.forward.scores import reference_scores
from headwater.losses import Loss, PairScores, Score, SortedBatch

Scores = Callable[[PairBatch], PairScores]


def add_to_passes(loss: Loss, score: Scores, passes: Sequence[PairBatch]) -> None:
    """Add what `loss` reads of the whole batch to the columns of its passes; nothing for any other loss."""
    if not isinstance(loss, SortedBatch):
        return
    with torch.no_grad():
        columns = _columns(loss, [_scored(score, batch) for batch in passes])
    sizes = [batch["num_pairs"] for batch in passes]
    for name, column in columns.items():
        for batch, part in zip(passes, torch.split(column, sizes), strict=True):
            batch["columns"][name] = part


def with_columns(
    loss: Loss, score: Scores, pairs: Sequence[PairTokens], computed: Callable[..., Iterable[tuple[list[int], Scored]]]
) -> Sequence[PairTokens]:
    """Return pairs with what `loss` reads of all of them together; `computed` applies a function to their passes."""
    if not isinstance(loss, SortedBatch):
        return pairs
    found = list(computed(lambda batch: _scored(score, batch)))
    places = [place for indices, _ in found for place in indices]
    columns = {name: column.tolist() for name, column in _columns(loss, [scored for _, scored in found]).items()}
    rows = list(pairs)
    for number, place in enumerate(places):
        own = {name: column[number] for name, column in columns.items()}
        rows[place] = rows[place]._replace(columns={**rows[place].columns, **own})
    return rows


Scored = tuple[PairScores, PairScores]


def _scored(score: Scores, batch: PairBatch) -> Scored:
    policy = score(batch)
    reference = reference_scores(batch, policy.chosen.value.dtype)
    assert reference is not None
    return policy, reference


def _columns(loss: SortedBatch, scored: Sequence[Scored]) -> dict[str, torch.Tensor]:
    policy, reference = (
        PairScores(_joined([of_pass.chosen for of_pass in model]), _joined([of_pass.rejected for of_pass in model]))
        for model in zip(*scored, strict=True)
    )
    return dict(loss.batch_columns(policy, reference))


def _joined(scores: Sequence[Score]) -> Score:
    """Return the values of several passes as those of one."""
    return Score(torch.cat([each.value for each in scores]), torch.cat([each.tokens for each in scores]))
