"""Tables of judgements and comparisons, for a terminal: win rates, scores, lengths, agreement, win matrix, examples."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from rich.table import Table

from headwater.evaluation.agreement import Agreement
from headwater.evaluation.judgements import Judgement, count_comparisons
from headwater.evaluation.judging import Requests, by_judge
from headwater.evaluation.policies import Standing
from headwater.evaluation.policy_comparison import PolicyComparison
from headwater.marks import visible
from headwater.results.comparison import (
    ExampleAnswers,
    JudgedFigures,
    ModelExamples,
    ModelFigure,
    WinShare,
)
from headwater.statistics import LEVEL, Estimate

_LONGEST = 60
"""Characters of a prompt."""


def comparison(found: PolicyComparison, level: str, show_official: bool) -> Iterator[Table]:
    """Yield the tables of a comparison that have something to show; `level` names that of the intervals of win rates.

    `show_official` also yields AlpacaEval's own figures.
    """
    heads: dict[ModelFigure, str] = {
        "win_rate": f"win rate ({level})",
        "lc_win_rate": f"at equal length ({found.length_control})",
        "strength": "strength",
    }
    judges = list(dict.fromkeys(one.judge for one in found.standings))
    tables = [
        *(standings(found, judge, heads) for judge in judges),
        matrix(found.standings, found.figures, found.baseline),
        lengths(found.standings, found.figures),
        agreement(found.agreements),
        differences(found.differences),
        *(wins(found.tables.win_matrix, judge) for judge in judges),
        extremes(found.tables.examples),
        official(found) if show_official else None,
    ]
    yield from (table for table in tables if table is not None)


def cell(found: Estimate | None, undefined: str = "") -> str:
    """Return a figure with its interval; "undefined", with the reason, where it is not known and a reason is given."""
    if undefined and (found is None or np.isnan(found.value)):
        return f"undefined: {undefined}"
    if found is None or found.low is None or found.high is None:
        return "–" if found is None else f"{found.value:.3f} (n too small)"
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _table(title: str, *heads: str) -> Table:
    table = Table(title=title, title_justify="left")
    for head in heads:
        table.add_column(head, overflow="fold")
    return table


def _by_judge(title: str, heads: Sequence[str], rows: Sequence[tuple[str, Sequence[str]]]) -> Table:
    """Return a table of rows of a judge each; a single judge stands in the title, so that columns have more room."""
    judges = {judge for judge, _ in rows}
    if len(judges) == 1:
        table = _table(f"{title}, by {judges.pop()}", *heads)
        for _, cells in rows:
            table.add_row(*cells)
        return table
    table = _table(title, "judge", *heads)
    for judge, cells in rows:
        table.add_row(judge, *cells)
    return table


def requests(found: Sequence[Requests]) -> Table:
    """Return the number of requests that each LLM judge takes."""
    table = _table("plan", "judge", "requests", "of them in the journal", "to make")
    for judge, every, left in found:
        table.add_row(judge, f"{every:,}", f"{every - left:,}", f"{left:,}")
    return table


def judged(judgements: Sequence[Judgement], figures: JudgedFigures) -> Table:
    """Return the win rate of every model by every judge, and why comparisons have no verdict."""
    heads = ("judge", "model", "win rate", f"{LEVEL:.0%} interval", "votes", "pairs without a verdict")
    table = _table(f"share of votes against {judgements[0].first}", *heads)
    for judge, own in by_judge(judgements).items():
        for model in dict.fromkeys(one.second for one in own):
            rate = figures.of_model("win_rate", judge, model)
            cells = (f"{rate.value:.4f}", rate.interval(), str(rate.n)) if rate else ("–", "–", "0")
            missing = count_comparisons([one for one in own if one.second == model]).dropped
            table.add_row(judge, model, *cells, ", ".join(f"{name} {count}" for name, count in missing.items()) or "0")
    return table


def matrix(found: Sequence[Standing], figures: JudgedFigures, baseline: str) -> Table | None:
    """Return the win rates of models (rows) by judges (columns); None for a single judge."""
    judges, models = (list(dict.fromkeys(names)) for names in zip(*((o.judge, o.model) for o in found), strict=True))
    if len(judges) < 2:
        return None
    table = _table(f"win rate against {baseline}", "model", *(f"by {judge}" for judge in judges))
    for model in models:
        table.add_row(model, *(cell(figures.of_model("win_rate", judge, model)) for judge in judges))
    return table


def standings(found: PolicyComparison, judge: str, heads: Mapping[ModelFigure, str]) -> Table:
    """Return the models under one judge, strongest first, with those figures of `heads` that any model has.

    `heads` are column names by figure. Models are sorted by their Bradley–Terry strength, or else their win rate.
    """

    def strength(one: Standing) -> float:
        known = figures.of_model("strength", judge, one.model) or figures.of_model("win_rate", judge, one.model)
        assert known is not None  # every model has a win rate
        return -known.value

    figures = found.figures
    models = sorted((one for one in found.standings if one.judge == judge), key=strength)
    shown = {f: h for f, h in heads.items() if any(figures.of_model(f, judge, one.model) for one in models)}
    table = _table(f"by {judge}", "model", *shown.values(), "pairs")
    for one in models:
        why = {"lc_win_rate": found.undefined.get((judge, one.model), "")}
        cells = [cell(figures.of_model(figure, judge, one.model), why.get(figure, "")) for figure in shown]
        table.add_row(one.model, *cells, str(len(one.opinions)))
    return table


def official(found: PolicyComparison) -> Table:
    """Return AlpacaEval's own figures, in per cent, with its standard errors."""
    heads = ("model", "win rate (error)", "discrete", "at equal length (error)", "won", "lost", "drawn")
    rows = []
    for one in found.tables.official:
        rates = _with_error(one.win_rate, one.standard_error), f"{one.discrete_win_rate:.2f}"
        why = found.undefined.get((one.judge, one.model), "")
        controlled = _with_error(one.length_controlled_winrate, one.lc_standard_error)
        at_equal_length = f"undefined: {why}" if why else controlled
        counts = map(str, (one.n_wins, one.n_wins_base, one.n_draws))
        rows.append((one.judge, (one.model, *rates, at_equal_length, *counts)))
    return _by_judge("as AlpacaEval counts, in per cent (standard error)", heads, rows)


