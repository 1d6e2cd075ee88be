"""Types of losses: scores of responses in, one loss a pair out.

A loss declares in `needs` what it reads beside the scores: a column of the data (`score_gap`, or any other number that
a layout reads), which travels from the row to `PairScores.columns` under its name; or one of `COMPUTED`, which costs a
pass over the vocabulary or a reference model in memory, and is computed only where a loss needs it.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, ClassVar, NamedTuple, Protocol

import torch

from headwater.errors import DataError, UsageError

COMPUTED = frozenset({"self_likelihood", "divergence", "kl_estimate", "sorted_batch"})
"""Needs that are computed with the scores; every other need is a column that the data must have."""
MEANINGS = {"score_gap": "score of both responses"}
"""Columns that messages do not call by their names."""


class Score(NamedTuple):
    """Scores of one response of every pair, each [pairs]."""

    value: torch.Tensor
    """Reward; or log-probability of the response, Σ w_t log p(y_t)."""
    tokens: torch.Tensor
    """Number of its tokens; 0 where the row has no such response."""
    weight: torch.Tensor | None = None
    """Σ w_t; None where every token counts 1."""
    self_likelihood: torch.Tensor | None = None
    """Mean over tokens of log p(y_t) − log Σ_v p(v)²; about 0 for a sample of the model itself. Detached."""
    divergence: torch.Tensor | None = None
    """Σ w_t KL(π_ref ‖ π) of the next-token distributions along the response, nats."""

    @property
    def mean(self) -> torch.Tensor:
        """Weighted mean log-probability of a token; cutting by weights or in the data gives the same value."""
        return self.value / (self.tokens if self.weight is None else self.weight)


class PairScores(NamedTuple):
    """Scores of the responses of every pair."""

    chosen: Score
    rejected: Score
    columns: Mapping[str, torch.Tensor] = {}
    """Numbers of the pairs by name, each [pairs]: those that every pair of the batch has in the data (`score_gap`: the
    score of the chosen response less that of the rejected one), and `kl_estimate`, the same for all: the mean of
    log π − log π_ref over responses to other prompts of the batch, an estimate of KL(π ‖ π_ref)."""


class PairLoss(NamedTuple):
    """Loss and rewards, each [pairs]; rewards are detached and used for metrics only."""

    loss: torch.Tensor
    chosen_reward: torch.Tensor
    rejected_reward: torch.Tensor


class Loss(Protocol):
    """Interface of a loss; any such callable trains with `PairTrainer`."""

    needs_reference: ClassVar[bool]

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        """Return the loss of every pair; `reference` is None exactly when `needs_reference` is False."""
        ...


class LossBase:
    """Base of the losses here: a frozen dataclass whose `repr` is the constructor call that rebuilds it."""

    __slots__ = ()
    name: ClassVar[str]
    needs_reference: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset()
    """Columns and computed values that the loss reads beside log-probabilities or rewards."""
    takes_unpaired: ClassVar[bool] = False
    """Whether a row may hold one labelled response, with the other side empty."""

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        """Return the loss of every pair."""
        raise NotImplementedError

    def __repr__(self) -> str:
        """Return `name(setting=value, …)`."""
        fields: tuple[dataclasses.Field[Any], ...] = dataclasses.fields(self)  # type: ignore[arg-type]
        return f"{self.name}({', '.join(f'{field.name}={getattr(self, field.name)!r}' for field in fields)})"

    def _require(self, setting: str, holds: bool, expected: str) -> None:
        """Refuse a setting that is not finite, or does not hold. Errors: `UsageError`."""
        value = getattr(self, setting)
        if not (holds and math.isfinite(value)):
            raise UsageError(f"{self.name}({setting}={value})", f"{setting} must be {expected}")

    def _above_zero(self, *settings: str) -> None:
        for setting in settings:
            self._require(setting, getattr(self, setting) > 0, "above 0")

    def _not_negative(self, *settings: str) -> None:
        for setting in settings:
            self._require(setting, getattr(self, setting) >= 0, "0 or more")

    def _below_half(self, setting: str) -> None:
        self._require(setting, 0 <= getattr(self, setting) < 0.5, "in [0, 0.5): at 0.5 the labels carry no information")

    def _column(self, name: str, scores: PairScores) -> torch.Tensor:
        """Return a column of the pairs, [pairs]. Errors: `DataError` where a pair of the batch has none."""
        if name not in scores.columns:
            raise DataError(self.name, f"needs a {MEANINGS.get(name, name)} in every row", "use data that has it")
        return scores.columns[name]
