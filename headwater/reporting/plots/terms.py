"""Words that tell chosen from rejected responses, as a cloud and as a list with z scores."""

from __future__ import annotations

from collections.abc import Sequence

import altair as alt

from headwater.reporting.findings import count, number
from headwater.reporting.plots.cloud import lay
from headwater.reporting.plots.drawing import (
    CHOSEN,
    GREY,
    PANEL_WIDTH,
    REJECTED,
    Block,
    Mark,
    Panel,
    Rows,
    chart,
    finish,
)
from headwater.results.inspection import Inspection, TermContrast
from headwater.results.runs import Run

CLOUDED, LISTED = 30, 10
"""Number of words of either side in the cloud, and in the list."""
CLOUD = (PANEL_WIDTH, 300)
SIDES = {"chosen": CHOSEN, "rejected": REJECTED}


def term_contrast(runs: Sequence[Run]) -> list[Block]:
    """Draw the words with the largest |z|, a block a data set of pairs."""
    found = [inspection.terms for run in runs if (inspection := Inspection.find(run.path))]
    key = [Mark(f"more in {side} responses", colour) for side, colour in SIDES.items()]
    return [
        Block("", key, [_cloud(terms), *_side_clouds(terms), _list(terms)]) for terms in found if terms and _rows(terms)
    ]


def _rows(terms: TermContrast, most: int | None = None) -> Rows:
    sides = {"chosen": terms.chosen, "rejected": terms.rejected}
    return [row._asdict() | {"side": side} for side, rows in sides.items() for row in rows[:most]]


def _tooltip() -> list[alt.Tooltip]:
    names = {"term": "term", "z": "z", "log_odds": "log-odds ratio", "chosen": "in chosen", "rejected": "in rejected"}
    formats = {"z": ".3~g", "log_odds": ".3~g", "chosen": ",d", "rejected": ",d"}
    return [
        alt.Tooltip(f"{field}:{'Q' if field in formats else 'N'}", title=title, format=formats.get(field, ""))
        for field, title in names.items()
    ]


def _colour() -> alt.Color:
    return alt.Color("side:N").scale(domain=list(SIDES), range=list(SIDES.values())).legend(None)


def _cloud(terms: TermContrast) -> Panel:
    rows = {(row["side"], row["term"]): row for row in _rows(terms, CLOUDED)}
    width, height = CLOUD
    placed = lay([(term, abs(row["z"])) for (_, term), row in rows.items()], width, height)
    by_term = {term: row for (_, term), row in rows.items()}
    drawn = [by_term[word] | {"x": x, "y": y, "size": size} for word, x, y, size in placed]
    words = chart(drawn).mark_text(align="center", baseline="middle")
    encoded = words.encode(
        x=alt.X("x:Q").scale(domain=[0, width], nice=False).axis(None),
        y=alt.Y("y:Q").scale(domain=[height, 0], nice=False).axis(None),
        text="term:N",
        size=alt.Size("size:Q").scale(None).legend(None),
        color=_colour(),
        tooltip=_tooltip(),
    )
    says = f"{len(drawn)} words, larger ones with larger z: {_listed(drawn[:LISTED])}"
    return Panel("Cloud", says, finish([encoded], width, height))


def _side_clouds(terms: TermContrast) -> list[Panel]:
    """Return a cloud of the most frequent words of either side; none for runs that stored none."""
    panels = []
    for (side, colour), words in zip(SIDES.items(), (terms.frequent_chosen, terms.frequent_rejected), strict=True):
        if not words:
            continue
        width, height = CLOUD
        counts = dict(words[:CLOUDED])
        placed = lay([(word, float(n)) for word, n in counts.items()], width, height)
        rows = [{"term": word, "x": x, "y": y, "size": size, "count": counts[word]} for word, x, y, size in placed]
        drawn = chart(rows).mark_text(align="center", baseline="middle", color=colour)
        encoded = drawn.encode(
            x=alt.X("x:Q").scale(domain=[0, width], nice=False).axis(None),
            y=alt.Y("y:Q").scale(domain=[height, 0], nice=False).axis(None),
            text="term:N",
            size=alt.Size("size:Q").scale(None).legend(None),
            tooltip=[alt.Tooltip("term:N", title="term"), alt.Tooltip("count:Q", title="count", format=",d")],
        )
        listed = ", ".join(f"{word} {count(n)}" for word, n in list(counts.items())[:LISTED])
        panels.append(Panel(f"Frequent in {side}", f"frequent in {side}: {listed}", finish([encoded], width, height)))
    return panels


def _list(terms: TermContrast) -> Panel:
    rows = sorted(_rows(terms, LISTED), key=lambda row: -row["z"])
    y = alt.Y("term:N").title(None).sort([row["term"] for row in rows]).axis(labelLimit=120, ticks=False)
    x = alt.X("z:Q").title("z of the log-odds ratio")
    base = chart(rows).encode(y=y, color=_colour(), tooltip=_tooltip())
    layers = [
        chart([{"x": 0}]).mark_rule(color=GREY).encode(x=alt.X("x:Q").title("z of the log-odds ratio")),
        base.mark_rule(strokeWidth=1.5).encode(x=x, x2=alt.X2Datum(0)),
        base.mark_point(filled=True, size=40, opacity=1).encode(x=x),
    ]
    return Panel("Strongest", f"{_counted(terms)}: {_listed(rows)}", finish(layers, height=40 + 13 * len(rows)))


def _counted(terms: TermContrast) -> str:
    chosen, rejected = (count(words) for words in terms.words)
    return f"{count(terms.pairs)} pairs, {chosen} words in chosen and {rejected} in rejected responses"


def _listed(rows: Rows) -> str:
    return ", ".join(f"{row['term']} {number(row['z'], 1)}" for row in rows)
