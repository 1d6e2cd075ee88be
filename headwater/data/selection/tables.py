"""Tables of a selection for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from rich.console import Group
from rich.table import Table
from rich.text import Text

from headwater.data.selection.effects import Agreement, Effect
from headwater.data.selection.writing import Example
from headwater.statistics import LEVEL, Estimate


def tables(
    title: str,
    effects: Mapping[str, Effect],
    agreements: Sequence[Agreement],
    gradients: Mapping[str, Estimate],
    examples: Mapping[str, Sequence[Example]],
) -> Group:
    """Return all tables and examples; tables without rows are left out."""
    parts = [effects_table(title, effects)]
    parts += [agreement_table(agreements)] if agreements else []
    parts += [gradients_table(gradients)] if gradients else []
    return Group(*parts, *example_lines(examples))


def effects_table(title: str, effects: Mapping[str, Effect]) -> Table:
    """Return the means of all rows beside those of the rows taken."""
    table = _table(title, "mean of", "all rows", "n", "rows taken", "n")
    for name, effect in effects.items():
        cells = [(with_interval(found), f"{found.n:,}") for found in effect]
        table.add_row(name.replace("_", " "), *(cell for pair in cells for cell in pair))
    return table


def agreement_table(agreements: Sequence[Agreement]) -> Table:
    """Return how far other selectors agree with the one that chose."""
    title = f"\nother selectors at the same budget (brackets: {LEVEL:.0%} intervals)"
    table = _table(title, "selector", "rank correlation", "same rows taken", "by chance")
    for found in agreements:
        cells = (with_interval(found.correlation), with_interval(found.overlap), f"{found.chance:.3f}")
        table.add_row(found.other, *cells)
    return table


def gradients_table(found: Mapping[str, Estimate]) -> Table:
    """Return how gradient norms stand to their bounds."""
    table = _table("\ngradients measured", "figure", f"value and {LEVEL:.0%} interval", "n")
    for name, figure in found.items():
        table.add_row(name.replace("_", " "), with_interval(figure), str(figure.n))
    return table


def example_lines(examples: Mapping[str, Sequence[Example]]) -> list[Text]:
    """Return the prompts at both ends of a ranking with their scores, a line each."""
    lines = []
    for end, found in examples.items():
        lines.append(Text(f"\n{'highest' if end == 'top' else 'lowest'} scores", style="bold cyan"))
        for example in found:
            text = f"  {example.score:.4f}  {_one_line(example.prompt)}"
            lines.append(Text(text, no_wrap=True, overflow="ellipsis"))
    return lines


def with_interval(found: Estimate) -> str:
    """Write a figure with its interval, in four digits."""
    if np.isnan(found.value):
        return "undefined"
    return f"{found.value:.4g}" + ("" if found.low is None else f" [{found.low:.4g}, {found.high:.4g}]")


def _table(title: str, *columns: str) -> Table:
    style = {"title_justify": "left", "title_style": "bold", "header_style": "dim"}
    return Table(*columns, title=title, box=None, padding=(0, 2, 0, 0), **style)  # type: ignore[arg-type]


def _one_line(text: str) -> str:
    """Return a text in one line, without what a terminal would act on."""
    return "".join(character for character in " ".join(text.split()) if character.isprintable())
