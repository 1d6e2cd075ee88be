"""The documentation site: what is made from the code, links, messages, papers, and blocks of code that run in order.

`make docs` builds the site itself, strictly; these tests need no mkdocs.
"""

from __future__ import annotations

import functools
import importlib
import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from headwater import cli, config
from headwater.config.options import Options
from headwater.data import reading
from headwater.data.corpus import Corpus, generate
from headwater.data.layouts import LAYOUTS, detect
from headwater.errors import UsageError
from tests.support.site import commands, cookbook, copies, hooks, papers
from tests.support.tree import ROOT

DOCS = ROOT / "docs"
PAGES = {path.relative_to(DOCS).as_posix(): path.read_text(encoding="utf-8") for path in sorted(DOCS.rglob("*.md"))}
PAGES |= {name: (ROOT / path).read_text(encoding="utf-8") for path, name in hooks.ROOT_PAGES.items()}
MADE = commands.pages()
NAV = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]

RUN = ("quickstart.md", "how-to.md", "python.md", "zh/quickstart.md")
"""Pages whose blocks run here, in this order, in one folder."""
ELSEWHERE = {
    "data.md": "tests/data/test_description.py",
    "evaluation.md": "tests/test_readme.py",
    "losses.md": "tests/training/test_losses_train.py",
}
"""Pages whose blocks other tests run."""
TINY = "scratch(hidden=32,layers=1,vocab=300)"
SMALLER = {
    "models/SmolLM2-135M-Instruct": TINY,
    "scratch(hidden=64, layers=1)": TINY,
    "scratch(hidden=64, layers=2)": TINY,
    "--max-new-tokens 32": "--max-new-tokens 8",
    "--max-new-tokens 64": "--max-new-tokens 8",
}
"""Settings of the pages and smaller ones, with which their blocks run."""


class Block(NamedTuple):
    """A block of code of a page; `reason` says why it does not run."""

    language: str
    text: str
    reason: str


def blocks(text: str) -> Iterator[Block]:
    pattern = r"(?:<!-- not run: ([^\n]+) -->\n)?^```(\w+)[^\n]*\n(.*?)^```"
    for reason, language, block in re.findall(pattern, text, flags=re.DOTALL | re.MULTILINE):
        yield Block(language, block, reason)


def lines(block: Block) -> list[str]:
    """The commands of a block; in a console block they follow a `$`."""
    joined = block.text.replace("\\\n", " ")
    return [one for line in joined.splitlines() if (one := line.removeprefix("$ ").strip()).startswith("headwater ")]


def completed(name: str) -> str:
    return hooks.completed(PAGES[name], name)


# --- what is made from the code -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", LAYOUTS)
def test_rows_of_the_cookbook_are_read_as_their_layout(name: str, tmp_path: Path) -> None:
    rows = cookbook.rows_of(name)
    assert len(rows) >= 2
    assert all(detect(row)[0] is LAYOUTS[name] for row in rows)
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    reader = reading.stream(path)
    assert len(list(reader)) == (1 if name in cookbook.NEXT else 2)
    assert not any("Why?" in json.dumps(row) or "Because." in json.dumps(row) for row in rows)


def test_the_cookbook_holds_every_layout() -> None:
    text = completed("cookbook.md")
    assert [name for name in LAYOUTS if f"### {name}\n" not in text] == []


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_the_reference_has_every_option(name: str) -> None:
    options = Options(importlib.import_module(cli.COMMANDS[name].module).Config)
    entries = re.findall(r"^`[^`]*(--[a-z0-9-]+)[^`]*`$", MADE[f"cli/{name}.md"], flags=re.MULTILINE)
    assert sorted(entries) == sorted(map(options.flag, options))


def test_every_loss_is_in_the_paper_index() -> None:
    from headwater.losses import LIVE_REFERENCE_LOSSES, POLICY_LOSSES, REWARD_LOSSES

    text = papers.losses()
    assert [one for one in (POLICY_LOSSES | LIVE_REFERENCE_LOSSES | REWARD_LOSSES) if f"`{one}(" not in text] == []


def test_files_of_the_paper_index_name_their_papers() -> None:
    for row in re.findall(r"^\| .*arXiv:.*$", completed("papers.md"), flags=re.MULTILINE):
        for path in re.findall(r"`(headwater/[\w/]+\.py)`", row):
            code = (ROOT / path).read_text(encoding="utf-8")
            named = set(papers.PAPER.findall(code))
            assert named & set(papers.PAPER.findall(row)), f"{path} does not name the paper of {row[:60]}"


def test_papers_that_only_the_code_names_are_listed() -> None:
    assert papers.sources().count("\n") > 3 and "arXiv:2505.17122" not in papers.sources()


def test_pages_of_commands_and_of_the_repository_join_the_navigation() -> None:
    class Config:
        nav = yaml.safe_load((ROOT / "mkdocs.yml").read_text(encoding="utf-8"))["nav"]

    named = copies.paths_of(hooks.on_config(Config()).nav)
    assert set(named) == set(PAGES) | set(MADE) and len(named) == len(set(named))


# --- links, messages ----------------------------------------------------------------------------------------------


