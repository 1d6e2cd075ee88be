"""Results of `judge` and `compare`: figures by judge and model, a record a comparison, win matrix and examples."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from headwater.results.stored import StoredResult
from headwater.statistics import Estimate

ModelFigure = Literal[
    "win_rate",
    "lc_win_rate",
    "minimal_lc_win_rate",
    "score_difference",
    "length_difference",
    "length_correlation",
    "strength",
]
"""Figures of a model under a judge; `lc_win_rate` is the win rate at equal length, and `minimal_lc_win_rate` what
length alone says of it without AlpacaEval's data."""
JudgeFigure = Literal["prefers_first"]
"""How often a judge prefers the answer that it is shown first; ½ is no bias."""
JudgesFigure = Literal["agreement", "kappa", "rank"]
"""Figures of two judges on the comparisons that both made."""


def of_model(figure: ModelFigure | str, judge: str, model: str) -> str:
    """Return the name of a figure of a model under a judge among the metrics of a run."""
    return f"{figure}/{judge}/{model}"


def of_judges(figure: JudgesFigure, judges: tuple[str, str]) -> str:
    """Return the name of a figure of two judges among the metrics of a run."""
    return f"{figure}/{' ~ '.join(judges)}"


def of_judge(figure: JudgeFigure, judge: str) -> str:
    """Return the name of a figure of one judge among the metrics of a run."""
    return f"{figure}/{judge}"


@dataclass(frozen=True)
class JudgedFigures(StoredResult):
    """Figures with intervals over prompts, by the names of `of_model`, `of_judge` and `of_judges`."""

    FILE: ClassVar[str] = "metrics.json"

    figures: Mapping[str, Estimate]

    def of_model(self, figure: ModelFigure, judge: str, model: str) -> Estimate | None:
        """Return a figure of a model under a judge; None where it is not known."""
        return self.figures.get(of_model(figure, judge, model))

    def of_judge(self, figure: JudgeFigure, judge: str) -> Estimate | None:
        """Return a figure of a judge; None where it is not known."""
        return self.figures.get(of_judge(figure, judge))

    def of_judges(self, figure: JudgesFigure, judges: tuple[str, str]) -> Estimate | None:
        """Return a figure of two judges; None where they share no comparison."""
        return self.figures.get(of_judges(figure, judges))


@dataclass(frozen=True)
class ComparedAnswers:
    """A judge's preference between a model's and the baseline's answer to one prompt, over all of its votes."""

    judge: str
    model: str
    baseline: str
    prompt: str
    category: str
    preference: float
    """For the model, 0 to 1."""
    baseline_score: float | None
    model_score: float | None
    baseline_length: int | None
    """In characters."""
    model_length: int | None


@dataclass(frozen=True)
class ComparedPrompts(StoredResult):
    """All comparisons that have a verdict and show the baseline."""

    FILE: ClassVar[str] = "records.parquet"

    records: tuple[ComparedAnswers, ...]


@dataclass(frozen=True)
class OfficialFigures:
    """AlpacaEval's own figures of one model under one judge, rates in per cent (tatsu-lab/alpaca_eval)."""

    judge: str
    model: str
    win_rate: float
    standard_error: float
    n_wins: int
    n_wins_base: int
    n_draws: int
    n_total: int
    discrete_win_rate: float
    length_controlled_winrate: float | None = None
    lc_standard_error: float | None = None
    length_control: str | None = None
    """Which terms the length model has: official, difficulty or minimal."""
    weights: Mapping[str, float] | None = None
    """Coefficients of the length model, by upstream's names."""


@dataclass(frozen=True)
class WinShare:
    """Share of a judge's votes for a model against an opponent, ties ½."""

    judge: str
    model: str
    opponent: str
    share: float
    n: int


@dataclass(frozen=True)
class ExampleAnswers:
    """A prompt with both answers."""

    prompt: str
    preference: float
    scores: tuple[float, float] | None
    """Rewards of baseline and model, of a judge that gives them."""
    baseline: str
    model: str


@dataclass(frozen=True)
class ModelExamples:
    """The prompts on which a model gained and lost most against the baseline, by one judge."""

    judge: str
    model: str
    improved: tuple[ExampleAnswers, ...]
    degraded: tuple[ExampleAnswers, ...]


@dataclass(frozen=True)
class ComparisonTables(StoredResult):
    """Official figures, win matrix and examples of a comparison."""

    FILE: ClassVar[str] = "comparison.json"

    official: tuple[OfficialFigures, ...] = ()
    win_matrix: tuple[WinShare, ...] = ()
    examples: tuple[ModelExamples, ...] = ()
