"""Embedded responses as points: which are alike, and whether chosen and rejected responses lie apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt
import numpy as np

from headwater.reporting.findings import distinct, labels, percent
from headwater.reporting.plots.drawing import CHOSEN, REJECTED, Block, Mark, Panel, chart, finish
from headwater.results.embedding import Embedding
from headwater.results.runs import Run

SIDES = {"chosen": CHOSEN, "rejected": REJECTED}
HEIGHT = 260


def response_embeddings(runs: Sequence[Run]) -> list[Block]:
    """Draw PCA and t-SNE of responses, a block a run that embedded some."""
    runs = distinct(runs)
    names = labels(runs)
    return [_block(names[run.path], found) for run in runs if (found := Embedding.find(run.path))]


def _block(name: str, found: Embedding) -> Block:
    first, second = (percent(round(share, 3)) for share in found.explained)
    pca, tsne = [point.pca for point in found.points], [point.tsne for point in found.points]
    panels = [
        _panel(found, pca, "PCA", f"First component ({first} of variance)", f"Second component ({second})"),
        _panel(found, tsne, "t-SNE", "t-SNE 1", "t-SNE 2"),
    ]
    return Block(f"{name}: {found.of}", [Mark(side, colour) for side, colour in SIDES.items()], panels)


def _panel(found: Embedding, places: Sequence[tuple[float, float]], title: str, across: str, up: str) -> Panel:
    rows = [
        {"name": point.id, "side": point.side, "x": x, "y": y}
        for point, (x, y) in zip(found.points, places, strict=True)
    ]
    points = chart(rows).mark_point(filled=True, size=16, opacity=0.6)
    encoded = points.encode(
        x=alt.X("x:Q").title(across).scale(zero=False),
        y=alt.Y("y:Q").title(up).scale(zero=False),
        color=alt.Color("side:N").scale(domain=list(SIDES), range=list(SIDES.values())).legend(None),
    )
    return Panel(title, f"{found.pairs} pairs; {_apart(rows)}", finish([encoded], height=HEIGHT))


def _apart(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the distance of the means of the two sides, in standard deviations along either axis."""
    points = {side: np.array([[row["x"], row["y"]] for row in rows if row["side"] == side]) for side in SIDES}
    spread = np.concatenate(list(points.values())).std(axis=0)
    apart = np.abs(points["chosen"].mean(axis=0) - points["rejected"].mean(axis=0)) / np.where(spread > 0, spread, 1)
    return f"means of chosen and rejected lie {apart[0]:.2f} and {apart[1]:.2f} standard deviations apart"
