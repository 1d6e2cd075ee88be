"""How data is let in: what a user may say about it, and how many bad rows are too many."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from headwater.config.calls import fraction, shown
from headwater.errors import UsageError


@dataclass(frozen=True)
class ReadOptions:
    """How the data is read, and how many bad rows may be set aside."""

    layout: str | None = None
    """Name of the layout; default: recognised by the columns of the first good row."""
    columns: str | None = None
    """For a layout that headwater does not know: prompt=x,chosen=y,rejected=z."""
    max_bad_rows: str = "0"
    """Bad rows to set aside before the data is refused: a number (10) or a share of the rows (1%)."""
    condition: str | None = None
    """What a conditional model is told of every row, in the system turn: "Judge harmlessness."."""
    condition_column: str | None = None
    """Column that holds it, row by row, such as aspect."""
    ignore_columns: str | None = None
    """Columns, or fields of messages, to pass over although they change what a row means: tools,images."""
    split: str | None = None
    """Which part, of data that has several (train, test, …)."""
    dataset_config: str | None = None
    """Which configuration (subset), of a dataset on the hub that has several."""
    revision: str | None = None
    """Branch, tag or commit of a dataset on the hub."""
    streaming: bool = False
    """Read a dataset of the hub as it arrives, and keep no copy."""
    limit: int | None = None
    """Read no more than so many rows."""

    def __post_init__(self) -> None:
        _ = self.bad_rows, self.names  # refused here, before any work
        if self.condition is not None and (self.condition_column is not None or not self.condition.strip()):
            what = "is empty" if self.condition_column is None else "and --condition-column are one too many"
            raise UsageError("--condition", what, "give a text, or the name of a column")
        if self.limit is not None and self.limit < 1:
            raise UsageError(f"--limit {self.limit}", "expected a number of rows, 1 or more")

    @property
    def told(self) -> str:
        """What rows are told, or the column that says it; empty where they are told nothing."""
        return self.condition or self.condition_column or ""

    @property
    def ignored(self) -> frozenset[str]:
        """What `--ignore-columns` names."""
        return frozenset(filter(None, (name.strip() for name in (self.ignore_columns or "").split(","))))

    @property
    def bad_rows(self) -> BadRows:
        """How many bad rows are let by."""
        return BadRows.parse(self.max_bad_rows)

    @property
    def names(self) -> Mapping[str, str]:
        """What `--columns` maps: headwater's name to the data's."""
        pairs = [part.partition("=") for part in self.columns.split(",")] if self.columns else []
        names = {name.strip(): column.strip() for name, _, column in pairs}
        if not all(name and column for name, column in names.items()) or len(names) < len(pairs):
            raise UsageError(
                f"--columns {self.columns}", "expected name=column,…", "such as prompt=x,chosen=y,rejected=z"
            )
        return names


@dataclass(frozen=True)
class BadRows:
    """A limit on bad rows: so many, or such a share of all rows."""

    text: str
    count: int | None = None
    share: Fraction | None = None

    @classmethod
    def parse(cls, text: str) -> BadRows:
        """Read `10` or `1%`. Errors: `UsageError`."""
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
        """Say whether `bad` of `rows` are too many; of a share this is known only at the end."""
        if self.count is not None:
            return bad > self.count
        return at_end and self.share is not None and bad > self.share * rows
