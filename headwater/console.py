"""What a command says while it works: plain lines and progress bars on standard error, results on standard output."""

from __future__ import annotations

import contextlib
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Any, Literal, Protocol, TypeVar

import numpy as np
from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import (
    BarColumn,
    DownloadColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.table import Table

from headwater import interrupts
from headwater.marks import marked

T = TypeVar("T")


class _Marked(Console):
    """A console that shows what a terminal would act on or hide, in texts from elsewhere, as visible marks."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=marked(segment.text))


# Prompts and names of models may hold what rich would take for markup, or for the name of an emoji.
_stderr = _Marked(stderr=True, highlight=False, soft_wrap=True, markup=False, emoji=False)
_stdout = _Marked(markup=False, emoji=False)
_silenced = False


class RowAccount(Protocol):
    """Rows in = kept + quarantined + dropped, by reason."""

    rows_in: int
    kept: int
    quarantined: int
    dropped: Counter[str]
    first: dict[str, str]

    @property
    def split(self) -> str:
        """Which split of several was read."""

    @property
    def not_read(self) -> Collection[str]:
        """What rows hold and nobody reads."""

    @property
    def notes(self) -> Mapping[str, int]:
        """Rows that were read in a way that a reader should know of."""


def say(line: str) -> None:
    """Print one line of progress or account to standard error; markup in it is text."""
    if not _silenced:
        _stderr.print(line, markup=False)


def show(result: RenderableType) -> None:
    """Print a result to standard output: a table, or text."""
    if not _silenced:
        _stdout.print(result)


def show_line(line: str) -> None:
    """Print one line to standard output, however long; markup in it is text."""
    if not _silenced:
        _stdout.print(line, soft_wrap=True, highlight=False)


BARS = "▁▂▃▄▅▆▇█"
WIDTH = 32


def sparkline(values: Sequence[float], width: int = WIDTH) -> str:
    """Return numbers as one line of bars from the least to the largest; many are averaged in `width` stretches."""
    if not len(values):
        return ""
    stretches = np.array_split(np.asarray(values, dtype=np.float64), min(width, len(values)))
    heights = np.array([stretch.mean() for stretch in stretches])
    low, high = heights.min(), heights.max()
    if high == low:
        return BARS[0] * len(heights)
    places = np.rint((heights - low) / (high - low) * (len(BARS) - 1)).astype(int)
    return "".join(BARS[place] for place in places)


def trends(history: Sequence[Mapping[str, Any]], columns: Mapping[str, str]) -> Table:
    """Return a line for each of the `columns` that a history has: its name, first value, course and last value."""
    table = Table.grid(padding=(0, 1))
    sides: tuple[Literal["left", "right"], ...] = ("left", "right", "left", "left")
    for justify in sides:
        table.add_column(justify=justify, no_wrap=True)
    for column, name in columns.items():
        values = [row[column] for row in history if row.get(column) is not None]
        if len(values) > 1:
            table.add_row(f"  {name}", f"{values[0]:.4g}", sparkline(values), f"{values[-1]:.4g}")
    return table


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """Say and show nothing inside: for a study that runs many commands under one progress bar."""
    global _silenced
    before, _silenced = _silenced, True
    try:
        yield
    finally:
        _silenced = before


def draws_bars() -> bool:
    """Say whether progress bars can be drawn: on a terminal, and not silenced."""
    return _stderr.is_terminal and not _silenced


def say_stages(stages: Mapping[str, RowAccount]) -> None:
    """Print row accounts: `read: 12 rows in = 9 kept + 1 quarantined + 2 dropped (empty_response 2)`."""
    for stage, row_counts in stages.items():
        reasons = ", ".join(f"{reason} {count}" for reason, count in sorted(row_counts.dropped.items()))
        dropped = sum(row_counts.dropped.values())
        parts = f"{row_counts.kept} kept + {row_counts.quarantined} quarantined + {dropped} dropped"
        line = f"{stage}: {row_counts.rows_in} rows in = {parts}"
        say(line + (f" ({reasons})" if reasons else ""))
        if row_counts.split:
            say(f"{stage}, split: {row_counts.split}")
        if row_counts.not_read:
            say(f"{stage}, not read: {', '.join(row_counts.not_read)}")
        for note, count in sorted(row_counts.notes.items()):
            say(f"{stage}, {note}: {count} rows")
        say_refusals(row_counts)


def say_refusals(row_counts: RowAccount) -> None:
    """Print, by reason, the first dropped row of which there is more to say."""
    for reason, message in row_counts.first.items():
        say(f"  {reason} {row_counts.dropped[reason]}, the first {message}")


def say_notes(notes: Mapping[str, int]) -> None:
    """Print how many responses met a rule: `boundary_merged 3 responses`."""
    for note, count in sorted(notes.items()):
        say(f"{note}: {count} responses")


def track(items: Iterable[T], what: str, total: int) -> Iterable[T]:
    """Yield `items` under a progress bar with a count and the time left; nothing is drawn off a terminal.

    Between two items the command can be stopped. Errors: `Stopped`.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_stderr, transient=True, disable=not draws_bars()) as progress:
        for item in progress.track(items, total=total, description=what):
            yield item
            interrupts.check()


@contextlib.contextmanager
def meter(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """Draw a bar over `total` bytes with the time left; yields a function to be told of every few bytes read.

    Where it is told, the command can be stopped. Errors: `Stopped`.
    """
    if not total or not draws_bars():
        yield lambda count: interrupts.check()
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Progress(*columns, console=_stderr, transient=True) as progress:
        task = progress.add_task(what, total=total)

        def advance(count: int) -> None:
            progress.advance(task, count)
            interrupts.check()

        yield advance


class Steps:
    """A named sequence of steps under one bar; off a terminal, one plain line a step."""

    def __init__(self, progress: Progress, total: int) -> None:
        self._progress, self._total, self._done = progress, total, 0
        self._task = progress.add_task("", total=total)

    @contextlib.contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Run one step, silenced, under its name. Errors: `Stopped`."""
        interrupts.check()
        self._done += 1
        self._progress.update(self._task, description=name)
        if not _stderr.is_terminal:
            say(f"[{self._done}/{self._total}] {name}")
        with silence():
            yield
        self._progress.advance(self._task)


@contextlib.contextmanager
def steps(total: int) -> Iterator[Steps]:
    """Draw a bar over `total` named steps."""
    columns = (TextColumn("{task.description:<34}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=_stderr, disable=not draws_bars()) as progress:
        yield Steps(progress, total)
