"""What `inspect` finds as a section of the page: every number of it, its figures, and rows that stay text."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headwater import cli
from headwater.reporting import page
from headwater.reporting.findings import findings
from headwater.reporting.inspected import inspected
from headwater.reporting.plots import DATA_PLOTS, PLOTS
from headwater.results import runs
from headwater.results.inspection import Inspection
from tests.reporting.test_page import Elements

ATTACK = "<script>alert(1)</script>\u202e"


def inspect(tmp_path: Path, name: str, rows: list[Any]) -> runs.Run:
    data = tmp_path / f"{name}.jsonl"
    data.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    assert cli.main(["inspect", str(data), "--output", str(tmp_path / name)]) == 0
    return runs.load(tmp_path / name)


def pair(number: int, chosen: str, rejected: str, **more: Any) -> dict[str, Any]:
    return {"prompt": f"Why {number}? {ATTACK}", "chosen": chosen, "rejected": rejected, **more}


@pytest.fixture
def run(tmp_path: Path) -> runs.Run:
    """60 pairs of which the chosen one is longer in 40, and one row of every other fate."""
    rows: list[Any] = [pair(n, f"a{'x' * n} {ATTACK}", f"b {ATTACK}") for n in range(1, 41)]
    rows += [pair(n, f"a {ATTACK}", f"b{'x' * n} {ATTACK}") for n in range(41, 61)]
    rows += ["broken", rows[0], pair(70, "", "b"), {"prompt": "Why?", "chosen": "a"}]
    return inspect(tmp_path, "made", rows)


def test_the_section_holds_what_was_found(run: runs.Run) -> None:
    (found,) = inspected([run])
    assert found.says == "made.jsonl · 60 pairs · explicit-prompt (has prompt, chosen, rejected)"
    assert found.facts["The longer one wins"].startswith("0.667 [0.5")
    assert "n = 60, 60 conversations" in found.facts["The longer one wins"]
    assert found.facts["User turns"] == "60 with 1"
    assert "broken JSON" in found.facts["First bad row"]
    assert [(row[""], row["rows"], row["share"]) for row in found.fates] == [
        ("kept", "60", "93.8 %"),
        ("dropped: duplicate", "1", "1.6 %"),
        ("dropped: empty response", "1", "1.6 %"),
        ("quarantined: BROKEN_JSON", "1", "1.6 %"),
        ("quarantined: MISSING", "1", "1.6 %"),
        ("rows in", "64", "100 %"),
    ]
    rows = {row[""]: row for row in found.lengths}
    characters = Inspection.read(run.path).characters
    assert rows["chosen, characters"]["median"] == str(round(characters["chosen"].p50))
    assert rows["rejected, characters"]["most"] == str(round(characters["rejected"].p100))
    assert len(found.samples) == 10
    text = page.render([run])
    for value in (*found.facts.values(), found.says, found.samples[3].prompt):
        assert str(page.jinja2.utils.markupsafe.escape(value)) in text


def test_rows_of_the_data_stay_text(run: runs.Run) -> None:
    text = page.render([run])
    assert Elements(text).tags.count("script") == 3  # the page's own
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&lt;U+202E&gt;" in text
    assert "\u202e" not in text


def test_its_figures_are_drawn_and_say_their_numbers(run: runs.Run) -> None:
    text = page.render([run, run])
    for section, plot in DATA_PLOTS.items():
        assert text.count(f'id="{section}-1"') == 1
        (block,) = plot.draw([run])
        assert len(block.key) == 2
        assert all(side in mark.label for side, mark in zip(("chosen", "rejected"), block.key, strict=True))
        assert block.panels[0].says in text
    assert "chosen is longer in 40 pairs, rejected in 20" in text
    assert not set(PLOTS) & set(DATA_PLOTS)


def test_every_response_is_in_a_bin_or_beyond(run: runs.Run) -> None:
    binned = Inspection.read(run.path).length_histogram
    for side in ("chosen", "rejected"):
        assert sum(binned.counts[side]) + binned.beyond[side] == 60
    assert 0 < sum(binned.beyond.values()) < 5
    longer = Inspection.read(run.path).difference_histogram
    assert longer is not None
    assert {side: sum(longer.counts[side]) + longer.beyond[side] for side in longer.counts} == {
        "chosen": 40,
        "rejected": 20,
    }


def test_a_mirrored_side_is_the_same_area_on_the_left(run: runs.Run) -> None:
    """Steps drawn from left to right hold each bin's height over its own width."""
    binned = Inspection.read(run.path).difference_histogram
    assert binned is not None
    (block,) = DATA_PLOTS["data-longer"].draw([run])
    for layer, side in zip(block.panels[0].chart.layer, ("chosen", "rejected"), strict=True):
        points = [(row["x"], row["y"]) for row in layer.data["values"]]
        assert points == sorted(points, key=lambda point: point[0])
        after = layer.mark["interpolate"] == "step-after"
        xs, ys = np.array(points).T
        area = float((np.diff(xs) * (ys[:-1] if after else ys[1:])).sum())
        width = binned.edges[1] - binned.edges[0]
        assert area == pytest.approx(width * sum(binned.counts[side]))
        assert (xs >= 0).all() if after else (xs <= 0).all()


