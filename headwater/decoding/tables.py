"""Tables of decoded responses and of frontiers for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from headwater.data.generated import differences
from headwater.marks import visible
from headwater.results.decoding import DecodedResponse, FrontierPoint
from headwater.statistics import LEVEL, Estimate

SHOWN = 3
"""Responses that are printed."""


def decode_tables(
    strategy: str, metrics: Mapping[str, Estimate], speed: Mapping[str, float], responses: Sequence[DecodedResponse]
) -> Iterator[RenderableType]:
    """Yield the means a response, the speed of decoding, and a few responses."""
    table = Table("a response", "mean", f"{LEVEL:.0%} interval", "n", title=strategy, title_justify="left")
    for name, estimate in metrics.items():
        table.add_row(name.replace("_", " "), f"{estimate.value:.4f}", estimate.interval(), str(estimate.n))
    yield table
    if "kl" in metrics:
        yield "KL in nats, summed over a response: kl of what was used, kl policy of the policy, from the reference"
    accepted = f"; {speed['drafts_taken']:.1%} of the drafts taken" if "drafts_taken" in speed else ""
    models = [each for each in ("policy", "reference") if f"tokens_read_by_{each}" in speed]
    read = "".join(f"; {each} read {speed[f'tokens_read_by_{each}']:,.0f}" for each in models)
    yield f"{speed['tokens']:,.0f} tokens, {speed['tokens_per_second']:.1f} a second{read}{accepted}"
    if others := differences([one.same_tokens for one in responses]):
        yield others
    for one in responses[:SHOWN]:
        yield Text(f"{one.id}: {visible(one.response)[:200]}")


def frontier_table(points: Sequence[FrontierPoint], reward_model: str) -> Iterator[RenderableType]:
    """Yield a row a strategy, by KL, with intervals beneath the figures."""
    what = f"reward by {Path(reward_model).name} against KL from the reference; {LEVEL:.0%} intervals, n = responses"
    heads = ("strategy", "KL", "reward", "above baseline")
    table = Table(*heads, "n", title=what, title_justify="left", show_lines=True)
    for column in table.columns:
        column.no_wrap = True
    for point in sorted(points, key=lambda point: point.kl.value):
        cells = ["–" if found is None else _cell(found) for found in (point.kl, point.reward, point.gap)]
        table.add_row(point.name.replace("(", "\n(", 1), *cells, str(point.reward.n))
    yield table
    yield "KL: nats a response. Above baseline: reward over interpolation's at equal KL; – for the baseline itself,"
    yield "and beyond what it reaches. best_of: KL is an upper bound; picked by the first reward model."


def _cell(found: Estimate) -> str:
    bounds = "n too small" if found.low is None else f"{found.low:.3g}…{found.high:.3g}"
    return f"{found.value:.4g}\n{bounds}"
