"""Settings of low-rank adapters; imports neither torch nor peft."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class LoraOptions:
    """Options of low-rank adapters (arXiv:2106.09685), trained in place of all weights."""

    rank: int
    alpha: int | None = None
    """Scaling of the adapters, divided by their rank. Default: 2 × rank."""
    dropout: float | None = None
    """Dropout of the adapters' input. Default: 0."""
    target_modules: str | None = None
    """Endings of module names, separated by commas. Default: all linear modules except the output head."""

    def targets(self) -> list[str]:
        """Return the endings of module names; none means all linear modules."""
        return [name.strip() for name in (self.target_modules or "").split(",") if name.strip()]