def anchors(text: str) -> set[str]:
    """The anchors of the headings of a page, as Python-Markdown makes them."""
    found = set()
    for heading in re.findall(r"^#+ (.+)$", text, flags=re.MULTILINE):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).encode("ascii", "ignore").decode().lower()
        found.add(re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", plain).strip()))
    return found


@pytest.mark.parametrize("name", PAGES)
def test_links_of_the_site_lead_somewhere(name: str) -> None:
    known = {**PAGES, **MADE}
    text = re.sub(r"^```.*?^```", "", completed(name), flags=re.DOTALL | re.MULTILINE)
    for target, anchor in re.findall(r"\]\((?!\w+:)([^)\s#]*)(?:#([^)\s]+))?\)", text):
        path = (DOCS / name).parent.joinpath(target).resolve() if target else DOCS / name
        place = path.relative_to(DOCS).as_posix()
        found = place in known or path.is_file() or (ROOT / place.removeprefix("files/")).is_file()
        assert found, f"{name}: {target}"
        if anchor:
            assert anchor in anchors(hooks.completed(known[place], place)), f"{name}: {target}#{anchor}"


@functools.cache
def texts_of_the_code() -> str:
    """The code, with texts that continue on the next line in one piece."""
    code = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "headwater").rglob("*.py"))
    return re.sub(r'"\s*\n\s*f?"', "", code)


def test_messages_of_the_troubleshooting_are_those_of_the_code() -> None:
    headings = re.findall(r"^### `(.+)`$", PAGES["troubleshooting.md"], flags=re.MULTILINE)
    assert len(headings) > 25
    for heading in headings:
        for part in filter(None, (part.strip(" ()") for part in re.split(r"…| · ", heading))):
            assert part in texts_of_the_code(), f"no message has {part!r} of {heading!r}"


# --- copies for programs ------------------------------------------------------------------------------------------


def test_llms_txt_has_a_line_for_every_page_with_its_first_sentence() -> None:
    text = copies.index(NAV, {name: completed(name) for name in PAGES})
    assert text.startswith("# headwater\n\n> ")
    assert "- [Truncation](truncation.md): headwater trains on and evaluates the beginning of responses.\n" in text
    assert text.count("\n- [") == len(copies.paths_of(NAV))
    assert not re.findall(r": $", text, flags=re.MULTILINE), "a page without a first sentence"


def test_a_page_that_asks_the_network_is_refused(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_text('<a href="https://arxiv.org">paper</a><script src="site.js"></script>', encoding="utf-8")
    copies.check(tmp_path)
    page.write_text('<script src="https://example.org/site.js"></script>', encoding="utf-8")
    with pytest.raises(SystemExit, match=r"example\.org"):
        copies.check(tmp_path)


# --- blocks of code -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*PAGES, "README"])
def test_commands_of_the_pages_are_understood(name: str) -> None:
    text = PAGES.get(name) or (ROOT / "README.md").read_text(encoding="utf-8")
    for block in blocks(text):
        for line in lines(block) if block.language in ("sh", "console") else []:
            _, command, *arguments = shlex.split(line.partition(" > ")[0], comments=True)
            if command in cli.COMMANDS:
                try:
                    config.parse(importlib.import_module(cli.COMMANDS[command].module).Config, arguments)
                except UsageError as error:  # a file that the page makes before
                    assert "No such file" in str(error), line


@pytest.mark.parametrize("name", [name for name in PAGES if (DOCS / name).is_file() and "studies/" not in name])
def test_blocks_run_or_say_why_not(name: str) -> None:
    """A console block shows what was printed for real data; the command in it is understood (above)."""
    waiting = [one.text for one in blocks(PAGES[name]) if one.language in ("sh", "python") and not one.reason]
    if name in ELSEWHERE:
        assert f'"{name}"' in (ROOT / ELSEWHERE[name]).read_text(encoding="utf-8")
    elif name not in RUN:
        assert waiting == [], f"run {name} in RUN, or mark its blocks: <!-- not run: reason -->"


def _inputs(folder: Path) -> None:
    """The files that the pages name."""
    pairs = list(generate(Corpus(pairs=48)))
    reading.write(folder / "pairs.jsonl", pairs)
    odd = ["question,answer_x,answer_y,label"]
    odd += [f'"Question {n}?","It is {n}.","Nobody knows.",{1 + n % 2}' for n in range(4)]
    rows: dict[str, list[Any]] = {"labelled.jsonl": [], "candidates.jsonl": []}
    for number, pair in enumerate(pairs[:24]):
        prompt, liked = pair.prompt[-1].content, number % 2 == 0
        answer = pair.chosen if liked else pair.rejected
        rows["labelled.jsonl"].append({"prompt": prompt, "completion": answer.text, "label": liked})
        for place, one in enumerate((pair.chosen, pair.rejected)):
            scored = {"prompt": prompt, "response": one.text, "score": number % 5 - place}
            rows["candidates.jsonl"].append(scored)
    for name, each in rows.items():
        (folder / name).write_text("\n".join(map(json.dumps, each)), encoding="utf-8")
    (folder / "odd.csv").write_text("\n".join(odd), encoding="utf-8")
    questions = [{"instruction": pair.prompt[-1].content} for pair in pairs[:4]]
    (folder / "questions.json").write_text(json.dumps(questions), encoding="utf-8")


def test_blocks_run_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    _inputs(tmp_path)
    ran: set[str] = set()
    for name in RUN:
        for block in blocks(PAGES[name]):
            if block.reason or block.language not in ("sh", "python") or block.text in ran:
                continue
            ran.add(block.text)
            text = functools.reduce(lambda found, pair: found.replace(*pair), SMALLER.items(), block.text)
            if block.language == "python":
                exec(compile(text, name, "exec"), {})
                continue
            for line in lines(Block("sh", text, "")):
                assert cli.main(shlex.split(line)[1:]) == 0, f"{name}: {line}"
    assert len(ran) >= 12
