"""Tables of an inspected data set for the terminal."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from headwater.data.preference import Record, Response
from headwater.data.profiling import NEAR, responses_of
from headwater.marks import visible
from headwater.results.evaluation import better_rule
from headwater.results.inspecting import LONGEST, sample_row
from headwater.results.inspection import Inspection, TermContrast

TELLING = 10
"""Words of either side that are printed."""


def inspection_page(found: Inspection, shown: Sequence[Record]) -> Iterator[RenderableType]:
    """Yield the tables of an inspection, and the rows `shown`."""
    yield Text(Path(found.data).name or found.data, style="bold")
    yield _facts([("layout", found.layout), ("holds", _holds(found)), *_row_counts(found)])
    yield _heading("Prompts")
    yield _facts(_prompts(found))
    yield _heading("Responses", "" if found.tokens is None else f"tokens of {found.sampled_rows:,} sampled rows")
    yield _lengths(found)
    if found.longer_wins and found.terms:
        yield _heading("Shortcuts", "what a model could learn without reading")
        yield _facts(_shortcuts(found))
        yield _heading("Words that tell", "z of log-odds, Monroe et al. 2008; a ranking, no test")
        yield _facts(_telling(found.terms))
    yield _heading("Rows", f"{len(found.samples)} of {found.row_counts.kept:,}")
    for record in shown:
        yield _shown(record)


def _heading(title: str, note: str = "") -> Text:
    return Text.assemble("\n", (title, "bold cyan"), (f"  {note}" if note else "", "dim"))


def _facts(rows: Sequence[tuple[str, str]]) -> Table:
    table = Table.grid(padding=(0, 2))
    table.add_column(style="dim", min_width=17, no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(f"  {name}", Text(value))
    return table


def _holds(found: Inspection) -> str:
    kinds = {"preferences": "pairs", "candidates": "prompts with several responses", "unpaired": "labelled responses"}
    return f"{found.row_counts.kept:,} {kinds[found.holds]}"


def _row_counts(found: Inspection) -> Iterator[tuple[str, str]]:
    row_counts, dropped = found.row_counts, found.row_counts.dropped
    parts = f"{row_counts.kept:,} kept + {row_counts.quarantined:,} bad + {sum(dropped.values()):,} dropped"
    yield "rows", f"{row_counts.rows_in:,} = {parts}"
    if dropped:
        yield "dropped", ", ".join(f"{reason} {count:,}" for reason, count in sorted(dropped.items()))
    if row_counts.split:
        yield "split", row_counts.split
    if row_counts.not_read:
        yield "not read", ", ".join(row_counts.not_read)
    for note, rows in sorted((row_counts.notes or {}).items()):
        yield "read", f"{note.replace('_', ' ')} in {rows:,} rows"
    if found.bad_rows.codes:
        yield "bad", ", ".join(f"{code} {count:,}" for code, count in sorted(found.bad_rows.codes.items()))
        yield "first bad row", visible(found.bad_rows.first or "")


def _prompts(found: Inspection) -> list[tuple[str, str]]:
    turns = [f"{rows:,} with {count}" for count, rows in list(found.turns.items())[:6]]
    more = sum(list(found.turns.values())[6:])
    near = found.near_duplicate_prompts
    of_sample = "" if found.sampled_rows == found.row_counts.kept else f" of {found.sampled_rows:,} sampled rows"
    rows = [("user turns", ", ".join(turns) + (f", {more:,} longer" if more else ""))]
    if found.with_system_turn:
        rows.append(("system turn", f"{found.with_system_turn:,} rows"))
    hidden = found.hidden_characters
    if hidden and hidden.rows:
        said = f"{hidden.characters:,} (controls, bidi, zero width) in {hidden.rows:,} rows; shown as marks"
        rows.append(("hidden characters", said))
    scripts = [f"{script} {_share(share)}" for script, share in list(found.scripts.items())[:5]]
    rows.append(("scripts", ", ".join(scripts) + f"  of the letters{of_sample}" if scripts else "no letters"))
    different = f"of {near.prompts:,} different prompts{of_sample}"
    rows.append(("near-duplicates", f"{near.having_one:,} {different} (Jaccard ≥ {NEAR:g})"))
    rows += [("", f"such as {one} and {other}") for one, other in near.pairs[:1]]
    return rows


def _share(share: float) -> str:
    """Write a share, a small one not as if it were none."""
    return f"{share:.1%}" if share >= 0.001 else "<0.1%"


def _lengths(found: Inspection) -> Padding:
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    table.add_column("", no_wrap=True)
    for name in ("mean", "least", "5 %", "25 %", "median", "75 %", "95 %", "most"):
        table.add_column(name, justify="right", no_wrap=True)
    for unit, by_side in (("chars", found.characters), ("tokens", found.tokens or {})):
        for side, lengths in by_side.items():
            table.add_row(f"{side}, {unit}", *map(_rounded, lengths[1:]))
    if found.score_margin:
        table.add_row("score margin", *(f"{value:.2f}" for value in found.score_margin[1:]))
    return Padding(table, (0, 0, 0, 2))


def _rounded(length: float) -> str:
    return f"{length:,.0f}" if length < 10_000 else f"{length / 1000:,.0f}k"


def _shortcuts(found: Inspection) -> list[tuple[str, str]]:
    wins, shared = found.longer_wins, found.shared_beginning
    assert wins is not None and shared is not None  # of pairs
    side, wins = better_rule(wins)
    interval = wins.interval() if wins.low is None else f"95 % [{wins.low:.1%}, {wins.high:.1%}]"
    length = f"{wins.value:.1%}  {interval}  n {wins.n:,} ({wins.clusters:,} conversations)"
    beginning = f"{shared.share_of_pairs:.1%} of pairs; median {shared.characters.p50:.0f} characters"
    return [(f"{side} one wins", length), ("shared beginning", beginning)]


def _telling(terms: TermContrast) -> list[tuple[str, str]]:
    """Return the words that tell most, by side; the data's own letters and digits, nothing else."""
    return [
        (f"more in {side}", ", ".join(f"{row.term} {row.z:+.1f}" for row in rows[:TELLING]) or "none")
        for side, rows in (("chosen", terms.chosen), ("rejected", terms.rejected))
    ]


def _shown(record: Record) -> Table:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(width=3, no_wrap=True, justify="right")
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    sample = sample_row(record)
    table.add_row("", Text(visible(sample.id), style="dim"))
    table.add_row(Text("?", style="cyan"), Text(visible(sample.prompt)))
    for side, response in responses_of(record)[:4]:
        sign, style = _SIGNS.get(side, ("·", ""))
        table.add_row(Text(sign, style=style), Text(_scored(response)))
    return table


_SIGNS = {name: ("+", "green") for name in ("chosen", "desirable")} | {
    name: ("-", "red") for name in ("rejected", "undesirable")
}


def _scored(response: Response) -> str:
    score = "" if response.score is None else f"[{response.score:.3g}] "
    return score + visible(response.shown[:LONGEST])
