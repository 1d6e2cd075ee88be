"""The HTML page of runs: one self-contained file without outside links, whose scripts are its own.

The template escapes every text of a run. Only the SVG of figures is passed through as markup: vl-convert draws it,
escapes the text in it, and may fetch nothing.
"""

from __future__ import annotations

import itertools
import json
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import yaml
from markupsafe import Markup

from headwater.files import write_text
from headwater.noninferiority import MARGIN
from headwater.reporting.cells import MISSING, Cell, duration
from headwater.reporting.costs import costs
from headwater.reporting.figures import figures, of_data
from headwater.reporting.findings import count, distinct, estimate, labels, number, percent, with_interval
from headwater.reporting.inspected import inspected
from headwater.reporting.lens.page import script as lens_script
from headwater.reporting.lens.sections import embedded as embedded_lenses
from headwater.reporting.outline import outline
from headwater.reporting.plots import PLOTS
from headwater.reporting.plots.drawing import CHOSEN, DARK, REJECTED
from headwater.reporting.scripts import embedded, own, source, vega
from headwater.reporting.side_by_side import beside
from headwater.results.comparison import ComparisonTables, ExampleAnswers
from headwater.results.evaluation import Diagnostics, ExamplePair, better_rule
from headwater.results.runs import Run
from headwater.results.training import TrainingFigures
from headwater.statistics import Estimate

EXAMPLE_LENGTH = 140
"""Characters of a text in a table; its tooltip shows the whole."""


def write(runs: Sequence[Run], output: Path, margin: float = MARGIN) -> Path:
    """Write the page of `runs` to `output` atomically and return its path."""
    write_text(output, render(runs, margin))
    return output


def render(runs: Sequence[Run], margin: float = MARGIN) -> str:
    """Return the page of `runs` as HTML; the same runs always give the same page.

    Findings compare models at a `margin` in percentage points.
    """
    runs = distinct(runs)
    names = labels(runs)
    template = _environment().get_template("page.html")
    drawn, data = figures(PLOTS, runs), of_data(runs)
    plan = outline(runs, drawn, with_data=any(data), margin=margin)
    key = [plan.figure] if plan.figure else []  # last: its drawing is higher than the one of the same name
    charts = {one.name: one.spec for figure in itertools.chain(drawn, *data, key) for one in figure.drawings}
    lenses = embedded_lenses(runs, names)
    live = ([vega()] if charts else []) + ([own("page.js")] if charts or len(runs) > 1 else [])
    scripts = live + ([lens_script()] if lenses else [])
    return template.render(
        title=plan.title,
        verdict=plan.verdict,
        key_numbers=plan.numbers,
        key_figure=plan.figure,
        answers=beside(runs),
        overview=[_overview(run, names) for run in runs],
        accounts=[_row_counts(stage, names[run.path]) for run in runs for stage in run.row_counts],
        metrics=_metrics(runs, names),
        data=[{"found": found, "figures": of} for found, of in zip(inspected(runs), data, strict=True)],
        sections=plan.sections,
        dark=DARK,
        chosen=CHOSEN,
        rejected=REJECTED,
        charts=embedded(charts),
        scripts=[Markup(script) for script in scripts],
        allowed=Markup(source(*scripts)),
        examples=_examples(runs, names),
        mistakes=_mistakes(runs, names),
        cases=_cases(runs, names),
        lenses=lenses,
        costs=costs(runs, names),
        environments=[_surroundings(run, names) for run in runs],
    )


def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["together"] = _together
    return environment


def _together(text: str) -> str:
    """Keep a number and its per cent sign on one line."""
    return text.replace(" %", "\u00a0%")


def _overview(run: Run, names: Mapping[Any, str]) -> dict[str, Cell]:
    """Return one row of the run table, by column."""
    accuracy = estimate(run, "accuracy")
    return {
        "run": Cell(names[run.path]),
        "command": Cell(run.command),
        "model": _path_cell(run.config.get("model")),
        "data": _path_cell(_data(run)),
        "kept ratio": _kept(run),
        "loss": Cell(str(run.config.get("loss") or MISSING)),
        "pairs used / rows in": Cell(_pairs(run)),
        "accuracy": _estimate_cell(run, "accuracy") if accuracy else Cell(MISSING),
        "wall time": Cell(duration(run.seconds)),
    }


def _kept(run: Run) -> Cell:
    """Return the kept share of the responses, above the training FLOPs that it saves."""
    keep, saved = run.facts.get("keep"), run.facts.get("flops_saved")
    if not isinstance(keep, int | float):
        return Cell(str(run.facts.get("kept", MISSING)), _saved(saved))
    return Cell(percent(keep), _saved(saved))


