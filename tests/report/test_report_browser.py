"""The page in Chromium: it draws every chart, asks the network for nothing, complains of nothing, and runs nothing of
what stands in the data."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
from pathlib import Path

import pytest

from headwater import cli
from headwater.report import page
from headwater.results import runs
from tests.report.test_plots import NEEDS
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
    """Make the window as tall as the page, wait until every chart lives, and return how many there are."""
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


def test_the_page_stays_small(url: str) -> None:
    assert Path(url.removeprefix("file://")).stat().st_size < 5 * MEGABYTE
