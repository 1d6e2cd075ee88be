"""A lens as one self-contained page, or as a part of one.

Texts and scores go into the page as JSON that no markup can leave; its script, the only one that the page's policy
lets run, shows every text as text. Nothing is fetched from anywhere; a live page asks the server it came from.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import jinja2
from markupsafe import Markup
from rich.text import Text

from headwater import files
from headwater.console import say, show
from headwater.marks import visible
from headwater.reporting.lens.views import Contents, Lens, contents
from headwater.reporting.scripts import embedded, source

FOLDER = Path(__file__).parent
SCRIPTS = ("text.js", "chart.js", "lens.js")
DATA = "lens.json"
"""In a run: the contents of its lens, for the report."""
PAGE = "lens.html"
"""In a run: the page."""


def page(contents: Contents, live: bool = False) -> str:
    """Return the page as HTML; the same contents always give the same page. `live`: with a form to type pairs."""
    return (
        _environment()
        .get_template("lens.html")
        .render(**_parts(contents, live), script=Markup(script()), allowed=Markup(source(script())))
    )


def write_lens(run: Path, lens: Lens) -> None:
    """Write the page and the contents of a lens into a run, and print its notes."""
    plain = contents(lens)
    files.write_text(run / PAGE, page(plain))
    files.write_text(run / DATA, files.to_json(plain))
    for note in lens.notes:
        show(Text(visible(note)))
    say(f"lens: {run / PAGE}")


def section(contents: Contents, name: str) -> Markup:
    """Return a lens as an element of another page, with its style inside; `name` begins its addresses.

    The page must also hold `script()`, once, and its policy must let it run.
    """
    return Markup(_environment().get_template("section.html").render(**_parts({**contents, "name": name}, False)))


@cache
def script() -> str:
    """Return the script of every lens on a page."""
    parts = "\n".join((FOLDER / name).read_text(encoding="utf-8") for name in SCRIPTS)
    return f'"use strict";\n(() => {{\n{parts}\n}})();\n'


def _parts(contents: Contents, live: bool) -> Contents:
    shown = {key: value for key, value in contents.items() if key not in ("title", "notes")}
    return {
        "title": contents["title"],
        "notes": contents["notes"],
        "sides": contents["sides"],
        "readings": contents["readings"],
        "spoken": any(entry[side]["share"] for entry in contents["entries"] for side in contents["sides"]),
        "live": live,
        "data": embedded({"name": "", "live": live, **shown}),
        "style": Markup((FOLDER / "lens.css").read_text(encoding="utf-8")),
    }


@cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.FileSystemLoader(FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
