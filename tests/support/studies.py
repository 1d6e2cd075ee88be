"""The pages of docs/studies: `python -m tests.support.studies` writes them again from the numbers beside them."""

from __future__ import annotations

from pathlib import Path

from headwater.studies.recipes import pages

FOLDER = Path(__file__).parents[2] / "docs" / "studies"


def expected() -> dict[str, str]:
    """Return what the pages, figures and index hold, by file name."""
    results = pages.read_all(FOLDER)
    found = {pages.INDEX: pages.index(results)}
    for result in results:
        found |= pages.files_of(result)
    return found


def written() -> dict[str, str]:
    """Return what they hold now."""
    files = [path for path in sorted(FOLDER.iterdir()) if path.suffix in (".md", ".svg")]
    return {path.name: path.read_text(encoding="utf-8") for path in files}


if __name__ == "__main__":
    for name in written():
        (FOLDER / name).unlink()
    for name, text in expected().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
