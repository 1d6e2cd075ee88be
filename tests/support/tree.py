"""The tree in docs/architecture.md: every module with the first line of its docstring.

`python -m tests.support.tree` writes it anew.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "architecture.md"
BEGIN, END = "<!-- tree: begin -->\n", "<!-- tree: end -->"


def of_the_code() -> str:
    """Return the tree of the package as Markdown."""
    return "```\n" + "\n".join(["headwater/", *_lines(ROOT / "headwater", "    ")]) + "\n```\n"


def in_the_documentation() -> str:
    """Return the tree as the documentation has it."""
    page = PAGE.read_text(encoding="utf-8")
    return page[page.index(BEGIN) + len(BEGIN) : page.index(END)]


def _lines(folder: Path, indent: str) -> Iterator[str]:
    """Yield a line for every module of a folder, then its sub-folders."""
    for path in sorted(folder.glob("*.py")):
        if path.name != "__init__.py":
            yield f"{indent}{path.name:<28}{_summary(path)}".rstrip()
    for inner in sorted(each for each in folder.iterdir() if (each / "__init__.py").is_file()):
        yield f"{indent}{inner.name + '/':<28}{_summary(inner / '__init__.py')}".rstrip()
        yield from _lines(inner, indent + "    ")


def _summary(path: Path) -> str:
    return (ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or "").partition("\n")[0]


if __name__ == "__main__":
    written = PAGE.read_text(encoding="utf-8")
    begin, end = written.index(BEGIN) + len(BEGIN), written.index(END)
    PAGE.write_text(written[:begin] + of_the_code() + written[end:], encoding="utf-8")
