"""The page in Chromium: it draws every chart, asks the network for nothing, complains of nothing, and runs nothing of
what stands in the data."""

from __future__ import annotations

import base64
import dataclasses
import itertools
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headwater import cli
from headwater.reporting import page
from headwater.results import runs
from headwater.statistics import Estimate
from tests.reporting.test_plots import NEEDS
from tests.support.browser import Browser

BAD = "</script><img src=x onerror=document.title='broken'>"
MEGABYTE = 1 << 20


@dataclasses.dataclass(frozen=True)
class Config:
    model: str = BAD


def hostile(folder: Path) -> list[runs.Run]:
    """Runs with every text that a page shows set to what would break it, run names included."""
    data = folder / "pairs.jsonl"
    rows = [{"prompt": f"{BAD} {n}", "chosen": f"yes {BAD} {n}", "rejected": f"no {BAD}"} for n in range(30)]
    data.write_text("".join(json.dumps(row) + "\n" for row in rows))
    inspected = folder / BAD.replace("/", "∕")
    assert cli.main(["inspect", str(data), "--output", str(inspected)]) == 0
    writer = runs.start(folder / f"eval {inspected.name}", "evaluate", Config(), facts={"kind": BAD, "note": BAD})
    writer.write_records([{"chosen_reward": float(i), "rejected_reward": 0.0} for i in range(9)])
    return [runs.load(inspected), runs.load(writer.finish())]


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page with every figure there is, and hostile runs among its runs."""
    folder = tmp_path_factory.mktemp("report")
    given = [run for section, need in NEEDS.items() for run in need(folder / section)]
    return page.write([*given, *hostile(folder)], folder / "page.html").as_uri()


@pytest.fixture
def opened(browser: Browser, url: str) -> Browser:
    browser.visit(url)
    return browser


def enliven(browser: Browser, width: int = 1280, dark: bool = False) -> int:
    """Open all folds in a window as tall as the page, wait until every chart lives, and return how many there are."""
    browser.run("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
    browser.window(width, int(browser.run("document.body.scrollHeight")) + 1000, dark)
    charts = int(browser.run("document.querySelectorAll('.chart').length"))
    browser.wait(f"document.querySelectorAll('.chart.live').length === {charts}")
    return charts


def test_every_chart_lives_without_network_or_complaint(opened: Browser, url: str) -> None:
    marks = "c => !c.querySelector('.role-mark :is(path, line, rect, text)')"
    drawn = "[...document.querySelectorAll('.chart')]"
    assert opened.run(f"{drawn}.filter({marks}).length") == 0  # pictures, before the script has drawn
    assert enliven(opened) > len(NEEDS)
    assert opened.run(f"{drawn}.filter({marks}).map(c => c.dataset.chart)") == []
    assert opened.problems == []
    assert [address for address in opened.requests if not address.startswith("data:")] == [url]


@pytest.mark.fault("S1")
def test_nothing_in_the_data_runs(opened: Browser) -> None:
    enliven(opened)
    assert opened.run("document.title").startswith("headwater")
    assert opened.run("document.querySelectorAll('img, iframe, object, link').length") == 0
    assert opened.run("document.querySelectorAll('script').length") == 3
    assert BAD.replace("/", "∕") in opened.run("document.body.textContent")
    # The policy itself refuses what an escape that was forgotten would let in.
    opened.run("document.body.insertAdjacentHTML('beforeend', '<img src=x onerror=\"document.title=1\">')")
    opened.settle()
    assert opened.run("document.title").startswith("headwater")


def test_a_pointer_over_a_mark_is_told_its_numbers(opened: Browser) -> None:
    enliven(opened)
    at = """(() => {
      const chart = document.querySelector('#accuracy .chart');
      const { x, y, width, height } = [...chart.querySelectorAll('.mark-symbol path')].at(-1).getBoundingClientRect();
      return [x + width / 2, y + height / 2];
    })()"""
    assert opened.run("document.getElementById('tip').hidden")
    opened.mouse("mouseMoved", *opened.run(at))
    told = opened.run("[...document.querySelectorAll('#tip > *')].map(e => e.textContent)")
    assert dict(zip(told[::2], told[1::2], strict=True)) == {
        "run": "b",
        "Kept beginning of each response (%)": "100",
        "Held-out accuracy (share of pairs)": "0.8333",
        "from": "0.7333",
        "to": "0.9333",
    }
    opened.mouse("mouseMoved", 2, 2)
    assert opened.run("document.getElementById('tip').hidden")


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(opened: Browser, width: int) -> None:
    opened.window(width, 900)
    enliven(opened, width)
    assert opened.run("document.documentElement.scrollWidth <= innerWidth")
    size = "getBoundingClientRect().width"
    inside = f"[...document.querySelectorAll('.chart svg')].filter(s => s.{size} > s.closest('.panel').{size} + 1)"
    assert opened.run(f"{inside}.length") == 0


def test_a_page_without_its_script_is_the_same_page_with_pictures(opened: Browser, url: str, tmp_path: Path) -> None:
    opened("Emulation.setScriptExecutionDisabled", value=True)
    try:
        opened.open(url)
        text = Path(url.removeprefix("file://")).read_text(encoding="utf-8")
        assert len(re.findall('<div class="chart".*?><svg', text)) == text.count('<div class="chart"') > len(NEEDS)
        opened.picture(tmp_path / "page.png")
        assert (tmp_path / "page.png").stat().st_size > 20_000
    finally:
        opened("Emulation.setScriptExecutionDisabled", value=False)


def test_dark_pages_swap_every_colour(opened: Browser) -> None:
    enliven(opened, dark=True)
    point = "document.querySelector('#accuracy .mark-symbol path:not([opacity=\"0\"])')"
    colour = f"getComputedStyle({point}).fill"
    assert opened.run(colour) == "rgb(74, 165, 220)"
    opened.window(1280, 900)
    assert opened.run(colour) == "rgb(0, 114, 178)"


def test_keys_reach_what_scrolls_and_what_opens(opened: Browser) -> None:
    reached = set()
    for _ in range(60):
        opened("Input.dispatchKeyEvent", type="keyDown", key="Tab", code="Tab", windowsVirtualKeyCode=9)
        opened("Input.dispatchKeyEvent", type="keyUp", key="Tab", code="Tab", windowsVirtualKeyCode=9)
        reached.add(opened.run("document.activeElement.tagName + document.activeElement.className"))
    assert {"SUMMARY", "DIVscroll"} <= reached
    levels = [
        int(level) for level in opened.run("[...document.querySelectorAll('h1,h2,h3,h4,h5')].map(h => h.tagName[1])")
    ]
    assert levels[0] == 1 and levels.count(1) == 1
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels)), levels


def trained_on(folder: Path, kind: str, keep: float, seed: int) -> list[runs.Run]:
    """A training and its evaluations on whole and on equally short responses, as the demo makes them."""
    drawn, name = np.random.default_rng(seed), f"{kind.split()[0]}-{round(100 * keep)}"
    facts: dict[str, Any] = {"keep": keep, "kind": kind}
    training = runs.start(folder / name, "train-dpo" if kind == "dpo" else "train-reward", Config(name), facts=facts)
    for step in range(0, 140, 10):
        row = {"step": step, "loss": 0.7 - step / 300, "eval_loss": 0.6} if step else {"step": 0, "loss": 0.7}
        values = {"rewards/margins": step / 40, "rewards/accuracies": 0.5 + step / 300, "rewards/chosen": -step / 9}
        training.log(row | values | {"logps/chosen_change": -float(step), "grad_norm": 1.0, "learning_rate": 1e-3})
    training.count("read", 1400, 1042, {"duplicate": 358})
    training.finish()
    for seen in dict.fromkeys((1.0, keep)):
        evaluation = runs.start(
            folder / f"{name}-on-{round(100 * seen)}", "evaluate", Config(name), facts={**facts, "evaluated_keep": seen}
        )
        accuracy = 0.6 + keep / 3
        evaluation.write_metrics({"accuracy": Estimate(accuracy, accuracy - 0.04, accuracy + 0.04, 358, 358)})
        evaluation.write_records(
            [
                {"chosen_reward": float(a + 1), "rejected_reward": float(b), "chosen_tokens": 30, "rejected_tokens": 20}
                for a, b in drawn.normal(size=(60, 2))
            ]
        )
        evaluation.finish()
    return [runs.load(path) for path in sorted(folder.glob(f"{name}*"))]


@pytest.fixture(scope="module")
def study_url(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A page like the demo's: two kinds of models, five kept ratios."""
    folder = tmp_path_factory.mktemp("study")
    places = itertools.product(("reward model", "dpo"), (0.1, 0.2, 0.3, 0.45, 1.0))
    given = [run for seed, (kind, keep) in enumerate(places) for run in trained_on(folder, kind, keep, seed)]
    return page.write(given, folder / "page.html").as_uri()


