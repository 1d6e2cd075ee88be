"""Layouts of public preference data, one small function each. ★ A newcomer adds a layout here.

A layout's reader takes the fields of a row and returns a draft: a pair, several candidates, or one labelled response.
It raises `NoPreference(reason)` for a well-formed row that compares nothing, and `Broken(found, expected)` for a
malformed one. The names in `LAYOUTS` are the values of `--format`; they do not change.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headwater.data.layouts.checks import (
    canonical_row,
    check_candidates,
    check_responses,
    condition_of,
    draft_to_record,
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
from headwater.data.layouts.pairs import SIDES
from headwater.data.layouts.table import LAYOUTS
from headwater.data.layouts.unread import Unread
from headwater.data.preference import PAIR_COLUMNS
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
    "renamed",
    "with_messages",
]


def detect(fields: Fields, layout: str | None = None) -> tuple[Layout, str]:
    """Return the layout of a row, or the one that `layout` names, and why it was chosen.

    Errors: `Broken` when no layout fits or several do, or the row lacks columns of the named one; `UsageError` for an
    unknown name.
    """
    if layout is not None:
        return _named(fields, layout)
    fitting = [name for name, known in LAYOUTS.items() if known.fits(fields)]
    if not fitting:
        found = f"{_columns(fields)} fit no known layout"
        raise Broken(found, _nearest(fields), "or name them with --columns", code="UNKNOWN_LAYOUT")
    if len(fitting) > 1:
        found = f"{_columns(fields)} fit several layouts ({', '.join(fitting)})"
        raise Broken(found, "choose one with --format NAME", code="UNKNOWN_LAYOUT")
    name = fitting[0]
    return LAYOUTS[name], f"{name} (has {', '.join(LAYOUTS[name].columns)})"


def _named(fields: Fields, layout: str) -> tuple[Layout, str]:
    if layout not in LAYOUTS:
        raise UsageError(f"--format {layout}", "no such layout", did_you_mean(layout, LAYOUTS))
    named = LAYOUTS[layout]
    missing = _missing(named, fields)
    if missing:
        found = f"{_columns(fields)} lack {', '.join(missing)}"
        raise Broken(found, f"--format {layout} expects them", code="UNKNOWN_LAYOUT")
    return named, f"{layout} (named by --format)"


def _columns(fields: Fields) -> str:
    return f"columns {', '.join(map(str, fields))}" if fields else "no columns"


def _missing(layout: Layout, fields: Fields) -> list[str]:
    return [column for column in layout.columns if column not in fields]


def _nearest(fields: Fields) -> str:
    """Return the layouts of which the row lacks the fewest columns, and those columns; all names if none is near."""
    lacking = {name: _missing(layout, fields) for name, layout in LAYOUTS.items()}
    near = [name for name, missing in lacking.items() if missing and len(missing) < len(LAYOUTS[name].columns)]
    near.sort(key=lambda name: len(lacking[name]))
    if not near:
        return f"expected one of {', '.join(LAYOUTS)}"
    return "expected one of " + "; ".join(f"{name} (lacks {', '.join(lacking[name])})" for name in near[:3])


_NAMEABLE = (
    *("id", "source", "system", "prompt", "chosen", "rejected", "completion", "label"),
    *("score_chosen", "score_rejected", "chosen_complete", "rejected_complete", "score", "complete"),
    *PAIR_COLUMNS,
)


def renamed(fields: Fields, columns: Mapping[str, str]) -> dict[str, Any]:
    """Return a row under the names of the explicit layouts, as `--columns prompt=x,chosen=y` asks.

    `columns` maps those names to the row's. A column that already has such a name keeps it, unless it was renamed or
    belongs to a response that was replaced (its score). All others are left out, so that no other layout fits.
    Errors: `UsageError` for a name that no layout knows, `Broken` for a missing column.
    """
    for name in columns:
        if name not in _NAMEABLE:
            raise UsageError(f"--columns {name}=…", "no such name", did_you_mean(name, _NAMEABLE))
    missing = [column for column in columns.values() if column not in fields]
    if missing:
        raise Broken(
            f"no column {', '.join(missing)}", f"the row has {', '.join(map(str, fields)) or 'none'}", code="MISSING"
        )
    gone = {*columns.values()}.union(*(_ABOUT[name] for name in columns if name in _ABOUT))
    kept = {name: fields[name] for name in _NAMEABLE if name in fields and name not in gone}
    found = kept | {name: fields[column] for name, column in columns.items()}
    return Cells(found) if isinstance(fields, Cells) else found


_ABOUT = {
    **{side: (f"score_{side}", f"{side}_complete") for side in SIDES},
    "completion": ("score", "complete"),
}