def _saved(share: float | None) -> str:
    return f"FLOPs −{percent(round(share, 2))}" if share else ""


def _data(run: Run) -> Any:
    """Return the data that a run read, from its flag."""
    return next((run.config[flag] for flag in ("data", "dataset", "input") if flag in run.config), None)


def _path_cell(value: Any) -> Cell:
    """Return a path by its last part; a constructor call such as `scratch(size=1)` is no path and stays whole."""
    if value is None:
        return Cell(MISSING)
    parts = [str(part) for part in value] if isinstance(value, list) else [str(value)]
    ends = [part if "(" in part else part.rstrip("/").rpartition("/")[2] or part for part in parts]
    return Cell(", ".join(ends), whole=", ".join(parts))


def _pairs(run: Run) -> str:
    if not run.row_counts:
        return MISSING
    trained = TrainingFigures.find(run.path) if run.history else None
    used = (trained.train_pairs or trained.train_rows) if trained else None
    kept = run.row_counts[-1]["kept"] if used is None else used
    return f"{count(kept)} / {count(run.row_counts[0]['rows_in'])}"


def _row_counts(stage: Mapping[str, Any], name: str) -> dict[str, Cell]:
    dropped = ", ".join(f"{reason} {count(rows)}" for reason, rows in stage["dropped"].items() if rows)
    return {
        "run": Cell(name),
        "stage": Cell(stage["stage"]),
        "rows in": Cell(count(stage["rows_in"])),
        "kept": Cell(count(stage["kept"])),
        "quarantined": Cell(count(stage.get("quarantined", 0))),
        "dropped": Cell(dropped or MISSING),
    }


def _metrics(runs: Sequence[Run], names: Mapping[Any, str]) -> list[list[dict[str, Cell]]]:
    """Return one table a command, with its own columns; inspect runs have a section of their own."""
    groups: dict[str, list[Run]] = {}
    for run in runs:
        if run.metrics and run.command not in ("inspect", *JUDGED):
            groups.setdefault("training" if run.history else run.command, []).append(run)
    judged = [_judged_rows(run, names[run.path]) for run in runs if run.command in JUDGED and run.metrics]
    return [_metric_rows(group, names) for group in groups.values()] + judged


JUDGED = ("judge", "compare")
"""Commands whose metrics are named `figure/judge/model`; their table has a row a figure."""


def _judged_rows(run: Run, name: str) -> list[dict[str, Cell]]:
    rows = []
    for metric in run.metrics:
        figure, _, about = metric.partition("/")
        found = estimate(run, metric)
        n = Cell(f"{count(found.n)} ({count(found.clusters)})" if found else MISSING)
        row = {"run": Cell(name), "figure": Cell(figure.replace("_", " ")), "by / of": Cell(about.replace("/", " / "))}
        rows.append(row | {"value": _estimate_cell(run, metric), "n (prompts)": n})
    return rows


def _metric_rows(runs: Sequence[Run], names: Mapping[Any, str]) -> list[dict[str, Cell]]:
    """Return one row a run, with every metric of any of them as a column."""
    columns = list(dict.fromkeys(metric for run in runs for metric in run.metrics))
    counted = any(_usual(run) for run in runs)
    return [
        {"run": Cell(names[run.path])}
        | {metric.replace("_", " "): _estimate_cell(run, metric) for metric in columns}
        | ({"n (prompts)": _size(run)} if counted else {})
        for run in runs
    ]


def _estimate_cell(run: Run, metric: str) -> Cell:
    """Return a value above its interval, and its n where it differs from the run's usual one."""
    found, usual = estimate(run, metric), _usual(run)
    if found and metric in ("length_accuracy", "length_auc"):
        rule = better_rule(found)
        return Cell(number(rule.accuracy.value), f"{rule.wins} wins", with_interval(rule.accuracy))
    if found is None:
        return Cell(_plain(run.metrics.get(metric)))
    parts = [] if found.low is None or found.high is None else [f"{number(found.low)}, {number(found.high)}"]
    parts += [] if usual is None or found.n == usual.n else [f"n {count(found.n)}"]
    whole = f"{with_interval(found)}, n = {found.n} ({found.clusters} prompts)"
    return Cell(number(found.value), " · ".join(parts), whole)


def _usual(run: Run) -> Estimate | None:
    """Return the estimate whose n is shown for the run: the accuracy, which counts pairs, or else the first."""
    found = (estimate(run, metric) for metric in ("accuracy", *run.metrics))
    return next((item for item in found if item), None)


def _size(run: Run) -> Cell:
    usual = _usual(run)
    return Cell(f"{count(usual.n)} ({count(usual.clusters)})" if usual else MISSING)


