from __future__ import annotations

import base64
import dataclasses
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from headwater import cli
from headwater.reporting import page
from headwater.reporting.costs import costs
from headwater.reporting.findings import labels
from headwater.reporting.study_tables import study_tables
from headwater.results import runs
from headwater.statistics import Estimate
from tests.reporting.test_plots import frontiered, swept

ATTACK = "</script><img src=x onerror=alert(1)>"
SECTION = r'<(?:section|details class="fold") id="(\w+)"'
NAMESPACES = ("http://www.w3.org/2000/svg", "http://www.w3.org/1999/xlink")


@dataclasses.dataclass(frozen=True)
class Config:
    model: str = "/models/base"
    data: str = "pairs.jsonl"
    loss: str = "dpo(beta=0.1)"


class Elements(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs


def charts_of(text: str) -> dict[str, Any]:
    """The specifications of the drawings of a page, by name."""
    found = re.search(r'<script type="application/json" id="charts">(.*?)</script>', text, re.S)
    assert found
    return dict(json.loads(found[1]))


def study(home: Path, name: str = "a", kind: str = "dpo", facts: str = "x") -> list[runs.Run]:
    given = {"keep": 0.3, "kind": kind, "note": facts}
    training = runs.start(home / f"train {name}".replace("/", "∕"), "train-dpo", Config(loss=name), facts=given)
    training.count("reading", 1200, 1100, {name: 100})
    training.count("tokens", 1100, 1090, {"too_long": 10})
    for step in range(4):
        training.log({"step": step, "loss": 0.7 - step / 10, "rewards/chosen": -float(step)})
    evaluation = runs.start(home / f"eval {name}".replace("/", "∕"), "evaluate", Config(model=name), facts=given)
    evaluation.write_metrics({"accuracy": Estimate(0.8123, 0.7, 0.9, 100, 90), name: 3, "empty": None})
    evaluation.write_records(
        [
            {"chosen_reward": float(i), "rejected_reward": 0.0, "chosen_tokens": i, "rejected_tokens": 3}
            for i in range(9)
        ]
    )
    return [runs.load(training.finish()), runs.load(evaluation.finish())]


def test_a_page_holds_the_numbers_of_its_runs(tmp_path: Path) -> None:
    text = page.render(study(tmp_path))
    for expected in (
        "<title>headwater · Held-out accuracy: eval a<",
        "1\u202f090 / 1\u202f200",
        "0.812",
        "0.700, 0.900",
        "30 %",
        "too_long 10",
    ):
        assert expected in text
    assert "Likelihood displacement" in text
    assert 'title="/models/base">base<' in text  # a path is shown by its end, whole on hover


def test_the_data_column_knows_every_command(tmp_path: Path) -> None:
    for flag in ("data", "dataset", "input"):
        config = dataclasses.make_dataclass("Named", [(flag, str)])(f"/some/{flag}.jsonl")
        run = runs.load(runs.start(tmp_path / flag, "preprocess", config).finish())
        assert f'title="/some/{flag}.jsonl">{flag}.jsonl<' in page.render([run])


def test_sections_without_data_are_absent(tmp_path: Path) -> None:
    bare = runs.load(runs.start(tmp_path / "bare", "preprocess", Config()).finish())
    text = page.render([bare])
    assert re.findall(SECTION, text) == ["runs", "environment"]
    assert "<figure" not in text
    full = page.render(study(tmp_path))
    assert re.findall(SECTION, full) == ["runs", "training", "models", "metrics", "rows", "environment"]
    assert re.findall(r'<figure id="([\w-]+)"', full) == ["scores", "loss", "rewards", "boxes", "lengths"]


def test_text_of_a_run_is_never_markup(tmp_path: Path) -> None:
    text = page.render(study(tmp_path, ATTACK, kind=ATTACK, facts=ATTACK))
    elements = Elements(text)
    assert not {"img", "iframe", "link", "object"} & set(elements.tags)
    assert elements.tags.count("script") == 3  # the charts' data, what draws them, and the page's own
    assert not [name for name, _ in elements.attributes if name.startswith("on")]
    assert text.count("&lt;img src=x onerror=alert(1)&gt;") > 10
    svg = "".join(re.findall(r"<svg xmlns.*?</svg>", text, re.S))
    assert "&lt;∕script&gt;" in svg and "<img" not in svg  # the box plot writes the name of a run inside its drawing


def test_the_policy_lets_the_two_scripts_run_and_nothing_else(tmp_path: Path) -> None:
    text = page.render(study(tmp_path))
    scripts = re.findall("<script>(.*?)</script>", text, re.S)
    assert len(scripts) == 2
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    assert f"default-src 'none'; style-src 'unsafe-inline'; img-src data:; script-src {allowed};" in text
    for script in scripts:
        text = text.replace(script, "")
    for namespace in NAMESPACES:
        text = text.replace(f'="{namespace}"', "")
    text = re.sub(
        r"https://vega.github.io/schema/vega-lite/v[\d.]+json", "", text
    )  # the name of a form; nobody fetches it
    assert not re.search(r"https?://|@import|url\(", text)
    assert not [v for name, v in Elements(text).attributes if name in ("src", "href", "xlink:href") and v[0] != "#"]


def test_a_page_without_figures_has_no_script(tmp_path: Path) -> None:
    text = page.render([runs.load(runs.start(tmp_path / "bare", "preprocess", Config()).finish())])
    assert "<script" not in text and "script-src 'none'" in text


def test_every_drawing_has_words(tmp_path: Path) -> None:
    text = page.render(study(tmp_path))
    alternatives = re.findall(r'role="img" aria-label="([^"]*)"', text)
    assert len(alternatives) == text.count('class="chart"') > 3
    assert all(re.search(r"\d", words) for words in alternatives)


def test_the_same_runs_give_the_same_page_and_once_each(tmp_path: Path) -> None:
    given = study(tmp_path)
    assert page.render(given) == page.render([*given, *given])


def test_write_makes_the_folder_and_leaves_nothing_else(tmp_path: Path) -> None:
    given = study(tmp_path / "runs")
    path = page.write(given, tmp_path / "new" / "report.html")
    assert path.read_text(encoding="utf-8") == page.render(given)
    assert [file.name for file in path.parent.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("seconds", "text"), [(4.24, "4.2 s"), (192, "3 min 12 s"), (3720, "1 h 02 min"), (59.99, "60.0 s")]
)
def test_durations(seconds: float, text: str) -> None:
    assert page.duration(seconds) == text


def test_the_account_has_a_column_for_quarantined_rows(tmp_path: Path) -> None:
    writer = runs.start(tmp_path / "r", "train-dpo", Config(loss="x"), facts={})
    writer.count("read", 4321, 4000, {"duplicate": 20}, quarantined=301)
    run = runs.load(writer.finish())
    cells = page._row_counts(run.row_counts[0], "r")
    assert [cells[column].text for column in ("rows in", "kept", "quarantined", "dropped")] == [
        *("4\u202f321", "4\u202f000", "301", "duplicate 20")
    ]
    old = {"stage": "read", "rows_in": 1, "kept": 1, "dropped": {}}  # written before rows were quarantined
    assert page._row_counts(old, "r")["quarantined"].text == "0"
    assert "quarantined" in page.render([run])


def test_costs_are_those_of_the_run_itself(tmp_path: Path) -> None:
    facts = {"training_tokens": 1_234_567, "training_flops": 3.21e13, "memory_bytes": {"peak": 3 << 29}}
    training = runs.start(tmp_path / "t", "train-dpo", Config(), facts=facts)
    training.log({"step": 1, "loss": 0.7, "train_runtime": 10.0})
    evaluation = runs.start(tmp_path / "e", "evaluate", Config(), facts=facts)  # facts are inherited
    found = [runs.load(one.finish()) for one in (training, evaluation)]
    (row,) = costs(found, {run.path: run.name for run in found})
    texts = {column: (cell.text, cell.under) for column, cell in row.items()}
    assert texts["tokens"] == ("1\u202f234\u202f567", "read")
    assert texts["FLOPs"][0] == "3.21 · 10¹³" and texts["peak memory"][0] == "1.50 GiB"
    assert texts["wall time"][1] == "123\u202f457 tokens a second"
    assert "costs" in re.findall(SECTION, page.render(found))
    assert "costs" not in re.findall(SECTION, page.render(found[1:]))


def test_a_frontier_a_sweep_and_the_arms_of_a_selection_have_tables(tmp_path: Path) -> None:
    given = [frontiered(tmp_path / "f" / "summary"), swept(tmp_path / "s" / "summary")]
    arms = []
    for name, by in (("random", {}), ("hard", {"selected_by": "pvar()", "selected_end": "top"})):
        facts = {"kind": "dpo", "training_tokens": 1000.0, **by}
        training = runs.start(tmp_path / name, "train-dpo", Config(), facts=facts)
        training.log({"step": 1, "loss": 0.5})
        training.write_metrics({"train_pairs": 40})
        arms.append(runs.load(training.finish()))
    evaluation = runs.start(tmp_path / "hard-eval", "evaluate", Config(model=str(tmp_path / "hard")))
    evaluation.write_metrics({"accuracy": Estimate(0.8, 0.7, 0.9, 100, 90)})
    compared = runs.start(tmp_path / "compared", "compare", Config(), facts={"says": []})
    compared.write_metrics({"win_rate/rm/hard": Estimate(0.6, 0.5, 0.7, 40, 40)})
    given += [*arms, runs.load(evaluation.finish()), runs.load(compared.finish())]
    tables = study_tables(given, labels(given))
    (selection,) = tables["Selection"]
    assert [row["arm"].text for row in selection] == ["random", "hard"]
    assert [row["accuracy"].text for row in selection] == ["–", "0.800"]
    assert [row["win rate"].text for row in selection] == ["–", "0.600"]
    assert {row["tokens"].text for row in selection} == {"1\u202f000"} and selection[0]["pairs"].text == "40"
    assert [row["strategy"].text for row in tables["Decoding"][0]][:1] == ["interpolate(0.0)"]
    assert len(tables["Signal"][0]) == 6
    assert page.render(given).count('<table class="sortable">') == 4  # with that of the runs
    assert labels(given)[given[0].path] == "f/summary", "the shortest end of the path that differs"
    assert labels(given[:1])[given[0].path] == "f/summary", "a summary says of what"
    assert '"height": 300' in json.dumps(charts_of(page.render(given[:1]))["frontier-f-summary-reward-by-a"])
    assert page._path_cell(["runs/a", "runs/b/"]).text == "a, b"


def test_a_folder_stands_for_the_finished_runs_beneath(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study(tmp_path / "study" / "10", "a")
    study(tmp_path / "study" / "2", "b")
    (tmp_path / "study" / "2" / "train b" / "members").mkdir()
    inner = runs.start(tmp_path / "study" / "2" / "train b" / "members" / "0", "train-dpo", Config())
    inner.finish()
    runs.start(tmp_path / "study" / "broken", "evaluate", Config())
    finished, unfinished = runs.beneath(tmp_path / "study")
    assert [path.name for path in finished] == ["eval b", "train b", "eval a", "train a"]
    assert [path.name for path in unfinished] == ["broken"]
    output = tmp_path / "r.html"
    assert cli.main(["report", str(tmp_path / "study"), "--output", str(output)]) == 0
    assert "left out" in capsys.readouterr().err and output.read_text("utf-8").count('<th scope="row">eval') > 1
    (tmp_path / "empty").mkdir()
    assert cli.main(["report", str(tmp_path / "empty"), "--output", str(tmp_path / "e.html")]) == 2
    assert "holds no run" in capsys.readouterr().err
