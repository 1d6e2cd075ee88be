"""Options of signal measurements: how a model scores prefixes, and where the curve is measured."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from headwater.data.published import published_points
from headwater.data.tokens import TOKENS_PER_PASS
from headwater.data.truncation import Truncation, parse_keep
from headwater.data.turns import EndToken
from headwater.errors import UsageError
from headwater.noninferiority import MARGIN, check_margin
from headwater.results.signal import CurvePoint
from headwater.signals.curves import Grid

SPAN_RATIOS = ("20%", "50%")
"""Where a reward model scores other parts of a response by default: each takes a forward pass of its own."""


@dataclass(frozen=True)
class ScorerOptions:
    """Scoring options: how a model scores prefixes of responses."""

    reference: str | None = None
    """Reference model of a policy. Default: the one that its training run names."""
    beta: float | None = None
    """Scale of a policy's implicit reward, beta × (log π − log π_ref). Default: 0.1."""
    reward_head: int | None = None
    """Output, from 0, that is the reward in a reward model with several. Default: its only one."""
    end: EndToken | None = None
    """Which responses get an end-of-turn token: complete ones, always, or never; template gives complete ones all that
    the chat template writes behind them, such as a line break. Default: as in training; template for reward models
    from elsewhere, complete for policies."""
    max_length: int | None = None
    """Maximum number of tokens of a prompt with its longer response; longer pairs are dropped and counted. Default:
    2048, or the number of positions of the model if that is less."""
    tokens_per_pass: int | None = None
    """Maximum number of tokens in one forward pass of a model. Changes memory use, not the result. Default: 8192."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work. Errors: `UsageError`."""
        if self.beta is not None and self.beta <= 0:
            raise UsageError(f"--beta {self.beta:g}", "expected a value above 0", "such as 0.1")
        if self.max_length is not None and self.max_length < 2:
            raise UsageError(f"--max-length {self.max_length}", "expected 2 or more")

    def given(self) -> list[str]:
        """Return the names of the options that are set."""
        return [field.name for field in dataclasses.fields(self) if getattr(self, field.name) is not None]

    def check_head(self, model: str, head: Literal["policy", "reward"]) -> None:
        """Refuse options of a policy for a reward model, and the reverse. Errors: `UsageError`."""
        for name in ("reference", "beta") if head == "reward" else ():
            if getattr(self, name) is not None:
                raise UsageError(f"--{name}", f"{model} is a reward model", f"leave --{name} out")
        if head == "policy" and self.reward_head is not None:
            raise UsageError(f"--reward-head {self.reward_head}", f"{model} is a policy", "leave --reward-head out")


@dataclass(frozen=True)
class SignalOptions:
    """Curve options: where the signal curve is measured, and what is recommended from it."""

    ratios: tuple[str, ...] = ("5%", "10%", "20%", "30%", "40%", "50%", "60%", "70%", "80%", "90%")
    """Kept ratios to measure accuracy at, besides 100%."""
    amounts: tuple[int, ...] = (5, 10, 20, 50, 100, 200)
    """Kept amounts to measure accuracy at: tokens, or words without a model."""
    span_ratios: tuple[str, ...] | None = None
    """Kept ratios at which a reward model also scores the end, the middle and a random span; without a value, none.
    Default: 20% 50%."""
    margin: float = MARGIN
    """Percentage points of accuracy that the recommended ratio may lose."""
    published: str | None = None
    """Curve to draw behind, as FILE.json:NAME, where NAME holds [kept share or tokens, accuracy] pairs."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work. Errors: `UsageError`."""
        check_margin(self.margin)
        if any(amount < 1 for amount in self.amounts):
            raise UsageError("--amounts", "expected whole numbers above 0")

    def grid(self, model: str | None, head: Literal["policy", "reward"] | None, seed: int) -> Grid:
        """Return where the curve is measured, for a model with this head (None: words). Errors: `UsageError`."""
        if head == "policy" and self.span_ratios is not None:
            raise UsageError("--span-ratios", f"{model} is a policy, whose one pass scores every span", "leave it out")
        spans = self._span_ratios if head == "reward" else ()
        grid = Grid(parse_ratios([*self.ratios, *spans]), tuple(sorted(set(self.amounts))), seed=seed)
        if head is None:  # words are fitted anew at every point: fewer points keep that to seconds
            return dataclasses.replace(grid, cuts=("own", "equal"), parts=("suffix", "random-span"))
        return grid

    def spans(self, grid: Grid) -> list[Truncation]:
        """Return the parts of responses that a reward model scores in forward passes of their own."""
        at = [parse_keep(text) for text in self._span_ratios]
        return [span for span in grid.spans() if span.keep in at]

    @property
    def _span_ratios(self) -> tuple[str, ...]:
        return SPAN_RATIOS if self.span_ratios is None else self.span_ratios

    def published_curve(self, unit: str) -> list[CurvePoint]:
        """Return the published points, whose amounts above 1 count `unit`; none without one. Errors: `UsageError`."""
        points = published_points(self.published) if self.published else []
        ratios = all(x <= 1 for x, _ in points)
        return [
            CurvePoint(
                curve="published",
                cut="own",
                unit="ratio" if ratios else unit,
                amount=x,
                group="all",
                value=y,
                low=None,
                high=None,
                n=None,
                clusters=None,
            )
            for x, y in points
        ]


def parse_ratios(texts: Sequence[str]) -> tuple[Fraction, ...]:
    """Return the ratios of `--ratios` in ascending order, with 1 at the end. Errors: `UsageError`."""
    keeps = [parse_keep(text) for text in texts]
    other = next((text for text, keep in zip(texts, keeps, strict=True) if keep.unit != "ratio"), None)
    if other:
        raise UsageError(f"--ratios {other}", "is not a ratio", "amounts of tokens go to --amounts")
    found = tuple(sorted({keep.amount for keep in keeps} | {Fraction(1)}))
    if len(found) < 2:
        raise UsageError("--ratios", "holds nothing below 100%", "name ratios to compare with it, such as 25% 50%")
    return found


@dataclass(frozen=True)
class DivergenceOptions:
    """Divergence options: the responses along which KL(policy ‖ reference) is measured, and how."""

    along: Literal["texts", "samples"] = "texts"
    """Responses along which KL is measured: texts are both responses of every pair; samples, two responses that the
    policy draws to every prompt."""
    draws: int = 0
    """Monte-Carlo draws a position, to compare with the exact sum over the vocabulary; 0 for none."""
    max_new_tokens: int | None = None
    """Maximum number of tokens of a sample. Default: 256."""
    max_length: int | None = None
    """Maximum number of tokens of a prompt with its longer response; longer pairs are dropped and counted. Default:
    2048, or the number of positions of both models if that is less."""
    tokens_per_pass: int = TOKENS_PER_PASS
    """Maximum number of tokens in one forward pass. Changes memory use, not the result."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work. Errors: `UsageError`."""
        if self.max_new_tokens is not None and self.along == "texts":
            raise UsageError("--max-new-tokens", "is about samples", "add --along samples")
        if self.max_new_tokens is not None and self.max_new_tokens < 1:
            raise UsageError(f"--max-new-tokens {self.max_new_tokens}", "expected 1 or more")
        if self.draws < 0:
            raise UsageError(f"--draws {self.draws}", "expected 0 or more")
