"""Data options: how data is read, and how many malformed rows are too many."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

from headwater.config.calls import fraction, shown
from headwater.data.layouts.continuations import Turns
from headwater.data.layouts.description import Description
from headwater.data.layouts.description_parser import of_file, parse
from headwater.data.layouts.tools import COLUMNS as TOOLS
from headwater.errors import UsageError

DESCRIPTIONS = (".yaml", ".yml")
"""How the name of a file ends that describes a layout."""


@dataclass(frozen=True)
class LayoutOptions:
    """Data options: which layout the rows have."""

    layout: str | None = None
    """Name of the data layout, or a YAML file that describes it. Default: recognised from the columns of the first
    well-formed row."""
    columns: str | None = None
    """Description of any other layout, such as "prompt=question, chosen=best, rejected=worst" or
    "prompt=data.question, a=x, b=y, winner=label{1:a,2:b}"; see docs/data.md."""

    def __post_init__(self) -> None:
        _ = self.description  # refused here, before any work

    @functools.cached_property
    def description(self) -> Description | None:
        """The layout that `--columns`, or a file of `--layout`, describes. Errors: `UsageError`."""
        if self.layout is None or self.layout_name is not None:
            return parse(self.columns) if self.columns is not None else None
        if self.columns is not None:
            raise UsageError(f"--layout {self.layout}", "describes the layout, and so does --columns", "leave one out")
        return of_file(Path(self.layout))

    @property
    def layout_name(self) -> str | None:
        """The name of a known layout; None where `--layout` is a file, or not given."""
        return None if self.layout is None or self.layout.endswith(DESCRIPTIONS) else self.layout

    def check_describes(self) -> None:
        """Refuse the name of a layout, where rows are read that have none. Errors: `UsageError`."""
        if self.layout_name:
            raise UsageError(f"--layout {self.layout}", "expected a .yaml file", "or see --columns")


@dataclass(frozen=True)
class ReadOptions(LayoutOptions):
    """Data options: how rows are read, and how many malformed ones are skipped."""

    max_bad_rows: str = "0"
    """Maximum number (10) or share (1%) of malformed rows to skip before failing."""
    condition: str | None = None
    """Instruction that a conditional model gets with every row, in the system turn, such as "Judge harmlessness."."""
    condition_column: str | None = None
    """Column that holds the instruction of each row, such as aspect."""
    ignore_columns: str | None = None
    """Columns, or fields of messages, to ignore although they change what a row means, such as tools,images."""
    split: str | None = None
    """Split to read from data that has several, such as train or test."""
    dataset_config: str | None = None
    """Configuration (subset) of a dataset on the hub that has several."""
    revision: str | None = None
    """Branch, tag or commit of a dataset on the hub."""
    streaming: bool = False
    """Read a dataset on the hub while it downloads, without keeping a copy."""
    limit: int | None = None
    """Maximum number of rows to read."""
    turns: Turns = "last"
    """What is compared where responses have several assistant turns: the last one, behind the same earlier turns, or
    the whole continuation, of which the assistant's tokens count."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _ = self.bad_rows
        if self.condition is not None and (self.condition_column is not None or not self.condition.strip()):
            what = "is empty" if self.condition_column is None else "and --condition-column are one too many"
            raise UsageError("--condition", what, "give a text, or the name of a column")
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"--limit {self.limit}", "expected a number of rows, 1 or more")

    @property
    def told(self) -> str:
        """The condition, or the column that holds it; empty without one."""
        return self.condition or self.condition_column or ""

    def check_last_turns(self, why: str) -> None:
        """Refuse `--turns whole` where it has no meaning, and say why. Errors: `UsageError`."""
        if self.turns != "last":
            raise UsageError(f"--turns {self.turns}", why, "leave it out")

    @property
    def ignored(self) -> frozenset[str]:
        """The columns and fields that `--ignore-columns` names."""
        return frozenset(filter(None, (name.strip() for name in (self.ignore_columns or "").split(","))))

    @property
    def also_read(self) -> frozenset[str]:
        """Columns that are read of every layout: of the condition, and of the tools that a model may call."""
        return frozenset(filter(None, (self.condition_column, *TOOLS))) - self.ignored

    @property
    def bad_rows(self) -> BadRows:
        """The limit on malformed rows."""
        return BadRows.parse(self.max_bad_rows)


@dataclass(frozen=True)
class BadRows:
    """A limit on malformed rows: a number, or a share of all rows."""

    text: str
    count: int | None = None
    share: Fraction | None = None

    @classmethod
    def parse(cls, text: str) -> BadRows:
        """Return the limit that `10` or `1%` spells. Errors: `UsageError`."""
        number = text.strip().removesuffix("%")
        try:
            value = fraction(number)
        except ValueError:
            value = Fraction(-1)
        if text.strip().endswith("%") and 0 <= value <= 100:
            return cls(text, share=value / 100)
        if number == text.strip() and value >= 0 and value.denominator == 1 and number.isdecimal():
            return cls(text, count=int(value))
        raise UsageError(f"--max-bad-rows {shown(text)}", "expected a number of rows (10) or a share of them (1%)")

    def passed(self, bad: int, rows: int, at_end: bool) -> bool:
        """Return whether `bad` of `rows` are too many; a share can be judged only at the end."""
        if self.count is not None:
            return bad > self.count
        return at_end and self.share is not None and bad > self.share * rows