@pytest.mark.parametrize(
    ("longer", "shorter", "said"),
    [
        (40, 4, "0.909"),
        (20, 20, "holds 0.5: whether length alone predicts which one is preferred is not decided"),
        (3, 40, "the shorter response is the preferred one in 0.930"),
        (2000, 2000, "Length alone predicts which one is preferred by less than 2 points above chance"),
    ],
)
def test_the_findings_say_whether_length_tells(longer: int, shorter: int, said: str, tmp_path: Path) -> None:
    rows = [pair(n, "aaa", "b") for n in range(longer)] + [pair(9000 + n, "a", "bbb") for n in range(shorter)]
    run = inspect(tmp_path, "made", rows)
    (sentence,) = findings([run])
    side = "longer" if longer >= shorter else "shorter"
    assert sentence.startswith(f"made: the {side} response is the preferred one in 0.")
    assert f"of {longer + shorter} pairs" in sentence
    assert said in sentence


@pytest.mark.parametrize("kind", ["candidates", "unpaired", "equal"])
def test_other_data_is_shown_too(kind: str, tmp_path: Path) -> None:
    several = {"instruction": "Why?", "completions": [{"response": r, "overall_score": len(r)} for r in ("a", "bcd")]}
    labelled = {"prompt": "Why?", "completion": "So.", "label": True}
    equal = {"prompt": "Why?", "chosen": "So.", "rejected": "No."}
    run = inspect(tmp_path, kind, [{"candidates": several, "unpaired": labelled, "equal": equal}[kind]])
    text = page.render([run])
    assert '<section id="data">' in text
    assert ('id="data-longer-1"' in text) == (kind == "equal")
    assert "The longer one wins" in text or kind != "equal"


def test_sets_stand_apart_and_in_their_own_section_only(run: runs.Run, tmp_path: Path) -> None:
    other = inspect(tmp_path, "other", [pair(n, "aaa", "b") for n in range(3)])
    text = page.render([run, other])
    ids = re.findall(r' id="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert {"data", "data-lengths-1", "data-lengths-2"} <= set(ids)
    assert 'id="metrics"' not in text
    assert 'id="figures"' not in text


def test_what_a_cut_saves_stands_beneath_the_kept_ratio(tmp_path: Path) -> None:
    data = tmp_path / "pairs.jsonl"
    words = "one two three four five six seven eight nine ten"
    rows = [{"prompt": f"Why {n}?", "chosen": f"{words} {n}", "rejected": f"{n} {words}"} for n in range(50)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    for output, keep in (("ratio", "0.5"), ("tokens", "3tok"), ("all", "1.0")):
        arguments = ["--input", str(data), "--output", str(tmp_path / output), "--keep", keep]
        assert cli.main(["preprocess", *arguments]) == 0
    for output, kept in (("ratio", "50 %"), ("tokens", "3tok")):
        run = runs.load(tmp_path / output)
        saved = f"{100 * run.facts['flops_saved']:.0f} %"
        assert f"<td>{kept}<small>FLOPs −{saved}</small></td>" in page.render([run])
    assert "FLOPs" not in re.sub("<pre.*?</pre>", "", page.render([runs.load(tmp_path / "all")]), flags=re.DOTALL)
