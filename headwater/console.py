"""Console output of commands: messages and progress bars on standard error, results on standard output."""

from __future__ import annotations

import contextlib
import time
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
    ProgressColumn,
    Task,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from headwater import interrupts
from headwater.marks import marked

T = TypeVar("T")


class _Marked(Console):
    """A console that shows control and invisible characters of printed texts as visible marks."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            yield segment if segment.control else segment._replace(text=marked(segment.text))


# Prompts and model names may hold text that rich would read as markup, or as the name of an emoji.
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
        """Name of the split that was read, where there are several."""

    @property
    def not_read(self) -> Collection[str]:
        """Columns of the data that are not read."""

    @property
    def notes(self) -> Mapping[str, int]:
        """Numbers of rows that were read in a way worth mentioning."""


def say(line: str) -> None:
    """Print one line to standard error, without interpreting markup."""
    if not _silenced:
        _stderr.print(line, markup=False)


def show(result: RenderableType) -> None:
    """Print a result to standard output: a table, or text."""
    if not _silenced:
        _stdout.print(result)


def show_line(line: str) -> None:
    """Print one line to standard output, however long, without interpreting markup."""
    if not _silenced:
        _stdout.print(line, soft_wrap=True, highlight=False)


BARS = "▁▂▃▄▅▆▇█"
WIDTH = 32


def sparkline(values: Sequence[float], width: int = WIDTH) -> str:
    """Return numbers as one line of bars, scaled from the smallest to the largest; averaged to at most `width` bars."""
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
    """Return a line for each of the `columns` that a history has: name, first value, curve and last value."""
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
    """Print nothing in the block: for a study that runs many commands under one progress bar."""
    global _silenced
    before, _silenced = _silenced, True
    try:
        yield
    finally:
        _silenced = before


def draws_bars() -> bool:
    """Return whether progress bars can be drawn: on a terminal, and not silenced."""
    return _stderr.is_terminal and not _silenced


def say_stages(stages: Mapping[str, RowAccount]) -> None:
    """Print row counts: `read: 12 rows in = 9 kept + 1 quarantined + 2 dropped (empty_response 2)`."""
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
    """Print the first dropped row of every reason that has details."""
    for reason, message in row_counts.first.items():
        say(f"  {reason} {row_counts.dropped[reason]}, the first {message}")


def say_notes(notes: Mapping[str, int], unit: str = "responses") -> None:
    """Print how many responses, or prompts, met a rule: `boundary_merged: 3 responses`."""
    for note, count in sorted(notes.items()):
        say(f"{note}: {count} {unit}")


class Pace:
    """Rate and time left of a step that takes long."""

    def __init__(self, total: int, done: int = 0) -> None:
        """Begin now, with `done` of `total` items."""
        self._total, self._before = total, done
        self._began = self._said = time.monotonic()

    def rate(self, done: int) -> float:
        """Return items a second since the beginning; 0 before any time has passed."""
        seconds = time.monotonic() - self._began
        return (done - self._before) / seconds if seconds > 0 else 0.0

    def left(self, done: int) -> str:
        """Return `3.2 a second, 2 min 5 s left`; empty before the first item and after the last."""
        rate = self.rate(done)
        if not rate or done >= self._total:
            return ""
        return f"{rate:.3g} a second, {duration((self._total - done) / rate)} left"

    def is_due(self, every: float = 30.0) -> bool:
        """Return whether a line should be printed: none was for `every` seconds."""
        now = time.monotonic()
        due = now - self._said >= every
        if due:
            self._said = now
        return due


def duration(seconds: float) -> str:
    """Return seconds as `45 s`, `2 min 5 s` or `3 h 20 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class _Rate(ProgressColumn):
    """Items a second of a progress bar."""

    def render(self, task: Task) -> Text:
        return Text(f"{task.speed:.3g} a second" if task.speed else "")


def track(items: Iterable[T], what: str, total: int) -> Iterable[T]:
    """Yield `items` under a progress bar with a count, the rate and the time left.

    Off a terminal, a line says the same every half minute. The command can be interrupted between two items.
    Errors: `Stopped`.
    """
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), _Rate(), TimeRemainingColumn())
    pace = Pace(total)
    with Progress(*columns, console=_stderr, transient=True, disable=not draws_bars()) as progress:
        for done, item in enumerate(progress.track(items, total=total, description=what), start=1):
            yield item
            interrupts.check()
            if not draws_bars() and done < total and pace.is_due():
                say(f"{what}: {done:,} of {total:,}, {pace.left(done)}")


@contextlib.contextmanager
def meter(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """Draw a bar over `total` bytes with the time left; yields a function to call with the number of bytes read.

    The command can be interrupted at each call. Errors: `Stopped`.
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
