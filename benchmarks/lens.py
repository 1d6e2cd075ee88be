"""How fast a lens opens, and how fast its cut moves, in Chromium; and the pictures of it in docs/images.

    python -m benchmarks.lens                            # 200 pairs of 500 tokens, opened 10 times
    python -m benchmarks.lens --pairs 1000
    python -m benchmarks.lens --pictures RUN docs/images # lens-1280.png, lens-390.png of a run of `headwater lens`

Opening counts from navigation to the end of the load event, in which the page's script builds the list and the first
pair; a step is the time of moving the cut by a key and laying the page out again. Words and scores are drawn by a
seeded generator. The browser is the one of the tests (tests/browser.py).
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
from fractions import Fraction
from pathlib import Path

import numpy as np

from headwater.data.truncation import Keep, Truncation
from headwater.reporting.lens.page import page
from headwater.reporting.lens.pieces import Piece, Pieces
from headwater.reporting.lens.views import PAIR, Entry, Lens, Reading, Side, contents
from tests.support.browser import Browser

STEPS = 20
STEP = """(() => {
  const cut = document.getElementById('cut'), began = performance.now();
  cut.focus();
  cut.dispatchEvent(new KeyboardEvent('keydown', { key: 'ArrowRight', bubbles: true }));
  document.body.getBoundingClientRect();
  return performance.now() - began;
})()"""


def made(pairs: int, tokens: int) -> Lens:
    """Return a lens of random words and rewards."""
    rng = np.random.default_rng(0)

    def side() -> Side:
        pieces = [Piece(f" word{i}", 1) for i in rng.integers(1000, size=tokens - 1)]
        return Side(Pieces("", pieces, [Piece("<end>", 1)], ""), (rng.normal(size=tokens).cumsum(),))

    entries = [Entry(f"row {i}", (), {name: side() for name in PAIR}, (float(i),), (50,)) for i in range(pairs)]
    return Lens("made", [], entries, Truncation(Keep(Fraction(1, 2))), (Reading("reward"),))


def said(values: list[float]) -> str:
    """Say the median and the range."""
    return f"{statistics.median(values):.0f} ms (n = {len(values)}, {min(values):.0f} to {max(values):.0f})"


def measure(browser: Browser, path: Path, times: int) -> None:
    """Open the page again and again, and move its cut."""
    opened, steps = [], []
    for _ in range(times):
        browser.visit(path.as_uri())
        opened.append(browser.run("performance.getEntriesByType('navigation')[0].loadEventEnd"))
    for _ in range(STEPS):
        steps.append(browser.run(STEP))
    print(f"{path.stat().st_size / 1e6:.1f} MB; opened in {said(opened)}; a step of the cut {said(steps)}")


def draw(browser: Browser, run: Path, folder: Path) -> None:
    """Take the pictures."""
    folder.mkdir(parents=True, exist_ok=True)
    for width, height in ((1280, 860), (390, 844)):
        browser.visit((run.resolve() / "lens.html").as_uri(), width, height)
        if width < 500:  # a phone shows the text when it is scrolled to
            browser.run("document.getElementById('view').scrollIntoView()")
            browser.settle()
        browser.picture(folder / f"lens-{width}.png")


def main() -> None:
    """Measure, or take pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=200)
    parser.add_argument("--tokens", type=int, default=500)
    parser.add_argument("--times", type=int, default=10)
    parser.add_argument("--pictures", type=Path, nargs=2, metavar=("RUN", "FOLDER"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        browser = Browser(Path(folder) / "profile")
        try:
            if given.pictures:
                draw(browser, *given.pictures)
            else:
                path = Path(folder) / "lens.html"
                path.write_text(page(contents(made(given.pairs, given.tokens))), encoding="utf-8")
                measure(browser, path, given.times)
        finally:
            browser.close()


if __name__ == "__main__":
    main()
