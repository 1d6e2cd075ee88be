"""Draw the figures of docs/concepts from the tables of docs/log.md, so that no figure has a number of its own.

python -m benchmarks.concept_figures     # writes docs/images/*.svg
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import altair
import vl_convert

DOCS = Path(__file__).parents[1] / "docs"
FIRST, SECOND = "#00796b", "#c2571a"
Rows = list[dict[str, Any]]


def table(heading: str) -> list[list[str]]:
    """Return the rows of the first table below a heading of the log, without its head."""
    log = (DOCS / "log.md").read_text(encoding="utf-8")
    entry = log.partition(heading)[2].partition("\n## ")[0]
    found = re.search(r"((?:^\|.*\n)+)", entry, flags=re.MULTILINE)
    if found is None:
        raise SystemExit(f"docs/log.md has no table below {heading!r}")
    return [[cell.strip() for cell in line.strip("|\n ").split("|")] for line in found[1].splitlines()[2:]]


def numbers(text: str) -> list[float]:
    """Return all numbers of a text, with a minus sign of either kind."""
    return [float(one.replace("−", "-")) for one in re.findall(r"[-−]?\d+(?:\.\d+)?", text.replace(",", ""))]


def shallow_signal() -> altair.TopLevelMixin:
    """Return accuracy on beginnings and ends of three data sets, beside that of length alone."""
    rows: Rows = []
    for name, _, *shares, whole, length, ends in table("Where HH and UltraFeedback are decided"):
        alone = numbers(length)[0]
        for kept, cell in zip((10, 20, 50, 100), (*shares, whole), strict=True):
            rows.append(
                {"data": name, "kept": kept, "accuracy": numbers(cell)[0], "read": "beginning", "length": alone}
            )
        for kept, end in zip((10, 50), numbers(ends), strict=True):
            rows.append({"data": name, "kept": kept, "accuracy": end, "read": "end", "length": alone})
    colour = altair.Color("read:N", scale=altair.Scale(domain=["beginning", "end"], range=[FIRST, SECOND]), title="")
    y = altair.Scale(domain=[0.5, 0.65], zero=False)
    base = altair.Chart()
    alone = base.mark_rule(strokeDash=[4, 3], color="#666").encode(y=altair.Y("length:Q", scale=y, title="accuracy"))
    lines = base.mark_line(point=True).encode(
        x=altair.X("kept:Q", title="kept, %", scale=altair.Scale(domain=[0, 100])),
        y=altair.Y("accuracy:Q", scale=y, title="accuracy"),
        color=colour,
    )
    layers = altair.layer(alone, lines, data=altair.Data(values=rows)).properties(width=190, height=200)
    return layers.facet(column=altair.Column("data:N", title="dashed: length alone", sort=None))


def signal_depth() -> altair.TopLevelMixin:
    """Return the one-pass curve of the sweep with a planted depth, and where it crosses nine tenths of its height."""
    curve = [(numbers(row[0])[0], numbers(row[-1])[0]) for row in table("One pass ranks the ratios as training does")]
    rows = [{"kept": kept, "accuracy": accuracy} for kept, accuracy in sorted(curve)]
    goal = 0.5 + 0.9 * (dict(curve)[100] - 0.5)
    depth = min(kept for kept, accuracy in curve if accuracy >= goal)
    base = altair.Chart(altair.Data(values=rows)).mark_line(point=True, color=FIRST)
    base = base.encode(
        x=altair.X("kept:Q", title="kept, %", scale=altair.Scale(domain=[0, 100])),
        y=altair.Y("accuracy:Q", scale=altair.Scale(domain=[0.45, 0.95])),
    )
    marks = [
        {"y": goal, "text": "½ + 0.9 · (a(1) − ½)"},
        {"y": 0.5, "text": "chance"},
    ]
    lines = altair.Chart(altair.Data(values=marks))
    rules = lines.mark_rule(strokeDash=[4, 3], color="#666").encode(y=altair.Y("y:Q", title="accuracy"))
    texts = lines.mark_text(align="right", dy=-6, color="#666").encode(y="y:Q", text="text:N", x=altair.value(440))
    at = altair.Chart(altair.Data(values=[{"x": depth, "text": f"D90 = {depth:.0f} %"}]))
    rule = at.mark_rule(color=SECOND).encode(x="x:Q")
    text = at.mark_text(align="left", dx=5, color=SECOND).encode(x="x:Q", text="text:N", y=altair.value(150))
    return altair.layer(base, rules, texts, rule, text).properties(width=440, height=240)


def preference_variance() -> altair.TopLevelMixin:
    """Return accuracy after training on the arms of the selection study, with standard deviations."""
    rows: Rows = []
    for name, *_, cell in table("The top tenth by preference variance"):
        mean, sd = numbers(cell)
        rows.append({"arm": name, "accuracy": mean, "low": mean - sd, "high": mean + sd})
    base = altair.Chart(altair.Data(values=rows)).encode(y=altair.Y("arm:N", title="", sort=None))
    scale, title = altair.Scale(domain=[0.5, 0.9], zero=False), "accuracy, mean ± sd of 5 seeds"
    points = base.mark_point(filled=True, size=90, color=FIRST, opacity=1)
    points = points.encode(x=altair.X("accuracy:Q", scale=scale, title=title))
    rules = base.mark_rule(color=FIRST).encode(x=altair.X("low:Q", scale=scale, title=title), x2="high:Q")
    return altair.layer(rules, points).properties(width=400, height=130)


def reward_kl() -> altair.TopLevelMixin:
    """Return the frontier on stories260K: reward against KL, the interpolations joined."""
    rows: Rows = []
    for name, kl, reward, *_ in table("A frontier on stories260K"):
        value, low, high = numbers(reward)
        ends = name in ("reference", "policy") or name.startswith("interpolation")
        kind = "between both models" if ends else name if name.startswith("best") else re.sub(r" [\d.]+$", "", name)
        rows.append({"strategy": kind, "KL": numbers(kl)[0], "reward": value, "low": low, "high": high})
    kinds = list(dict.fromkeys(row["strategy"] for row in rows))
    colour = altair.Color(
        "strategy:N", title="", scale=altair.Scale(domain=kinds, range=["#666", "#7b4fa3", FIRST, SECOND])
    )
    base = altair.Chart(altair.Data(values=rows)).encode(
        x=altair.X("KL:Q", title="KL from the reference, nats a response"), color=colour
    )
    title = "mean reward, 95 %"
    line = base.transform_filter(f"datum.strategy == '{kinds[0]}'").mark_line(strokeDash=[4, 3])
    line = line.encode(y=altair.Y("reward:Q", title=title))
    rules = base.mark_rule().encode(y=altair.Y("low:Q", title=title), y2="high:Q")
    points = base.mark_point(filled=True, size=60, opacity=1).encode(
        y=altair.Y("reward:Q", title=title),
        shape=altair.Shape("strategy:N", title="", scale=altair.Scale(domain=kinds)),
    )
    return altair.layer(line, rules, points).properties(width=480, height=280)


def displacement() -> altair.TopLevelMixin:
    """Return the implicit rewards of both responses by step, for DPO and DPOP."""
    rows: Rows = []
    for cells in table("Likelihood displacement in a small DPO run"):
        step, *values = (numbers(cell)[0] for cell in cells)
        for place, (loss, side) in enumerate(
            (loss, side) for loss in ("dpo", "dpop") for side in ("chosen", "rejected")
        ):
            rows.append({"loss": loss, "response": side, "step": step, "reward": values[place]})
    colour = altair.Color(
        "response:N", scale=altair.Scale(domain=["chosen", "rejected"], range=[FIRST, SECOND]), title=""
    )
    base = altair.Chart(altair.Data(values=rows))
    lines = base.mark_line(point=True).encode(
        x=altair.X("step:Q"), y=altair.Y("reward:Q", title="implicit reward β (log π − log π_ref)"), color=colour
    )
    zero = base.mark_rule(strokeDash=[4, 3], color="#666").encode(y=altair.datum(0))
    return altair.layer(zero, lines).properties(width=240, height=220).facet(column=altair.Column("loss:N", title=""))


FIGURES: dict[str, Callable[[], altair.TopLevelMixin]] = {
    "shallow-signal": shallow_signal,
    "signal-depth": signal_depth,
    "preference-variance": preference_variance,
    "reward-kl": reward_kl,
    "displacement": displacement,
}


if __name__ == "__main__":
    for name, draw in FIGURES.items():
        svg = vl_convert.vegalite_to_svg(draw().to_dict())
        (DOCS / "images" / f"{name}.svg").write_text(svg, encoding="utf-8")
