"""What a page opens with: what was compared, the first finding, key numbers and the key figure; then its sections."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NamedTuple

from headwater.noninferiority import MARGIN
from headwater.reporting.figures import Drawing, Figure
from headwater.reporting.findings import (
    Point,
    accuracy_points,
    count,
    distinct,
    estimate,
    evaluated,
    findings_by_section,
    labels,
    number,
    percent,
)
from headwater.reporting.plots import DETAILS, KEY, SECTIONS
from headwater.reporting.study_tables import Table, study_tables
from headwater.results.runs import Run
from headwater.statistics import Estimate

NUMBERS = 4
"""Most key numbers of a page."""
NAMED = 4
"""Most names in a title."""
WIDE, HIGH = 960, 300
"""Size of the key figure in pixels, where no script draws it at the width of the page."""
REST = "Further figures"
FIGURES = {
    "frontier": "reward_",
    "signal": "depth_90",
    "compare": "win_rate",
    "inspect": "longer_wins",
    "select": "score_taken",
    "reward-bench": "",
    "divergence": "",
    "sweep": "",
}
"""Beginnings of the metrics that are the key numbers of a command; all for an empty one."""


class KeyNumber(NamedTuple):
    """A number at the top of the page."""

    label: str
    value: str
    interval: str


@dataclass(frozen=True)
class Section:
    """A section of the page: its findings, its figures, and those that are folded."""

    title: str
    says: Sequence[str]
    figures: Sequence[Figure]
    details: Sequence[Figure]
    tables: Sequence[Table] = ()

    @property
    def id(self) -> str:
        """Its anchor."""
        return self.title.lower().replace(" ", "-")


@dataclass(frozen=True)
class Outline:
    """The opening and the sections of a page."""

    title: str
    verdict: str
    numbers: Sequence[KeyNumber]
    figure: Figure | None
    sections: Sequence[Section]


def outline(runs: Sequence[Run], drawn: Sequence[Figure], *, with_data: bool, margin: float = MARGIN) -> Outline:
    """Return the outline of a page of `runs` with their figures; `with_data` adds the section of data sets."""
    found = findings_by_section(runs, margin)
    figure = next((each for name in KEY for each in drawn if each.id == name), None)
    # Title, verdict and figure are about the same thing: the finding is that of the figure's section, if it has one.
    about = next((section for section, names in SECTIONS.items() if figure and figure.id in names), "")
    verdict = next((sentence for said in (found.get(about, ()), *found.values()) for sentence in said), "")
    rest = [part for each in drawn for part in (_without_first(each) if each is figure else [each])]
    said = {title: [one for one in sentences if one != verdict] for title, sentences in found.items()}
    sections = list(_sections(rest, said, study_tables(runs, labels(runs)), with_data))
    return Outline(
        title(runs),
        verdict or _plain_verdict(runs),
        key_numbers(runs),
        figure and _first_at_full_width(figure),
        sections,
    )


def _plain_verdict(runs: Sequence[Run]) -> str:
    """Return what the page holds where nothing was found."""
    return (
        f"{count(len(runs))} finished {'run' if len(runs) == 1 else 'runs'}; no figure among them decides a question."
    )


def _sections(
    drawn: Sequence[Figure], said: Mapping[str, Sequence[str]], tables: Mapping[str, Sequence[Table]], with_data: bool
) -> Iterator[Section]:
    of = {name: section for section, names in SECTIONS.items() for name in names}
    for section in (*SECTIONS, REST):
        own = [figure for figure in drawn if of.get(figure.id, REST) == section]
        order = SECTIONS.get(section, ())
        own.sort(key=lambda figure: order.index(figure.id) if figure.id in order else len(order))
        shown = [figure for figure in own if figure.id not in DETAILS]
        folded = [figure for figure in own if figure.id in DETAILS]
        says = list(said.get(section, ())) or [_described(figure) for figure in own[:1]]
        if own or said.get(section) or section in tables or (section == "Data" and with_data):
            yield Section(section, says, shown, folded, tables.get(section, ()))


def _described(figure: Figure) -> str:
    """Return the numbers of the first drawing as a sentence: what opens a section without a finding."""
    return f"{figure.drawings[0].panel.says}."


def _first_at_full_width(figure: Figure) -> Figure:
    (block, (drawing, *_)), *_ = figure.blocks
    panel = drawing.panel._replace(chart=drawing.panel.chart.properties(width=WIDE, height=HIGH))
    name = figure.id if len(figure.drawings) == 1 else f"{figure.id}-first"  # the others keep the name
    wide = [(block._replace(panels=[panel]), [Drawing(drawing.name, drawing.alt, panel, block)])]
    return replace(figure, id=name, blocks=wide)


def _without_first(figure: Figure) -> list[Figure]:
    """Return the figure without its first drawing; nothing where it has no other."""
    (block, (_, *others)), *rest = figure.blocks
    blocks = [*([(block, others)] if others else []), *rest]
    return [replace(figure, blocks=blocks)] if blocks else []


# ---- What was compared ----


def title(runs: Sequence[Run]) -> str:
    """Return what the runs compare, as a heading."""
    runs = distinct(runs)
    names = labels(runs)
    curves = _curves(runs)
    if curves:
        kinds = list(dict.fromkeys(points[0].run.facts.get("kind", "model") for points in curves.values()))
        keeps = sorted({point.keep for points in curves.values() for point in points})
        on = _listed([percent(keep).removesuffix(" %") for keep in keeps])
        return (
            f"{_capital(_listed([_spelled(str(kind)) for kind in kinds]))} trained on the first {on} % of each response"
        )
    for command, heading in HEADINGS.items():
        about = [run for run in runs if run.command == command]
        if about:
            return f"{heading}: {_listed([names[run.path] for run in about])}"
    return names[runs[0].path] if len(runs) == 1 else f"{_listed([names[run.path] for run in runs])}"


HEADINGS = {
    "sweep": "Accuracy against kept ratio",
    "frontier": "Reward against KL in decoding",
    "compare": "Policies under judges",
    "signal": "Where the preference is decided",
    "evaluate": "Held-out accuracy",
    "select": "Selection of rows",
    "reward-bench": "RewardBench",
    "train-dpo": "Policies trained on preferences",
    "train-reward": "Reward models",
    "inspect": "Data",
}
"""Headings by command, the most telling first."""


def _curves(runs: Sequence[Run]) -> dict[str, list[Point]]:
    found = accuracy_points(runs)
    return {kind: points for kind, points in found.items() if len({point.keep for point in points}) > 1}


def _spelled(kind: str) -> str:
    """Return a kind of model inside of a sentence: names of losses in capitals where they are abbreviations."""
    return kind.upper() if len(kind) <= 4 else kind


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _listed(words: Sequence[str]) -> str:
    """Return words as `a, b and c`; of many, the first ones and how many follow."""
    if len(words) > NAMED + 2:
        words = [*words[:NAMED], f"{count(len(words) - NAMED)} more"]
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1]))) if words else ""


# ---- Key numbers ----


def key_numbers(runs: Sequence[Run]) -> list[KeyNumber]:
    """Return the most important numbers of runs, `NUMBERS` at most."""
    runs = distinct(runs)
    curves = _curves(runs)
    found = list(_ends_of_curves(curves)) if curves else []
    on_a_curve = {point.run.path for points in curves.values() for point in points}
    found += _of_runs([run for run in runs if run.path not in on_a_curve])
    return found[:NUMBERS]


def _ends_of_curves(curves: Mapping[str, Sequence[Point]]) -> Iterator[KeyNumber]:
    """Yield the accuracy of the whole response of every kind, and then of the shortest beginning."""
    ends = [(kind, max(points, key=lambda point: point.keep)) for kind, points in curves.items() if "," not in kind]
    ends += [(kind, min(points, key=lambda point: point.keep)) for kind, points in curves.items() if "," not in kind]
    for kind, point in ends:
        part = "all" if point.keep == 1 else f"the first {percent(point.keep)}"
        yield _number(f"{kind}: accuracy on whole held-out responses, trained on {part} of each", point.accuracy)


def _of_runs(runs: Sequence[Run]) -> Iterator[KeyNumber]:
    names = labels(runs)
    for run in evaluated(runs):
        accuracy = estimate(run, "accuracy")
        if accuracy:
            yield _number(f"{names[run.path]}: held-out accuracy", accuracy)
    for run in runs:
        start = FIGURES.get(run.command)
        for metric in run.metrics if start is not None else ():
            found = estimate(run, metric) if metric.startswith(start or "") else None
            if found:
                name, _, about = metric.replace("_", " ").partition("/")
                by = f" ({Path(about).name if '/' not in about else about.replace('/', ', ')})" if about else ""
                yield _number(f"{names[run.path]}: {name}{by}", found)


def _number(label: str, found: Estimate) -> KeyNumber:
    interval = "" if found.low is None or found.high is None else f"[{number(found.low)}, {number(found.high)}], "
    return KeyNumber(label, number(found.value), f"{interval}n {count(found.n)}")