def _with_error(rate: float | None, error: float | None) -> str:
    return "–" if rate is None else f"{rate:.2f}" if error is None else f"{rate:.2f} ({error:.2f})"


def lengths(found: Sequence[Standing], figures: JudgedFigures) -> Table | None:
    """Return how much better and how much longer the models' answers are, and the correlation of both."""
    heads: dict[ModelFigure, str] = {
        "score_difference": "score, less the baseline's",
        "length_difference": "characters longer",
        "length_correlation": "rank correlation of length and gain",
    }
    known = {f: h for f, h in heads.items() if any(figures.of_model(f, one.judge, one.model) for one in found)}
    if not known:
        return None
    rows = [
        (one.judge, (one.model, *(cell(figures.of_model(figure, one.judge, one.model)) for figure in known)))
        for one in found
    ]
    return _by_judge("score and length", ("model", *known.values()), rows)


def agreement(found: Sequence[Agreement]) -> Table | None:
    """Return the agreement of every two judges; None for a single judge."""
    if not found:
        return None
    table = _table("agreement of judges", "judges", "same winner", "Cohen's κ", "rank correlation", "n")
    for one in found:
        kappa = cell(one.kappa, "both judges use one category")
        rank = cell(one.rank, "the preferences of a judge do not vary")
        table.add_row(" ~ ".join(one.judges), cell(one.same), kappa, rank, str(one.same.n))
    return table


def differences(found: Mapping[tuple[str, str, str], Estimate]) -> Table | None:
    """Return how much more a judge prefers one model than another, on the same prompts; None for a single model."""
    if not found:
        return None
    rows = [
        (judge, (f"{model} − {other}", cell(estimate), str(estimate.n)))
        for (judge, model, other), estimate in found.items()
    ]
    return _by_judge(f"preferred more, prompt by prompt ({LEVEL:.0%} interval)", ("models", "by", "n"), rows)


def wins(found: Sequence[WinShare], judge: str) -> Table | None:
    """Return the share of a judge's votes of the row's model against the column's; None for two models."""
    matrix = {(one.model, one.opponent): one.share for one in found if one.judge == judge}
    models = list(dict.fromkeys(model for model, _ in matrix))
    if len(models) < 3:
        return None
    table = _table(f"votes of the row against the column, by {judge}", "", *models)
    for model in models:
        met = [matrix.get((model, opponent)) for opponent in models]
        table.add_row(model, *("–" if share is None else f"{share:.3f}" for share in met))
    return table


def extremes(found: Sequence[ModelExamples]) -> Table | None:
    """Return the prompt on which each model gained and lost most; None where no examples are kept."""
    if not any(one.improved or one.degraded for one in found):
        return None
    rows = [(one.judge, (one.model, _prompt(one.improved), _prompt(one.degraded))) for one in found]
    return _by_judge("most improved and most degraded", ("model", "gained most on", "lost most on"), rows)


def _prompt(side: Sequence[ExampleAnswers]) -> str:
    if not side:
        return "–"
    text = visible(side[0].prompt)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
