"""What `mkdocs build` does beside rendering: pages from the code, every page as Markdown too, llms.txt.

mkdocs.yml names this file; mkdocs calls the functions by their names.
"""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT))  # mkdocs loads this file by its path

from tests.support.site import commands, cookbook, copies, papers  # noqa: E402

MADE: dict[str, Callable[[], str]] = {
    "commands": commands.table,
    "cookbook": cookbook.text,
    "functions": commands.functions,
    "losses": papers.losses,
    "sources": papers.sources,
}
"""Texts that stand for `<!-- made: NAME -->` in a page."""
ROOT_PAGES = {
    "SECURITY.md": "security.md",
    "CONTRIBUTING.md": "contributing.md",
    "CHANGELOG.md": "changelog.md",
    "recipes/README.md": "recipes.md",
}
"""Pages of the repository outside of docs/, and their names in the site."""


def on_config(config: Any) -> Any:
    """Add to the navigation the page of every command, and the pages of docs/ that mkdocs.yml does not name."""
    sections: dict[str, Any] = {title: pages for section in config.nav for title, pages in section.items()}
    sections["Commands"] += [{Path(path).stem: path} for path in commands.pages()]
    named = set(copies.paths_of(config.nav))
    for path in sorted((ROOT / "docs").rglob("*.md"), key=lambda path: (path.stem != "index", path)):
        name = path.relative_to(ROOT / "docs").as_posix()
        if name not in named:
            sections["Studies" if name.startswith("studies/") else "In depth"].append(name)
    copies.TEXTS.clear()
    return config


def on_files(files: Any, config: Any) -> Any:
    """Add the pages that are made from the code, and those of the repository's root."""
    from mkdocs.structure.files import File

    made = commands.pages() | {name: (ROOT / path).read_text(encoding="utf-8") for path, name in ROOT_PAGES.items()}
    for path, text in made.items():
        files.append(File.generated(config, path, content=text))
    for recipe in sorted((ROOT / "recipes").glob("*.yaml")):
        files.append(File.generated(config, f"files/recipes/{recipe.name}", abs_src_path=str(recipe)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Return the text of a page with what is made from the code, and with the site's names for other files."""
    markdown = completed(markdown, page.file.src_uri)
    copies.TEXTS[page.file.src_uri] = markdown
    return markdown


def on_post_build(config: Any) -> None:
    """Write every page as Markdown beside its HTML, llms.txt and llms-full.txt; refuse pages that need the network."""
    copies.check(Path(config.site_dir))
    copies.write(Path(config.site_dir), config)


def completed(markdown: str, place: str) -> str:
    """Return the Markdown of the page at `place` with the texts that are made, and links that hold in the site."""
    markdown = re.sub(r"^<!-- made: ([a-z]+) -->$", lambda found: MADE[found[1]](), markdown, flags=re.MULTILINE)
    written = next((path for path, name in ROOT_PAGES.items() if name == place), f"docs/{place}")

    def link(found: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(posixpath.dirname(written), found[1]))
        return f"]({posixpath.relpath(in_the_site(target), posixpath.dirname(place) or '.')}{found[2]}"

    return re.sub(r"\]\((?!\w+:|#)([^)\s#]+)([^)\s]*)", link, markdown)


def in_the_site(path: str) -> str:
    """Return where a file of the repository lies in the site."""
    if path == "README.md":
        return "index.md"
    return path.removeprefix("docs/") if path.startswith("docs/") else ROOT_PAGES.get(path, f"files/{path}")