HEIGHT, PAGES = 6000, 8


def test_a_study_fits_six_thousand_pixels_and_eight_printed_pages(browser: Browser, study_url: str) -> None:
    browser.visit(study_url)
    browser.window(1280, HEIGHT + 2000)
    unfolded = "document.querySelectorAll('.chart:not(details:not([open]) .chart)')"
    browser.wait(f"[...{unfolded}].every(chart => chart.classList.contains('live'))")
    browser.window(1280, 900)
    assert 3000 < browser.run("document.documentElement.scrollHeight") <= HEIGHT
    printed = base64.b64decode(browser("Page.printToPDF", paperWidth=8.27, paperHeight=11.69)["data"])
    assert 2 < len(re.findall(rb"/Type\s*/Page\b", printed)) <= PAGES


def test_the_first_screen_is_the_answer(browser: Browser, study_url: str) -> None:
    browser.visit(study_url)
    box = "document.querySelector('{}').getBoundingClientRect()"
    for part in ("h1", ".verdict", ".numbers-first", ".key-figure .chart"):
        assert 0 < browser.run(f"{box.format(part)}.bottom") <= 900, part
    assert browser.run(f"{box.format('.key-figure .chart')}.width") > 1100
    assert browser.run("document.querySelector('h1').textContent") == (
        "headwaterReward model and DPO trained on the first 10, 20, 30, 45 and 100\u00a0% of each response"
    )
    assert browser.run("document.querySelectorAll('.numbers-first dd').length") == 4


