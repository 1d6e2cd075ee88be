"""Show what a data set is: its layout, every row's fate, lengths, shortcuts, and ten rows. Bad rows never stop it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from headwater.config import POSITIONAL
from headwater.console import say, show
from headwater.data import embedding, reading
from headwater.data.preference import Preference, Record, Response
from headwater.data.profiling import NEAR, Profile, Spread, responses_of
from headwater.data.reading import ReadOptions, RowReader
from headwater.data.terms import LEAST, PRIOR, contrast
from headwater.errors import UsageError
from headwater.files import to_json
from headwater.marks import visible
from headwater.results import runs
from headwater.results.embedding import Embedding
from headwater.results.inspection import (
    BadRows,
    HiddenCharacters,
    InspectedCounts,
    Inspection,
    Quantiles,
    SampleResponse,
    SampleRow,
    SharedBeginning,
    TermContrast,
)
from headwater.results.stored import as_json
from headwater.statistics import Estimate

EXAMPLE = "headwater inspect pairs.jsonl"
UNSTOPPED = ReadOptions(max_bad_rows="100%")
SAMPLES = 10
TELLING = 10
"""Words of either side on the terminal."""
LONGEST = 300
"""Characters of a text in `--json`; the terminal shows a line."""

HELP = {
    "Input": ("data", "layout", "columns", "split", "limit"),
    "Output": ("output", "overwrite", "json"),
    "Measurement": ("tokenizer",),
}
"""Options that `--help` shows, by group; `--help-all` shows the others too."""


@dataclass(frozen=True)
class Config:
    """Flags of `headwater inspect`."""

    data: Annotated[Path, POSITIONAL]
    """Data to describe: a file, directory, pattern, run, or name on the hub, or a folder saved by datasets."""
    read_options: ReadOptions = UNSTOPPED
    tokenizer: str | None = None
    """Tokenizer, by Hugging Face name or path, with which lengths are also measured."""
    embed: int | None = None
    """With --output: number of pairs to embed by PCA and t-SNE of their TF-IDF vectors, for the report."""
    seed: int = 0
    """Random seed of --embed."""
    json: bool = False
    """Print one JSON object instead of tables."""
    output: Path | None = None
    """Directory of a run to write: metrics, row counts, and every row that was not kept."""
    overwrite: bool = False
    """Replace an existing run at --output."""


def run(config: Config) -> Inspection:
    """Inspect the data and return what was found."""
    began = time.monotonic()
    _refuse(config)
    row_reader = reading.stream(config.data, config.read_options)
    profile = Profile()
    for record in row_reader:
        profile.add(record)
    if not profile.rows:
        raise row_reader.no_usable_rows()
    found = _found(config, row_reader, profile)
    if config.json:
        # Not through the console, which would wrap it.
        print(to_json(as_json(found)))
    else:
        show(Group(*_page(found, profile)))
    if config.output:
        _write(config, config.output, row_reader, profile, found, began)
    return found


def _refuse(config: Config) -> None:
    """Refuse what cannot work, before any row is read."""
    if config.output:
        runs.check_free(config.output, config.overwrite, config)
    if config.embed is not None:
        embedding.check(config.embed)
        if not config.output:
            raise UsageError(f"--embed {config.embed}", "there is no run to hold the points", "add --output RUN")


# --- what was found -----------------------------------------------------------------------------------------------


def _found(config: Config, row_reader: RowReader, profile: Profile) -> Inspection:
    row_counts = row_reader.row_counts
    margins, shared = profile.margins(), profile.shared_conversations()
    return Inspection(
        data=row_reader.place,
        layout=row_reader.layout,
        holds=row_reader.yields,
        row_counts=InspectedCounts(
            row_counts.rows_in,
            row_counts.kept,
            row_counts.quarantined,
            dict(row_counts.dropped),
            row_counts.split or None,
            tuple(row_counts.not_read) or None,
            dict(row_counts.notes) or None,
        ),
        bad_rows=BadRows(dict(row_reader.quarantine.codes), row_reader.quarantine.first or None),
        turns={str(turns): rows for turns, rows in sorted(profile.turns.items())},
        with_system_turn=profile.with_system,
        hidden_characters=HiddenCharacters(profile.with_hidden, profile.hidden),
        sampled_rows=len(profile.sample),
        scripts=profile.scripts(),
        characters=_quantiles_by_side(profile.characters()),
        length_histogram=profile.length_histogram(),
        near_duplicate_prompts=profile.near_duplicates(),
        samples=tuple(_sample(record) for record in profile.shown(SAMPLES)),
        tokens=_quantiles_by_side(_tokens(config.tokenizer, profile)) if config.tokenizer else None,
        score_margin=_quantiles(margins) if margins else None,
        longer_wins=profile.longer_wins() if shared else None,
        difference_histogram=profile.difference_histogram() if shared else None,
        terms=_terms(profile) if shared else None,
        shared_beginning=SharedBeginning(profile.sharing(), _quantiles(shared)) if shared else None,
    )


def _terms(profile: Profile) -> TermContrast:
    pairs = (record for record in profile.sample if isinstance(record, Preference))
    found = contrast((pair.chosen.text, pair.rejected.text) for pair in pairs)
    return TermContrast(found.pairs, found.words, PRIOR, LEAST, found.chosen, found.rejected)


def _tokens(name: str, profile: Profile) -> dict[str, Spread]:
    from headwater.data.tokenizers import load_tokenizer

    pairs = [record for record in profile.sample if isinstance(record, Preference)]
    tokenizer = load_tokenizer(name, pairs)

    def count(texts: Sequence[str]) -> Iterator[int]:
        return (len(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"])

    return profile.tokens(count)


def _quantiles_by_side(spreads: Mapping[str, Spread]) -> dict[str, Quantiles]:
    return {side: _quantiles(found) for side, found in spreads.items()}


def _quantiles(found: Spread) -> Quantiles:
    return Quantiles(found.n, found.mean, *found.quantiles)


def _sample(record: Record) -> SampleRow:
    prompt = next((message.content for message in reversed(record.prompt) if message.role == "user"), "")
    responses = (
        SampleResponse(side, response.text[:LONGEST], response.score) for side, response in responses_of(record)
    )
    return SampleRow(record.id, prompt[:LONGEST], tuple(responses))


def _embedded(profile: Profile, count: int, seed: int) -> Embedding:
    """Lay out the responses of some sampled pairs. Errors: `DataError` where there are no pairs, or too few."""
    every = [record for record in profile.sample if isinstance(record, Preference)]
    pairs = [every[place] for place in embedding.drawn(every, count, seed)]
    features = embedding.of_texts([response.text for pair in pairs for response in (pair.chosen, pair.rejected)])
    of = f"TF-IDF of {features.shape[1]:,} words"
    return Embedding.of_pairs([pair.id for pair in pairs], embedding.project(features, seed), of, seed)


def _write(
    config: Config, output: Path, row_reader: RowReader, profile: Profile, found: Inspection, began: float
) -> None:
    points = None if config.embed is None else _embedded(profile, config.embed, config.seed)
    facts = {"layout": row_reader.layout}
    writer = runs.start(output, "inspect", config, inputs=row_reader.files, facts=facts, began=began)
    writer.count_stages({"read": row_reader.row_counts})
    row_reader.quarantine.save(output / reading.QUARANTINE)
    metrics: dict[str, Estimate | float | int | str | None] = {"rows": row_reader.row_counts.kept}
    if found.longer_wins and found.shared_beginning:
        metrics["longer_wins"] = found.longer_wins
        metrics["sharing_an_opening"] = found.shared_beginning.share_of_pairs
    for side, lengths in found.characters.items():
        metrics[f"{side}_characters_median"] = lengths.p50
    metrics["near_duplicate_prompts"] = found.near_duplicate_prompts.having_one
    writer.write_metrics(metrics)
    writer.write(found)
    if points:
        writer.write(points)
    writer.finish()
    say(f"written: {output}")


# --- on the terminal ----------------------------------------------------------------------------------------------


def _page(found: Inspection, profile: Profile) -> Iterator[RenderableType]:
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
    for record in profile.shown(SAMPLES):
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
    interval = wins.interval() if wins.low is None else f"95 % [{wins.low:.1%}, {wins.high:.1%}]"
    length = f"{wins.value:.1%}  {interval}  n {wins.n:,} ({wins.clusters:,} openings)"
    beginning = f"{shared.share_of_pairs:.1%} of pairs; median {shared.characters.p50:.0f} characters"
    return [("longer one wins", length), ("shared beginning", beginning)]


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
    sample = _sample(record)
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
    return score + visible(response.text[:LONGEST])
