"""Preference pairs in Python: read, looked at, split and truncated without a file."""

from __future__ import annotations

import html
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from headwater.config import configure
from headwater.data import reading, splitting
from headwater.data.facts import TruncationFacts
from headwater.data.preference import Preference, question_of
from headwater.data.reading import ReadOptions, RowCounts, memory
from headwater.data.reading.memory import Rows
from headwater.data.tokenizers import load_tokenizer
from headwater.data.tokens import EncodeOptions, token_ends
from headwater.data.truncation import Boundary, CutBy, Part, Truncation, parse_keep, truncate
from headwater.data.truncation_options import facts_of
from headwater.data.writing import row_of
from headwater.results import runs
from headwater.results.inspection import Inspection
from headwater.results.stored import to_pandas

if TYPE_CHECKING:
    import pandas

SHOWN = 5
"""Pairs that a notebook shows."""
CELL = 300
"""Characters of a text that a notebook shows."""


def load(data: str | Path | Rows, **options: Any) -> Pairs:
    """Return the preference pairs of `data`: a file, directory, pattern, run, or name on the hub, or rows in memory.

    `options` are those of reading, such as `limit=100`, `split="test"` or `columns="prompt=question,…"`.
    Errors: `DataError` for rows that are no pairs, unless `max_bad_rows` lets them be skipped.
    """
    with ExitStack() as stack:
        rows = memory.is_rows(data)
        place = stack.enter_context(memory.held(data, options.get("limit"))) if rows else Path(str(data))
        loaded = reading.load(place, configure(ReadOptions, options))
        facts = runs.facts_of(place)
    return Pairs(loaded.preferences, str(place), {"read": loaded.row_counts}, facts)


class Pairs(Sequence[Preference]):
    """Preference pairs, with the account of the rows that they were read from. Objects never change."""

    def __init__(
        self,
        preferences: Sequence[Preference],
        source: str = "memory",
        row_counts: dict[str, RowCounts] | None = None,
        facts: Any = None,
    ) -> None:
        self.preferences = tuple(preferences)
        self.source = source
        self.row_counts = row_counts or {}
        self.facts: Any = facts or {}

    def __len__(self) -> int:
        return len(self.preferences)

    def __iter__(self) -> Iterator[Preference]:
        return iter(self.preferences)

    @overload
    def __getitem__(self, place: int) -> Preference: ...
    @overload
    def __getitem__(self, place: slice) -> Pairs: ...
    def __getitem__(self, place: int | slice) -> Preference | Pairs:
        found = self.preferences[place]
        return self._with(found) if isinstance(found, tuple) else found

    def _with(self, preferences: Sequence[Preference]) -> Pairs:
        return Pairs(preferences, self.source, self.row_counts, self.facts)

    def split(self, fraction: float = 0.1, seed: int = 0) -> tuple[Pairs, Pairs]:
        """Return (training, held out) pairs, by conversation, so that no prompt is on both sides.

        The same `fraction` and `seed` split as `eval_fraction` and `split_seed` of a training do. Errors: `DataError`
        where a side is empty.
        """
        train, rest = splitting.split(self.preferences, fraction, seed)
        return self._with(train), self._with(rest)

    def truncate(
        self,
        keep: str,
        *,
        cut: CutBy = "own",
        part: Part = "prefix",
        boundary: Boundary = "grapheme",
        seed: int = 42,
        tokenizer: Any = "scratch(vocab=4096)",
    ) -> Pairs:
        """Return the pairs with truncated responses, as `headwater preprocess` does (arXiv:2505.17122).

        `keep` is a ratio (0.4), a percentage (40%) or an amount (128tok, 3sent, 50words, 200chars); `tokenizer` counts
        the tokens: a Hugging Face name or path, `scratch(vocab=…)` or a fast tokenizer. Pairs whose responses are
        empty or the same after the cut are dropped and counted in `row_counts`. Errors: `UsageError`.
        """
        truncation = Truncation(parse_keep(str(keep)), cut, part, boundary, seed)
        counter = load_tokenizer(str(tokenizer), self.preferences) if isinstance(tokenizer, str | Path) else tokenizer
        shortened = truncate(self.preferences, truncation, token_ends(counter))
        before: TruncationFacts = self.facts
        facts = {**before, **facts_of(EncodeOptions(truncation, "complete", 0), before)}
        counts = self.row_counts | {f"truncate to {keep}": shortened.row_counts}
        return Pairs(shortened.preferences, self.source, counts, facts)

    def inspect(self, **options: Any) -> Inspection:
        """Return what `headwater inspect` finds in these pairs: lengths, shortcuts, words, duplicates."""
        from headwater.interface.functions import function

        found: Inspection = function("inspect")(self, **options)
        return found

    def to_rows(self) -> list[dict[str, Any]]:
        """Return the pairs as rows of headwater's own layout, which every function and command reads."""
        return [row_of(preference) for preference in self.preferences]

    def to_pandas(self) -> pandas.DataFrame:
        """Return `to_rows` as a data frame. Errors: `UsageError` where pandas is not installed."""
        return to_pandas(self.to_rows())

    @property
    def account(self) -> str:
        """What became of the rows, a sentence a stage: `read: 2,312 rows in, 2,303 kept, 9 prompts_differ`."""
        return "; ".join(_account(stage, counts) for stage, counts in self.row_counts.items())

    def __repr__(self) -> str:
        account = f" ({self.account})" if self.row_counts else ""
        return f"<{len(self):,} pairs of {self.source}{account}>"

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{name}</th>" for name in ("prompt", "chosen", "rejected"))
        body = "".join(
            "<tr>" + "".join(f"<td>{_cell(text)}</td>" for text in _texts(pair)) + "</tr>" for pair in self[:SHOWN]
        )
        more = f", the first {SHOWN} of them" if len(self) > SHOWN else ""
        caption = f"<caption>{html.escape(f'{len(self):,} pairs of {self.source}{more}')}</caption>"
        account = f"<div>{html.escape(self.account)}</div>" if self.row_counts else ""
        return f"<table>{caption}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{account}"


def _texts(pair: Preference) -> tuple[str, str, str]:
    return question_of(pair.prompt), pair.chosen.shown, pair.rejected.shown


def _cell(text: str) -> str:
    return html.escape(text if len(text) <= CELL else f"{text[:CELL].rstrip()} …")


def _account(stage: str, counts: RowCounts) -> str:
    parts = [f"{counts.rows_in:,} rows in", f"{counts.kept:,} kept"]
    parts += [f"{count:,} {reason}" for reason, count in counts.dropped.items() if count]
    parts += [f"{counts.quarantined:,} malformed"] if counts.quarantined else []
    return f"{stage}: {', '.join(parts)}"