@pytest.mark.parametrize(("width", "columns"), [(1280, 3), (390, 1)])
def test_figures_use_the_width_of_the_page(browser: Browser, study_url: str, width: int, columns: int) -> None:
    browser.visit(study_url, width=width)
    enliven(browser, width)
    lefts = "[...document.querySelectorAll('#rewards .panel')].map(p => Math.round(p.getBoundingClientRect().x))"
    assert len(set(browser.run(lefts))) == columns
    narrow = "s => s.clientWidth < 0.9 * s.closest('.panel').clientWidth"
    found = browser.run(f"[...document.querySelectorAll('.chart.live svg')].filter({narrow}).length")
    assert found == 0, "drawn at the width of their panels"


def test_a_click_on_a_heading_sorts_the_runs_by_their_numbers(browser: Browser, study_url: str) -> None:
    browser.visit(study_url)
    column = "[...document.querySelectorAll('.sortable tbody tr')].map(r => r.cells[7].firstChild.textContent.trim())"
    click = "document.querySelectorAll('.sortable thead button')[7].click()"
    browser.run(click)
    found = [float(text) for text in browser.run(column) if text != "–"]
    assert found == sorted(found) and len(set(found)) > 3
    browser.run(click)
    assert [float(text) for text in browser.run(column) if text != "–"] == found[::-1]
    assert browser.run("document.querySelectorAll('[aria-sort]').length") == 1


def test_a_printed_page_is_black_on_white(browser: Browser, study_url: str) -> None:
    browser.visit(study_url, dark=True)
    browser("Emulation.setEmulatedMedia", media="print", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    try:
        assert browser.run("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
        assert browser.run("document.documentElement.scrollWidth <= innerWidth")
    finally:
        browser("Emulation.setEmulatedMedia", media="", features=[])


def test_the_page_stays_small(url: str) -> None:
    assert Path(url.removeprefix("file://")).stat().st_size < 5 * MEGABYTE
