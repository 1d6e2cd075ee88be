"""The finished cells of a study, as tables, figures and claims read them."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from headwater.results.runs import Run
from headwater.studies.recipes import patterns


@dataclass(frozen=True)
class Finished:
    """A finished cell."""

    name: str
    pattern: str
    """Pattern of the names of the cells of its step."""
    values: Mapping[str, str]
    run: Run


@dataclass(frozen=True)
class FinishedCells:
    """The finished cells of a study in the order of its values, and how many cells every pattern has."""

    cells: Mapping[str, Finished]
    totals: Mapping[str, int]
    values: Mapping[str, Sequence[str]]
    """Values of the study in their order, by name."""
    sources: Mapping[str, str]
    """Paths of data and models, as `data:NAME` and `model:NAME`."""

    def of(self, wanted: Sequence[str]) -> list[Finished]:
        """Return the finished cells of some patterns."""
        return [cell for cell in self.cells.values() if cell.pattern in wanted]

    def total(self, wanted: Sequence[str]) -> int:
        """Return how many cells some patterns have."""
        return sum(self.totals[pattern] for pattern in wanted)

    def beside(self, pattern: str, cell: Finished) -> Finished | None:
        """Return the finished cell of another pattern with the same values; None where there is none."""
        return self.cells.get(patterns.directory(patterns.with_values(pattern, cell.values, cell.name)))

    def groups(self, wanted: Sequence[str], rows: Sequence[str]) -> Iterator[tuple[dict[str, str], list[Finished]]]:
        """Yield the cells that share their values of `rows`, with these values, in the order of the study."""

        def key(cell: Finished) -> tuple[str, ...]:
            return tuple(cell.values.get(name, "") for name in rows)

        found: dict[tuple[str, ...], list[Finished]] = {}
        for cell in self.of(wanted):
            found.setdefault(key(cell), []).append(cell)
        for shared in self._in_order(rows, list(found)):
            yield dict(zip(rows, shared, strict=True)), found[shared]

    def _in_order(self, rows: Sequence[str], keys: Sequence[tuple[str, ...]]) -> Iterator[tuple[str, ...]]:
        """Yield keys with the first value slowest; values of a single step come behind those of the study."""
        lists = [
            list(dict.fromkeys([*self.values.get(name, ()), *(key[place] for key in keys)]))
            for place, name in enumerate(rows)
        ]
        yield from (key for key in itertools.product(*lists) if key in set(keys))


def others(cell: Finished, rows: Sequence[str]) -> str:
    """Return what tells a cell from the others of its group: its values that are not in `rows`, such as the seed."""
    return ", ".join(f"{name} {value}" for name, value in cell.values.items() if name not in rows)
