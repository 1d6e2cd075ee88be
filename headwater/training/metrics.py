"""Metrics of training: rewards of chosen and rejected responses, accuracy, and change of log-probability.

Every pass leaves one line a row, which stays on the device: reading it would make the host wait for the device, so
figures are computed from many of them, once a logging step. A labelled response has no counterpart and thus no
accuracy; the figure instead is the area under the ROC curve, how often a desirable response has a higher reward than
an undesirable one, whatever their prompts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch

from headwater.losses import PairLoss, PairScores
from headwater.results.training import Column
from headwater.statistics import area_under_curve, mean

COLUMNS = 3
"""Reward of the chosen response and of the rejected one, and the change of the chosen log-probability."""


def watch(result: PairLoss, policy: PairScores, reference: PairScores | None) -> torch.Tensor:
    """Return the metrics of every row of a batch, [pairs, COLUMNS], detached; NaN where a row has no such response.

    The change of the chosen log-probability, in nats, is relative to the reference; when it falls, training displaces
    the chosen responses as well. Rows with several cuts are measured at the longest.
    """
    missing = torch.full_like(result.chosen_reward, float("nan"), dtype=torch.float64)
    has_chosen, has_rejected = (
        side.tokens.view(len(missing), -1)[:, -1] > 0 for side in (policy.chosen, policy.rejected)
    )
    change = missing if reference is None else (policy.chosen.value - reference.chosen.value).detach().double()
    columns = (
        torch.where(has_chosen, result.chosen_reward.double(), missing),
        torch.where(has_rejected, result.rejected_reward.double(), missing),
        torch.where(has_chosen, change, missing),
    )
    return torch.stack(columns, dim=1)


class WatchedRows:
    """The rows that were watched since the last log line; those of the current optimizer step come last."""

    def __init__(self) -> None:
        self.passes: list[torch.Tensor] = []
        """Of every forward pass, [pairs, COLUMNS]."""
        self._step = 0

    def forget_step(self) -> None:
        """Forget the rows of the current step, which is computed again."""
        del self.passes[self._step :]

    def end_step(self, taken: torch.Tensor) -> None:
        """End a step, given on the device whether it is taken.

        Rows of a step that is not taken become NaN, and count in no mean: to remove them, the device would have to be
        waited for.
        """
        self.passes[self._step :] = [torch.where(taken, rows, torch.nan) for rows in self.passes[self._step :]]
        self._step = len(self.passes)

    def restart(self, passes: Sequence[torch.Tensor] = ()) -> list[torch.Tensor]:
        """Return the rows, and begin anew with those of finished steps that a checkpoint has kept."""
        before, self.passes, self._step = self.passes, list(passes), len(passes)
        return before


def figures(rows: torch.Tensor) -> dict[str, float]:
    """Return the means over rows [n, COLUMNS]; a figure that no row has is left out.

    Ties count ½ in `rewards/accuracies`, over pairs, and in `rewards/auc`, over labelled responses.
    """
    chosen, rejected, change = rows.cpu().numpy().T
    good, bad = _mean(chosen), _mean(rejected)
    found: dict[str, float] = {
        Column.CHOSEN_REWARD: good,
        Column.REJECTED_REWARD: bad,
        Column.REWARD_SUM: good + bad,
        Column.MARGIN: good - bad,
    }
    pairs = ~np.isnan(chosen) & ~np.isnan(rejected)
    if pairs.any():
        better, worse = chosen[pairs], rejected[pairs]
        found[Column.ACCURACY] = float(((better > worse).mean() + (better >= worse).mean()) / 2)
    else:
        sides = [side[~np.isnan(side)] for side in (chosen, rejected)]
        found[Column.AUC] = area_under_curve(*sides)
    found[Column.CHOSEN_CHANGE] = _mean(change)
    return {str(name): value for name, value in found.items() if not np.isnan(value)}


def wins(rows: torch.Tensor) -> torch.Tensor:
    """Return whether the chosen response has the higher reward, ½ for ties: [n]; NaN for labelled responses."""
    margins = rows[:, 0] - rows[:, 1]
    # The sign of NaN is 0 in torch, which would make a tie of a labelled response.
    return torch.where(margins.isnan(), margins, (torch.sign(margins) + 1) / 2)


def bounds(by_pair: np.ndarray, conversation_ids: Sequence[str], seed: int) -> dict[str, float]:
    """Return the bootstrap interval of the accuracy, given `wins` [n], resampling conversations.

    Empty for labelled responses, and for a single conversation.
    """
    if np.isnan(by_pair).any():
        return {}
    found = mean(by_pair, conversation_ids, seed)
    ends = {"low": found.low, "high": found.high}
    return {f"{Column.ACCURACY}_{name}": end for name, end in ends.items() if end is not None}


def line(logs: Mapping[str, float]) -> str:
    """Return the line that is printed for a history row."""
    shown = (Column.LOSS, Column.LEARNING_RATE, Column.ACCURACY, Column.AUC, Column.MARGIN, "train_runtime")
    return ", ".join(f"{name} {value:.4g}" for name, value in logs.items() if name.removeprefix("eval_") in shown)


def _mean(values: np.ndarray) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
