"""Weighted sums of losses: `mix(dpo(beta=0.1)*0.8 + sft()*0.2)`."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

from headwater.errors import UsageError
from headwater.losses.sorted_batch import SORTED
from headwater.losses.types import LossBase, PairLoss, PairScores


@dataclass(frozen=True, slots=True, repr=False)
class Mix(LossBase):
    """Σ weight · loss, as in mixed preference optimisation (MPO, arXiv:2411.10442, eq. 1).

    Rewards are those of the first loss. A loss that sorts the batch (`aot`) cannot be part of it.

    >>> worked(Mix(((DPO(beta=0.5), 0.8), (SFT(), 0.2))))  # −0.8 log σ(1) + 0.2 · 1/4
    0.3006
    """

    name: ClassVar[str] = "mix"
    terms: tuple[tuple[LossBase, float], ...]

    def __post_init__(self) -> None:
        for loss, weight in self.terms:
            if not (weight > 0 and math.isfinite(weight)):
                raise UsageError(f"{loss!r}*{weight!r}", "the weight must be above 0")
            if loss.needs & SORTED:
                raise UsageError(repr(self), f"{loss.name} sorts the whole batch", "leave it out of mix(…)")

    def __repr__(self) -> str:
        """Return the call that builds the mixture again."""
        return f"mix({' + '.join(f'{loss!r}*{weight!r}' for loss, weight in self.terms)})"

    @property
    def needs_reference(self) -> bool:  # type: ignore[override]  # of an instance here, of a class elsewhere
        """Whether any of the losses reads the reference."""
        return any(loss.needs_reference for loss, _ in self.terms)

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """Columns and computed values that any of the losses reads."""
        return frozenset().union(*(loss.needs for loss, _ in self.terms))

    def __call__(self, policy: PairScores, reference: PairScores | None) -> PairLoss:
        """Return the weighted sum, with the rewards of the first loss."""
        results = [loss(policy, reference if loss.needs_reference else None) for loss, _ in self.terms]
        weighted = [weight * found.loss for found, (_, weight) in zip(results, self.terms, strict=True)]
        return results[0]._replace(loss=sum(weighted[1:], weighted[0]))
