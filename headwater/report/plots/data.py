"""What inspection saw of a data set: how long its responses are, and by how much one of a pair is longer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import altair as alt

from headwater.report.inspected import inspection
from headwater.report.plots.drawing import BETTER, COLOURS, WORSE, Block, Chart, Mark, Panel, chart, finish
from headwater.results.runs import Run

SIDES = {"chosen": BETTER, "rejected": WORSE, "desirable": BETTER, "undesirable": WORSE, "responses": COLOURS[2]}


def response_lengths(runs: Sequence[Run]) -> list[Block]:
    """Draw how many responses are how long, a panel a data set."""
    found = [(run, inspection(run)["length_histogram"]) for run in runs if inspection(run)]
    return [
        Block("", [Mark(side, SIDES[side]) for side in binned["counts"]], [_lengths(run, binned)])
        for run, binned in found
    ]


def longer_by(runs: Sequence[Run]) -> list[Block]:
    """Draw which response of a pair is the longer one, by how much, a panel a data set of pairs."""
    found = [
        (run, inspection(run)["difference_histogram"]) for run in runs if "difference_histogram" in inspection(run)
    ]
    key = [Mark(f"{side} is longer", SIDES[side]) for side in ("chosen", "rejected")]
    return [Block("", key, [_differences(run, binned)]) for run, binned in found]


def _lengths(run: Run, binned: Mapping[str, Any]) -> Panel:
    medians = inspection(run)["characters"]
    says = ", ".join(f"median of {side} {medians[side]['p50']:.0f} characters" for side in binned["counts"])
    layers = [_area(binned, side, 1, "Length (characters)", "Responses") for side in binned["counts"]]
    return Panel("", f"{run.name}: {says}", _finished(layers))


def _differences(run: Run, binned: Mapping[str, Any]) -> Panel:
    more = {side: sum(counts) + binned["beyond"][side] for side, counts in binned["counts"].items()}
    says = f"{run.name}: chosen is longer in {more['chosen']} pairs, rejected in {more['rejected']}"
    signs = (("chosen", 1), ("rejected", -1))
    layers = [_area(binned, side, sign, "Chosen − rejected (characters)", "Pairs") for side, sign in signs]
    return Panel("", says, _finished(layers))


def _area(binned: Mapping[str, Any], side: str, sign: int, across: str, up: str) -> Any:
    edges, counts = binned["edges"], binned["counts"][side]
    corners = zip([edges[0], *edges], [0, *counts, 0], strict=True)
    # Drawn from left to right: in a mirrored one, a bin's height stands at its right end.
    rows = [{"x": sign * x, "y": y} for x, y in corners][::sign]
    x = alt.X("x:Q").title(across).scale(nice=False)
    line = {"color": SIDES[side], "strokeWidth": 1.2}
    steps: Literal["step-after", "step-before"] = "step-after" if sign > 0 else "step-before"
    area = chart(rows).mark_area(interpolate=steps, color=SIDES[side], fillOpacity=0.18, line=line)
    return area.encode(x=x, y=alt.Y("y:Q").title(up).axis(format="~s"))


def _finished(layers: Sequence[Any]) -> Chart:
    return finish(layers, height=150)
