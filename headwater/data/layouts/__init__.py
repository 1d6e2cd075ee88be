"""Layouts of public preference data, one small function each. ★ A newcomer adds a layout here.

A layout's reader takes the fields of a row and returns a draft: a pair, several candidates, or one labelled response.
It raises `NoPreference(reason)` for a well-formed row that compares nothing, and `Broken(found, expected)` for a
malformed one. The names in `LAYOUTS` are the values of `--layout`; they do not change.
"""

from __future__ import annotations

from headwater.data.layouts.checks import (
    canonical_row,
    check_candidates,
    check_responses,
    condition_of,
    draft_to_record,
    prompt_row,
)
from headwater.data.layouts.json_text import with_messages
from headwater.data.layouts.layout import (
    AnyDraft,
    Broken,
    CandidatesDraft,
    Cells,
    Draft,
    Fields,
    Layout,
    NoPreference,
    UnpairedDraft,
)
from headwater.data.layouts.suggestion import suggest
from headwater.data.layouts.table import LAYOUTS
from headwater.data.layouts.unread import Unread
from headwater.errors import UsageError, did_you_mean

__all__ = [
    "LAYOUTS",
    "AnyDraft",
    "Broken",
    "CandidatesDraft",
    "Cells",
    "Draft",
    "Fields",
    "Layout",
    "NoPreference",
    "UnpairedDraft",
    "Unread",
    "canonical_row",
    "check_candidates",
    "check_responses",
    "condition_of",
    "detect",
    "draft_to_record",
    "prompt_row",
    "with_messages",
]


def detect(fields: Fields, layout: str | None = None, given: Fields | None = None) -> tuple[Layout, str]:
    """Return the layout of a row, or the one that `layout` names, and why it was chosen.

    `given` is the row before `--columns` renamed its columns, for messages; default: `fields`.
    Errors: `Broken` when no layout fits or several do, or the row lacks columns of the named one; `UsageError` for an
    unknown name.
    """
    if layout is not None:
        return _named(fields, layout)
    fitting = [name for name, known in LAYOUTS.items() if known.fits(fields)]
    if not fitting:
        found = f"{_columns(fields)} fit no known layout"
        raise Broken(
            found, _nearest(fields), f"or describe it, such as {suggest(given or fields)}", code="UNKNOWN_LAYOUT"
        )
    if len(fitting) > 1:
        found = f"{_columns(fields)} fit several layouts ({', '.join(fitting)})"
        raise Broken(found, "choose one with --layout NAME", code="UNKNOWN_LAYOUT")
    name = fitting[0]
    return LAYOUTS[name], f"{name} (has {', '.join(LAYOUTS[name].identifying(fields))})"


def _named(fields: Fields, layout: str) -> tuple[Layout, str]:
    if layout not in LAYOUTS:
        raise UsageError(f"--layout {layout}", "no such layout", did_you_mean(layout, LAYOUTS))
    named = LAYOUTS[layout]
    missing = _missing(named, fields)
    if missing:
        found = f"{_columns(fields)} lack {', '.join(missing)}"
        raise Broken(found, f"--layout {layout} expects them", code="UNKNOWN_LAYOUT")
    return named, f"{layout} (named by --layout)"


def _columns(fields: Fields) -> str:
    return f"columns {', '.join(map(str, fields))}" if fields else "no columns"


def _missing(layout: Layout, fields: Fields) -> list[str]:
    return [column for column in layout.columns if column not in fields]


def _nearest(fields: Fields) -> str:
    """Return the layouts of which the row lacks the fewest columns, and those columns."""
    lacking = {name: _missing(layout, fields) for name, layout in LAYOUTS.items()}
    near = [name for name, missing in lacking.items() if missing and len(missing) < len(LAYOUTS[name].columns)]
    near.sort(key=lambda name: len(lacking[name]))
    if not near:
        return "expected a known layout (docs/data.md lists them)"
    return "expected one of " + "; ".join(f"{name} (lacks {', '.join(lacking[name])})" for name in near[:3])
