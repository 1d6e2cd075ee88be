"""Results of the Python interface: what a finished run measured and recorded, as tables and figures for notebooks."""

from __future__ import annotations

import functools
import html
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from headwater.errors import UsageError, did_you_mean
from headwater.results.facts import Facts
from headwater.results.runs import Run
from headwater.results.stored import html_table, to_pandas
from headwater.statistics import Estimate

if TYPE_CHECKING:
    import altair
    import pandas

Metric = Estimate | float | int | str | None


class Table(Sequence[Mapping[str, Any]]):
    """Rows by column, read only."""

    def __init__(self, title: str, rows: Sequence[Mapping[str, Any]]) -> None:
        self.title = title
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    @overload
    def __getitem__(self, place: int) -> Mapping[str, Any]: ...
    @overload
    def __getitem__(self, place: slice) -> Table: ...
    def __getitem__(self, place: int | slice) -> Mapping[str, Any] | Table:
        return Table(self.title, self._rows[place]) if isinstance(place, slice) else self._rows[place]

    @property
    def columns(self) -> list[str]:
        """The names of the columns, in the order in which rows have them."""
        return list(dict.fromkeys(column for row in self._rows for column in row))

    def to_pandas(self) -> pandas.DataFrame:
        """Return the rows as a data frame, a column a key. Errors: `UsageError` where pandas is not installed."""
        return to_pandas(self._rows)

    def to_polars(self) -> Any:
        """Return the rows as a data frame, a column a key. Errors: `UsageError` where polars is not installed."""
        try:
            import polars  # type: ignore[import-not-found,unused-ignore]
        except ImportError as error:
            raise UsageError("to_polars", "needs polars, which is not installed", "pip install polars") from error
        return polars.DataFrame([{column: row.get(column) for column in self.columns} for row in self._rows])

    def __repr__(self) -> str:
        return f"<{self.title}: {len(self):,} rows × {len(self.columns)} columns>"

    def _repr_html_(self) -> str:
        return html_table(self.title, self._rows)


class Figures(Mapping[str, "altair.VConcatChart"]):
    """The figures that a run has data for, by name; each is drawn when it is asked for."""

    def __init__(self, run: Run) -> None:
        self._run = run

    @functools.cached_property
    def _drawn(self) -> Mapping[str, altair.VConcatChart]:
        from headwater.reporting import figures

        return figures.charts([self._run])

    def __getitem__(self, name: str) -> altair.VConcatChart:
        if name not in self._drawn:
            hint = did_you_mean(name, self._drawn) if self._drawn else "this run has no figures"
            raise UsageError(f"figures[{name!r}]", f"is no figure of this {self._run.command} run", hint)
        return self._drawn[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._drawn)

    def __len__(self) -> int:
        return len(self._drawn)

    def __repr__(self) -> str:
        return f"<figures: {', '.join(self._drawn) or 'none'}>"


class Result:
    """A finished run. It stands for its directory wherever a function takes a path."""

    def __init__(self, run: Run) -> None:
        self.run = run

    @property
    def path(self) -> Path:
        """Directory of the run; of a training run, a Hugging Face model."""
        return self.run.path

    @property
    def name(self) -> str:
        """Name of the directory."""
        return self.run.name

    @property
    def command(self) -> str:
        """The command that wrote the run."""
        return self.run.command

    @property
    def config(self) -> dict[str, Any]:
        """The settings of the run, by option."""
        return self.run.config

    @property
    def environment(self) -> dict[str, Any]:
        """Command line, versions, machine, and digests of the inputs."""
        return self.run.environment

    @property
    def seconds(self) -> float:
        """Wall time of the command."""
        return self.run.seconds

    @property
    def facts(self) -> Facts:
        """What later commands need to know: how data was truncated, what a model was trained as."""
        return self.run.facts

    @property
    def row_counts(self) -> list[dict[str, Any]]:
        """Rows in = kept + quarantined + dropped, by reason, for every stage."""
        return self.run.row_counts

    @functools.cached_property
    def metrics(self) -> dict[str, Metric]:
        """Figures by name: an `Estimate` (value, low, high, n, clusters) where an interval was computed."""
        return {name: _metric(value) for name, value in self.run.metrics.items()}

    @functools.cached_property
    def history(self) -> Table:
        """A row a logging step of a training."""
        return Table("history", self.run.history)

    @functools.cached_property
    def records(self) -> Table:
        """A row a scored pair, response or prompt; empty for a command that records none."""
        return Table("records", self.run.records())

    @functools.cached_property
    def figures(self) -> Figures:
        """The figures of the report that this run has data for, as Altair charts: `figures["loss"]`."""
        return Figures(self.run)

    def __fspath__(self) -> str:
        return str(self.path)

    def __str__(self) -> str:
        return str(self.path)  # so that `from_pretrained(result)` of transformers finds the model

    def __repr__(self) -> str:
        from headwater.reporting.ending import ending

        figures = [line for line in ending(self.path) if not line.startswith(("written:", "next:"))]
        return f"<{' · '.join([f'{self.command} {self.path}', *figures])}>"

    def _repr_html_(self) -> str:
        caption = f"{self.command}: {self.path}"
        rows = [{"figure": name, **_shown(value)} for name, value in self.metrics.items()]
        counts = [
            f"{stage['stage']}: {stage['rows_in']:,} rows in, {stage['kept']:,} kept"
            + "".join(f", {count:,} {reason}" for reason, count in stage["dropped"].items())
            + (f", {stage['quarantined']:,} malformed" if stage["quarantined"] else "")
            for stage in self.row_counts
        ]
        lines = "".join(f"<div>{html.escape(line)}</div>" for line in counts)
        return html_table(caption, rows) + lines


def _metric(value: Any) -> Metric:
    """Return a stored figure as it was computed: an `Estimate`, where it is one."""
    if isinstance(value, dict) and {"value", "low", "high"} <= set(value):
        return Estimate(**value)
    return value  # type: ignore[no-any-return]


def _shown(value: Metric) -> dict[str, Any]:
    return value._asdict() if isinstance(value, Estimate) else {"value": value}
