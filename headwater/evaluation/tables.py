"""What a comparison shows in a terminal: policies under judges, scores and lengths, agreement, who beat whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from headwater.evaluation.agreement import Agreement
from headwater.evaluation.policies import Standing
from headwater.marks import visible
from headwater.statistics import LEVEL, Estimate

Metrics = Mapping[str, Estimate]
"""By figure/judge/model, as `headwater compare` writes them."""
_LONGEST = 60
"""Characters of a prompt."""


def cell(found: Estimate | None) -> str:
    """Return a figure with its interval."""
    if found is None or found.low is None or found.high is None:
        return "–" if found is None else f"{found.value:.3f} (n too small)"
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _table(title: str, *heads: str) -> Table:
    table = Table(title=title, title_justify="left")
    for head in heads:
        table.add_column(head, overflow="fold")
    return table


def matrix(found: Sequence[Standing], metrics: Metrics, baseline: str) -> Table | None:
    """Return models by judges, with win rates; None where one judge says it all."""
    judges, models = (list(dict.fromkeys(names)) for names in zip(*((o.judge, o.model) for o in found), strict=True))
    if len(judges) < 2:
        return None
    table = _table(f"win rate against {baseline}", "model", *(f"by {judge}" for judge in judges))
    for model in models:
        table.add_row(model, *(cell(metrics.get(f"win_rate/{judge}/{model}")) for judge in judges))
    return table


def standings(found: Sequence[Standing], metrics: Metrics, judge: str, names: Mapping[str, str]) -> Table:
    """Return the models under one judge, strongest first, with those figures in `names` that are known of any.

    `names` are heads by figure; models are as strong as their Bradley–Terry strength, or else their win rate.
    """

    def strength(one: Standing) -> float:
        rate = metrics[f"win_rate/{judge}/{one.model}"]
        return -metrics.get(f"strength/{judge}/{one.model}", rate).value

    models = sorted((one for one in found if one.judge == judge), key=strength)
    heads = {n: h for n, h in names.items() if any(f"{n}/{judge}/{one.model}" in metrics for one in models)}
    table = _table(f"by {judge}", "model", *heads.values(), "prompts")
    for one in models:
        cells = [cell(metrics.get(f"{name}/{judge}/{one.model}")) for name in heads]
        table.add_row(one.model, *cells, str(len(one.opinions)))
    return table


def official(found: Sequence[Mapping[str, Any]]) -> Table:
    """Return AlpacaEval's own figures, in per cent with its standard errors."""
    heads = ("win rate", "standard error", "discrete", "at equal length", "its standard error", "won", "lost", "drawn")
    columns = ("win_rate", "standard_error", "discrete_win_rate", "length_controlled_winrate", "lc_standard_error")
    table = _table("as AlpacaEval counts", "judge", "model", *heads)
    for one in found:
        rates = (one.get(column) for column in columns)
        counts = (str(one[column]) for column in ("n_wins", "n_wins_base", "n_draws"))
        table.add_row(one["judge"], one["model"], *("–" if r is None else f"{r:.2f}" for r in rates), *counts)
    return table


def lengths(found: Sequence[Standing], metrics: Metrics) -> Table | None:
    """Return how much better and how much longer the models' answers are, and whether one goes with the other."""
    heads = {
        "score_difference": "score, less the baseline's",
        "length_difference": "characters longer",
        "length_correlation": "rank correlation of length and gain",
    }
    rows = [[metrics.get(f"{name}/{one.judge}/{one.model}") for name in heads] for one in found]
    if not any(figure for row in rows for figure in row):
        return None
    table = _table("score and length", "judge", "model", *heads.values())
    for one, row in zip(found, rows, strict=True):
        table.add_row(one.judge, one.model, *map(cell, row))
    return table


def agreement(found: Sequence[Agreement]) -> Table | None:
    """Return how far every two judges agree; None for a single judge."""
    if not found:
        return None
    table = _table("agreement of judges", "judges", "same winner", "Cohen's κ", "rank correlation", "n")
    for one in found:
        table.add_row(" ~ ".join(one.judges), cell(one.same), cell(one.kappa), cell(one.rank), str(one.same.n))
    return table


def differences(found: Mapping[tuple[str, str, str], Estimate]) -> Table | None:
    """Return how much more a judge prefers one model than another, on the same prompts; None for a single model."""
    if not found:
        return None
    table = _table(f"preferred more, prompt by prompt ({LEVEL:.0%} interval)", "judge", "models", "by", "n")
    for (judge, model, other), estimate in found.items():
        table.add_row(judge, f"{model} − {other}", cell(estimate), str(estimate.n))
    return table


def wins(beaten: Sequence[Mapping[str, Any]], judge: str) -> Table | None:
    """Return who beat whom, the row's model against the column's; None for two models."""
    matrix = {(one["model"], one["opponent"]): one["share"] for one in beaten}
    models = list(dict.fromkeys(model for model, _ in matrix))
    if len(models) < 3:
        return None
    table = _table(f"votes of the row against the column, by {judge}", "", *models)
    for model in models:
        met = [matrix.get((model, opponent)) for opponent in models]
        table.add_row(model, *("–" if share is None else f"{share:.3f}" for share in met))
    return table


def extremes(found: Sequence[Mapping[str, Any]]) -> Table | None:
    """Return on which prompt each model gained and lost most; None where no examples are kept."""
    rows = [(one["judge"], one["model"], one["improved"][:1], one["degraded"][:1]) for one in found]
    if not any(improved or degraded for _, _, improved, degraded in rows):
        return None
    table = _table("most improved and most degraded", "judge", "model", "gained most on", "lost most on")
    for judge, model, *sides in rows:
        table.add_row(judge, model, *(_prompt(side) for side in sides))
    return table


def _prompt(side: Sequence[Mapping[str, Any]]) -> str:
    if not side:
        return "–"
    text = visible(str(side[0]["prompt"]))
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
