"""The site for programs that read text: every page as Markdown beside its HTML, llms.txt and llms-full.txt."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.tree import ROOT

TEXTS: dict[str, str] = {}
"""The Markdown of every page of this build, by its path."""
ABOUT = "Align language models from the part of preference data that carries the signal: a Python library and commands."


def write(site: Path, config: Any) -> None:
    """Write the copies of all pages in `TEXTS` and both index files into the folder of a built site."""
    written = {path: with_docstrings(text) for path, text in TEXTS.items()}
    for path, text in written.items():
        (site / path).parent.mkdir(parents=True, exist_ok=True)
        (site / path).write_text(text, encoding="utf-8")
    (site / "llms.txt").write_text(index(config.nav, written), encoding="utf-8")
    full = [f"<!-- {path} -->\n\n{written[path].strip()}\n" for _, path in _pages(config.nav)]
    (site / "llms-full.txt").write_text("\n".join(full), encoding="utf-8")


def check(site: Path) -> None:
    """Refuse a site of which a page loads something from elsewhere: scripts, styles, fonts or pictures."""
    for page in site.rglob("*.html"):
        text = page.read_text(encoding="utf-8")
        found = re.findall(r"<(?:script|img|iframe)[^>]+src=\"?(https?:[^\">\s]+)", text)
        found += re.findall(r"<link[^>]+rel=\"?(?:stylesheet|preconnect|icon)[^>]+href=\"?(https?:[^\">\s]+)", text)
        if found:
            raise SystemExit(f"{page.relative_to(site)} · asks {found[0]} · expected pages that need no network")


def index(nav: list[Any], texts: dict[str, str]) -> str:
    """Return llms.txt: name, summary, and a line for every page of the navigation, by section (llmstxt.org)."""
    lines = ["# headwater", "", f"> {ABOUT}"]
    heading = ""
    for section, path in _pages(nav):
        if section != heading:
            lines += ["", f"## {section}", ""]
            heading = section
        title = re.search(r"^# (.+)$", texts[path], flags=re.MULTILINE)
        lines.append(f"- [{title[1] if title else path}]({path}): {first_sentence(texts[path])}")
    return "\n".join(lines) + "\n"


def first_sentence(text: str) -> str:
    """Return the first sentence of a page's first paragraph, without links."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.DOTALL | re.MULTILINE)
    paragraphs = (" ".join(part.split()) for part in text.split("\n\n"))
    plain = (part for part in paragraphs if part and not re.match(r"[#<|!`\-:$]|\[!", part))
    found = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", next(plain, ""))
    return re.split(r"(?<=[.:])\s|(?<=[。：])", found)[0]


def with_docstrings(text: str) -> str:
    """Return a text in which `::: name`, which mkdocstrings renders, is the signature and docstring of that object."""
    if not re.search(r"^::: ", text, flags=re.MULTILINE):
        return text
    import griffe

    def shown(match: re.Match[str]) -> str:
        module, _, name = match[1].rpartition(".")
        path = ROOT / f"{module.replace('.', '/')}.py"
        found = griffe.visit(module, filepath=path, code=path.read_text(encoding="utf-8"))
        return "\n\n".join(_described(found[name], 3)) + "\n"

    return re.sub(r"^::: (\S+)\n(?: {4}.*\n)*", shown, text, flags=re.MULTILINE)


def _described(thing: Any, level: int) -> Iterator[str]:
    """Yield the heading, signature and docstring of an object, and those of its public members."""
    yield f"{'#' * level} {thing.path if level == 3 else thing.name}"
    if thing.is_function:
        yield f"```python\n{thing.signature()}\n```"
    if thing.docstring:
        yield thing.docstring.value
    if thing.is_class:
        for name, member in thing.members.items():
            if not name.startswith("_") and member.docstring:
                yield from _described(member, level + 1)


def paths_of(nav: list[Any]) -> list[str]:
    """Return the paths of all pages of a navigation, in order."""
    return [path for _, path in _pages(nav)]


def _pages(nav: list[Any], section: str = "") -> Iterator[tuple[str, str]]:
    """Yield the section and path of every page of a navigation, in order."""
    for entry in nav:
        title, target = next(iter(entry.items())) if isinstance(entry, dict) else ("", entry)
        if isinstance(target, list):
            yield from _pages(target, section or title)
        else:
            yield section or "Start", target
