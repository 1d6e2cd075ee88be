"""What is watched of rows, by hand: pairs, and labelled responses, of which one side is missing."""

from __future__ import annotations

import pytest
import torch

from headwater.losses import PairLoss, PairScores, Score
from headwater.training.metrics import COLUMNS, figures, watch


def watched(chosen: list[float], rejected: list[float], tokens: list[tuple[int, int]]) -> dict[str, float]:
    """Figures of rewards; log-probabilities changed by twice the reward of the chosen response."""
    rewards = torch.tensor(chosen), torch.tensor(rejected)
    counts = torch.tensor(tokens)
    policy = PairScores(Score(2 * rewards[0] - 5, counts[:, 0]), Score(rewards[1], counts[:, 1]))
    reference = PairScores(*(Score(torch.full_like(side.value, -5.0), side.tokens) for side in policy[:2]))
    rows = watch(PairLoss(rewards[0], *rewards), policy, reference)
    assert rows.shape == (len(chosen), COLUMNS)
    # Batches, and rows of another process: what they are cut into changes nothing.
    filler = torch.full((2, COLUMNS), float("nan"), dtype=torch.float64)
    assert figures(torch.cat([rows[1:], filler, rows[:1]])) == pytest.approx(figures(rows))
    return figures(rows)


def test_pairs() -> None:
    found = watched([1.0, 0.5, 2.0, -1.0], [0.0, 0.5, 3.0, -2.0], [(3, 4)] * 4)
    assert found == pytest.approx(
        {
            "rewards/chosen": 2.5 / 4,
            "rewards/rejected": 1.5 / 4,
            "rewards/sum": 4 / 4,
            "rewards/margins": 1 / 4,
            "rewards/accuracies": 2.5 / 4,
            "logps/chosen_change": 5 / 4,
        }
    )


def test_labelled_responses_are_compared_with_all_of_the_other_label() -> None:
    """Two desirable ones, three undesirable: the 0 that stands for what a row does not have counts nowhere."""
    found = watched([1.0, 0, 0, 3.0, 0], [0, 2.0, -1.0, 0, 1.0], [(3, 0), (0, 3), (0, 3), (3, 0), (0, 3)])
    assert found == pytest.approx(
        {
            "rewards/chosen": 4 / 2,
            "rewards/rejected": 2 / 3,
            "rewards/sum": 2 + 2 / 3,
            "rewards/margins": 2 - 2 / 3,
            "rewards/auc": (1.5 + 3) / 6,
            "logps/chosen_change": 8 / 2,
        }
    )


def test_responses_of_one_label_have_no_margin() -> None:
    found = watched([1.0, 3.0], [0.0, 0.0], [(3, 0), (3, 0)])
    assert found == pytest.approx({"rewards/chosen": 2.0, "logps/chosen_change": 4.0})
    assert figures(torch.empty((0, COLUMNS), dtype=torch.float64)) == {}