def _plain(value: Any) -> str:
    if value is None or isinstance(value, Mapping):
        return MISSING
    return number(value) if isinstance(value, float) else str(value)


_ENDS = {"top": "highest", "bottom": "lowest"}


def _examples(runs: Sequence[Run], names: Mapping[Any, str]) -> list[dict[str, Cell]]:
    """Return the rows with the highest and the lowest scores of selections."""
    rows = []
    for run in runs:
        path = run.path / "selection.json"
        ends = json.loads(path.read_text(encoding="utf-8"))["examples"] if path.is_file() else {}
        rows += [_example(names[run.path], end, example) for end, found in ends.items() for example in found]
    return rows


def _example(name: str, end: str, example: Mapping[str, Any]) -> dict[str, Cell]:
    best, worst = example["best"], example["worst"]
    return {
        "run": Cell(name),
        "score": Cell(number(example["score"], 4), _ENDS[end] + (", taken" if example["taken"] else "")),
        "prompt": Cell(_beginning(example["prompt"]), whole=example["prompt"]),
        "best response": Cell(_beginning(best["text"]), _rewarded(best["reward"]), best["text"]),
        "worst response": Cell(_beginning(worst["text"]), _rewarded(worst["reward"]), worst["text"]),
    }


def _cases(runs: Sequence[Run], names: Mapping[Any, str]) -> list[dict[str, Cell]]:
    """Return the prompts on which models gained and lost most against their baseline."""
    rows = []
    for run in runs:
        tables = ComparisonTables.find(run.path)
        for group in tables.examples if tables else ():
            about = {"run": Cell(names[run.path]), "of": Cell(group.model, f"by {_path_cell(group.judge).text}")}
            rows += [about | _case("improved", case) for case in group.improved]
            rows += [about | _case("degraded", case) for case in group.degraded]
    return rows


def _case(end: str, case: ExampleAnswers) -> dict[str, Cell]:
    before, after = case.scores or (None, None)
    return {
        "preference": Cell(number(case.preference), end),
        "prompt": Cell(_beginning(case.prompt), whole=case.prompt),
        "model": Cell(_beginning(case.model), _rewarded(after), case.model),
        "baseline": Cell(_beginning(case.baseline), _rewarded(before), case.baseline),
    }


def _mistakes(runs: Sequence[Run], names: Mapping[Any, str]) -> list[dict[str, Cell]]:
    """Return the pairs with the most negative margins of evaluated models, and those with margins closest to 0."""
    rows = []
    for run in runs:
        if found := Diagnostics.find(run.path):
            rows += [_mistake(names[run.path], "most wrong", example) for example in found.examples.wrong]
            rows += [_mistake(names[run.path], "closest margins", example) for example in found.examples.close]
    return rows


def _mistake(name: str, kind: str, example: ExamplePair) -> dict[str, Cell]:
    sides = {"chosen": example.chosen, "rejected": example.rejected}
    return {
        "run": Cell(name),
        "margin": Cell(number(example.margin), kind),
        "prompt": Cell(_beginning(example.prompt), whole=example.prompt),
        **{
            title: Cell(_beginning(side.text), f"{_rewarded(side.reward)}, {side.tokens} tokens", side.text)
            for title, side in sides.items()
        },
    }


def _beginning(text: str) -> str:
    words = " ".join(text.split())
    return words if len(words) <= EXAMPLE_LENGTH else words[:EXAMPLE_LENGTH].rstrip() + "…"


def _rewarded(reward: float | None) -> str:
    return "" if reward is None else f"reward {number(reward)}"


def _surroundings(run: Run, names: Mapping[Any, str]) -> dict[str, Any]:
    """Return what a reader needs to repeat a run: arguments, directory, versions, machine and inputs."""
    environment = run.environment
    lines = {
        "Arguments": shlex.join(["headwater", *environment.get("arguments", [])]),
        "Directory": str(run.path),
        "Started": str(environment.get("started", MISSING)),
        "Versions": ", ".join(f"{name} {version}" for name, version in environment.get("versions", {}).items()),
        "Machine": ", ".join(str(part) for part in environment.get("machine", {}).values()),
    }
    inputs = [f"{path}  sha256 {digest[:16]}…" for path, digest in environment.get("inputs", {}).items()]
    return {
        "name": names[run.path],
        "command": run.command,
        "lines": lines | ({"Inputs": "\n".join(inputs)} if inputs else {}),
        "config": yaml.safe_dump(run.config, sort_keys=False, allow_unicode=True),
        "facts": yaml.safe_dump(run.facts, sort_keys=False, allow_unicode=True) if run.facts else "",
    }
