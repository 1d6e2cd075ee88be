"""Scripts and data inside a page: only scripts named by their digest run, and data cannot end its element."""

from __future__ import annotations

import base64
import functools
import hashlib
from pathlib import Path
from typing import Any

import vl_convert
from markupsafe import Markup

from headwater.files import to_json


def embedded(value: Any) -> Markup:
    """Return a value as JSON for a page; "<" is written as an escape, because it could close the element."""
    return Markup(to_json(value).replace("<", "\\u003c"))


def source(*scripts: str) -> str:
    """Return the script sources of a content security policy that allows these scripts alone."""
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    return " ".join(f"'sha256-{digest}'" for digest in digests) or "'none'"


def own(name: str) -> str:
    """Return a script of this folder."""
    return (Path(__file__).parent / name).read_text(encoding="utf-8")


@functools.cache
def vega() -> str:
    """Return the drawing library (Vega, Vega-Lite, Vega-Embed) in one script, as bundled with vl-convert."""
    bundle: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    assert "</script" not in bundle.lower() and "<!--" not in bundle, "the bundle would end its own element"
    return bundle
