"""Interactive drawings: the specification of a drawing, with tooltips.

Tooltips need no code in a figure: a mark shows what it encodes, under the titles of its axes, and the columns of its
rows that identify it (`COLUMNS`). A line or an area, which is one mark for many rows, gets a transparent point a row.
An encoding with a `tooltip` of its own keeps it.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from headwater.reporting.plots.drawing import Chart

WHICH = ("run", "name", "label", "model", "source", "side", "kind", "part", "family", "estimator")
"""Columns that identify a mark; shown first."""
HOW_SURE = {"low": "from", "first": "25 %", "middle": "median", "third": "75 %", "high": "to", "n": "n"}
"""Columns of uncertainty, with their names in a tooltip; shown last."""
TRACED = ("line", "area")
REACH = 140
"""Area in square pixels of the transparent points over a line."""
DIGITS = 6

Spec = dict[str, Any]
Rows = Sequence[Mapping[str, Any]]


def interactive(chart: Chart) -> Spec:
    """Return the specification of a drawing in which marks have tooltips, with shorter numbers."""
    spec: Spec = chart.to_dict()
    data = {name: [_rounded(row) for row in rows] for name, rows in spec.get("datasets", {}).items()}
    titles = {channel: title for layer in _units(spec) for channel, title in _titles(layer)}
    (layer,) = _with_tooltips(spec, data, titles)
    return layer | {"datasets": data}


def _rounded(row: Mapping[str, Any]) -> dict[str, Any]:
    return {name: float(f"{v:.{DIGITS}g}") if isinstance(v, float) else v for name, v in row.items()}


def _units(layer: Spec) -> Iterator[Spec]:
    if "layer" in layer:
        for inner in layer["layer"]:
            yield from _units(inner)
    else:
        yield layer


def _titles(layer: Spec) -> Iterator[tuple[str, str]]:
    for channel in ("x", "y"):
        if title := layer.get("encoding", {}).get(channel, {}).get("title"):
            yield channel, title


def _with_tooltips(layer: Spec, data: Mapping[str, Rows], titles: Mapping[str, str]) -> Iterator[Spec]:
    """Yield a layer with its tooltip and, where it is a line, the transparent points that have it."""
    if "layer" in layer:
        # Data that all layers share stand above them.
        shared = {"data": layer["data"]} if "data" in layer else {}
        yield layer | {
            "layer": [each for inner in layer["layer"] for each in _with_tooltips(shared | inner, data, titles)]
        }
        return
    mark = layer["mark"] if isinstance(layer["mark"], Mapping) else {"type": layer["mark"]}
    encoding, rows = layer.get("encoding", {}), data.get(layer.get("data", {}).get("name", ""), ())
    if not rows:
        return  # nothing to draw, and Vega warns of it
    if mark["type"] == "text" or "tooltip" in encoding:
        yield layer
        return
    tooltip = list(_tooltip(encoding, rows, titles))
    if mark["type"] not in TRACED:
        yield layer | {"encoding": encoding | {"tooltip": tooltip}}
        return
    yield layer
    unseen = {"type": "point", "filled": True, "opacity": 0, "size": REACH, "xOffset": mark.get("xOffset", 0)}
    placed = {channel: encoding[channel] for channel in ("x", "y", "color") if channel in encoding}
    yield {"mark": unseen, "data": layer["data"], "encoding": placed | {"tooltip": tooltip}}


def _tooltip(encoding: Spec, rows: Rows, titles: Mapping[str, str]) -> Iterator[Spec]:
    """Yield the fields of a tooltip: what identifies the mark, its position, its uncertainty."""
    called = dict.fromkeys(field for field in WHICH if field in rows[0])
    styles = {}
    for key in ("x", "x2", "y", "y2"):
        channel = encoding.get(key, {})
        if (field := channel.get("field")) and field not in HOW_SURE:
            called[field] = channel.get("title") or titles.get(key)
            styles[field] = (channel.get("axis") or {}).get("format", "")
    called |= {field: title for field, title in HOW_SURE.items() if field in rows[0]}
    for field, title in called.items():
        values = [row[field] for row in rows if row.get(field) is not None]
        if values:
            yield {"field": field, "title": title or field} | _format(values, styles.get(field, ""))


def _format(values: Sequence[Any], style: str) -> Spec:
    """Return the format of values: texts unchanged, counts whole, shares in per cent where their axis is."""
    if any(isinstance(value, str) for value in values):
        return {"type": "nominal"}
    whole = all(isinstance(value, int) for value in values)
    return {"type": "quantitative", "format": ".3~p" if "%" in style else ",d" if whole else ".4~g"}
