"""The report in a browser: drawn, and with nothing in it that runs."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from headwater import runs
from headwater.report import page
from headwater.statistics import Estimate
from tests.browser import Browser

BAD = "<img src=x onerror=document.title='broken'>"


@dataclasses.dataclass(frozen=True)
class Config:
    model: str = BAD


@pytest.fixture
def url(tmp_path: Path) -> str:
    writer = runs.start(tmp_path / "<img src=x onerror=alert(1)>", "evaluate", Config())
    writer.write_metrics({"accuracy": Estimate(0.8, 0.7, 0.9, 100, 90)})
    writer.write_records([{"chosen_reward": float(i), "rejected_reward": 0.0} for i in range(9)])
    return page.write([runs.load(writer.finish())], tmp_path / "page.html").as_uri()


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_is_drawn(browser: Browser, url: str, width: int) -> None:
    browser.visit(url, width)
    assert browser.run("document.querySelectorAll('.chart svg path').length") > 0
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.problems == [] and browser.requests == [url]


def test_injected_markup_stays_text_in_a_browser(browser: Browser, url: str) -> None:
    browser.visit(url)
    assert browser.run("document.querySelectorAll('img').length") == 0
    assert BAD in browser.run("document.body.textContent")
    assert browser.run("document.title") == "headwater · <img src=x onerror=alert(1)>"
