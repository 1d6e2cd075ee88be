"""The generated parts of the paper index: every loss, and every other paper that the code names."""

from __future__ import annotations

import re
from collections import defaultdict

from tests.support.tree import ROOT

PAPER = re.compile(r"arXiv:(\d{4}\.\d{5})")


def losses() -> str:
    """Return a table of all losses with source, formula and file, from docs/losses.md and the code."""
    files = {
        name: path.relative_to(ROOT).as_posix()
        for path in sorted((ROOT / "headwater" / "losses").glob("*.py"))
        for name in re.findall(r'name: ClassVar\[str\] = "(\w+)"', path.read_text(encoding="utf-8"))
    }
    lines = ["| loss | source | formula | file |", "|---|---|---|---|"]
    page = (ROOT / "docs" / "losses.md").read_text(encoding="utf-8")
    for name, call, cells in re.findall(r"^\| `((\w+)\([^`]*\))` \|(.+)\|$", page, flags=re.MULTILINE):
        formula, _, source, _ = re.split(r"(?<!\\)\|", cells)
        lines.append(f"| `{name}` | {source.strip() or '–'} | {formula.strip()} | `{files[call]}` |")
    return "\n".join(lines)


def sources() -> str:
    """Return a list of the papers that the code names and neither docs/papers.md nor docs/losses.md does."""
    pages = "".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("papers.md", "losses.md"))
    known, found = set(PAPER.findall(pages)), defaultdict(set)
    for path in sorted((ROOT / "headwater").rglob("*.py")):
        for paper in PAPER.findall(path.read_text(encoding="utf-8")):
            if paper not in known:
                found[paper].add(f"`{path.relative_to(ROOT).as_posix()}`")
    return "\n".join(f"- arXiv:{paper}: {', '.join(sorted(files))}" for paper, files in sorted(found.items()))
