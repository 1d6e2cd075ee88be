"""How large a report is and how fast it opens, in Chromium; and the pictures of it in docs/images.

    python -m benchmarks.report RUN…                                # written 3 times, opened 10 times
    python -m benchmarks.report RUN… --pictures docs/images/report  # report-1280.png, report-390.png

Written counts from runs in memory to the page's text, drawing library included; opening from navigation to the end of
the load event; alive is when every chart answers a pointer, folds open, in a window as tall as the page. The browser is
the one of the tests (tests/support/browser.py).
"""

from __future__ import annotations

import argparse
import re
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from headwater.reporting import page
from headwater.reporting.scripts import vega
from headwater.results import runs
from tests.support.browser import Browser

TIMES = 10
CHARTS = "document.querySelectorAll('.chart')"
ALIVE = f"[...{CHARTS}].every(chart => chart.classList.contains('live'))"


def said(values: list[float]) -> str:
    """Say the median and the range."""
    return f"{statistics.median(values):.0f} ms (n = {len(values)}, {min(values):.0f} to {max(values):.0f})"


def timed(work: Callable[[], object]) -> float:
    """Return how long `work` takes, in milliseconds."""
    began = time.perf_counter()
    work()
    return 1000 * (time.perf_counter() - began)


def written(given: list[runs.Run]) -> float:
    """Return the milliseconds of writing the page, the library bundled anew."""
    vega.cache_clear()
    return timed(lambda: page.render(given))


def measure(browser: Browser, path: Path) -> None:
    """Open the page again and again."""
    text = path.read_text(encoding="utf-8")
    data = re.findall('<script type="application/json" id="charts">(.*?)</script>', text, re.DOTALL)
    parts = {"drawing library": vega(), "pictures": "".join(re.findall("<svg xmlns.*?</svg>", text, re.DOTALL))}
    parts |= {"data of the charts": "".join(data)}
    sizes = ", ".join(f"{name} {len(part.encode()) / 1e6:.2f}" for name, part in parts.items())
    print(f"{path.stat().st_size / 1e6:.2f} MB ({sizes}); {text.count('data-chart=')} charts")
    opened, alive = [], []
    for _ in range(TIMES):
        browser.visit(path.as_uri())
        opened.append(browser.run("performance.getEntriesByType('navigation')[0].loadEventEnd"))
        browser.run("document.querySelectorAll('details').forEach((fold) => { fold.open = true; })")
        browser.window(1280, int(browser.run("document.body.scrollHeight")) + 100)
        alive.append(timed(lambda: browser.wait(ALIVE)))
    print(f"opened in {said(opened)}; every chart alive after another {said(alive)}")


def draw(browser: Browser, path: Path, stem: Path) -> None:
    """Take the pictures of the first screen; on a wide screen with a pointer over the last mark of its figure."""
    stem.parent.mkdir(parents=True, exist_ok=True)
    inside = f"[...{CHARTS}].filter(c => c.getBoundingClientRect().top < innerHeight)"
    for width, height in ((1280, 900), (390, 844)):
        browser.visit(path.as_uri(), width, height)
        browser.wait(f"{inside}.every(chart => chart.classList.contains('live'))")
        points = f"[...{CHARTS}[0].querySelectorAll('.mark-symbol path:not([opacity=\"0\"])')]"
        boxes = f"{points}.map(p => p.getBoundingClientRect()).map(b => [b.x + b.width / 2, b.y + b.height / 2])"
        if width > 500 and (marks := browser.run(boxes)):
            browser.mouse("mouseMoved", *marks[-1])
        browser.picture(stem.with_name(f"{stem.name}-{width}.png"))


def main() -> None:
    """Measure, or take pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    parser.add_argument("--pictures", type=Path, metavar="STEM")
    given = parser.parse_args()
    loaded = [runs.load(path) for path in given.runs]
    with tempfile.TemporaryDirectory() as folder:
        path = page.write(loaded, Path(folder) / "report.html")
        browser = Browser(Path(folder) / "profile")
        try:
            if given.pictures:
                draw(browser, path, given.pictures)
            else:
                print(f"written in {said([written(loaded) for _ in range(3)])}")
                measure(browser, path)
        finally:
            browser.close()


if __name__ == "__main__":
    main()
