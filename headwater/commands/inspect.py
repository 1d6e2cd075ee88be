"""Show what a data set is: its layout, every row's fate, lengths, shortcuts, and ten rows. Bad rows never stop it."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from rich.console import Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from headwater.config import POSITIONAL
from headwater.console import say, show
from headwater.data import embedding, reading
from headwater.data.preference import Preference, Record, Response
from headwater.data.profiling import NEAR, QUANTILES, Profile, Spread, responses_of
from headwater.data.reading import ReadOptions, RowReader
from headwater.data.terms import contrast
from headwater.errors import UsageError
from headwater.files import to_json, write_json
from headwater.marks import visible
from headwater.results import runs
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


def run(config: Config) -> dict[str, Any]:
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
        print(to_json(found))
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


# --- what was found, as plain values ------------------------------------------------------------------------------


def _found(config: Config, row_reader: RowReader, profile: Profile) -> dict[str, Any]:
    row_counts, near = row_reader.row_counts, profile.near_duplicates()
    found: dict[str, Any] = {
        "data": row_reader.place,
        "layout": row_reader.layout,
        "holds": row_reader.yields,
        "account": {
            "rows_in": row_counts.rows_in,
            "kept": row_counts.kept,
            "quarantined": row_counts.quarantined,
            "dropped": dict(row_counts.dropped),
            **({"split": row_counts.split} if row_counts.split else {}),
            **({"not_read": list(row_counts.not_read)} if row_counts.not_read else {}),
            **({"notes": dict(row_counts.notes)} if row_counts.notes else {}),
        },
        "bad_rows": {"codes": dict(row_reader.quarantine.codes), "first": row_reader.quarantine.first or None},
        "turns": {str(turns): rows for turns, rows in sorted(profile.turns.items())},
        "with_system_turn": profile.with_system,
        "hidden_characters": {"rows": profile.with_hidden, "characters": profile.hidden},
        "sampled_rows": len(profile.sample),
        "scripts": profile.scripts(),
        "characters": _spreads(profile.characters()),
        "length_histogram": profile.length_histogram()._asdict(),
        "near_duplicate_prompts": near._asdict(),
        "samples": [_sample(record) for record in profile.shown(SAMPLES)],
    }
    if config.tokenizer:
        found["tokens"] = _spreads(_tokens(config.tokenizer, profile))
    margins, shared = profile.margins(), profile.shared_conversations()
    if margins:
        found["score_margin"] = _spread(margins)
    if shared:
        found["longer_wins"] = profile.longer_wins()._asdict()
        found["difference_histogram"] = profile.difference_histogram()._asdict()
        pairs = (record for record in profile.sample if isinstance(record, Preference))
        found["terms"] = contrast((pair.chosen.text, pair.rejected.text) for pair in pairs).as_dict()
        found["shared_opening"] = {"share_of_pairs": profile.sharing(), "characters": _spread(shared)}
    return found


def _tokens(name: str, profile: Profile) -> dict[str, Spread]:
    from headwater.data.tokenizers import load_tokenizer

    pairs = [record for record in profile.sample if isinstance(record, Preference)]
    tokenizer = load_tokenizer(name, pairs)

    def count(texts: Sequence[str]) -> Iterator[int]:
        return (len(ids) for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"])

    return profile.tokens(count)


def _spreads(spreads: Mapping[str, Spread]) -> dict[str, Any]:
    return {side: _spread(found) for side, found in spreads.items()}


def _spread(found: Spread) -> dict[str, Any]:
    quantiles = {f"p{level}": value for level, value in zip(QUANTILES, found.quantiles, strict=True)}
    return {"n": found.n, "mean": found.mean, **quantiles}


def _sample(record: Record) -> dict[str, Any]:
    prompt = next((message.content for message in reversed(record.prompt) if message.role == "user"), "")
    responses = [
        {"is": side, "text": response.text[:LONGEST], "score": response.score}
        for side, response in responses_of(record)
    ]
    return {"id": record.id, "prompt": prompt[:LONGEST], "responses": responses}


def _embedded(profile: Profile, count: int, seed: int) -> dict[str, Any]:
    """Lay out the responses of some sampled pairs. Errors: `DataError` where there are no pairs, or too few."""
    every = [record for record in profile.sample if isinstance(record, Preference)]
    pairs = [every[place] for place in embedding.drawn(every, count, seed)]
    features = embedding.of_texts([response.text for pair in pairs for response in (pair.chosen, pair.rejected)])
    of = f"TF-IDF of {features.shape[1]:,} words"
    return embedding.as_rows([pair.id for pair in pairs], embedding.project(features, seed), of, seed)


def _write(
    config: Config, output: Path, row_reader: RowReader, profile: Profile, found: Mapping[str, Any], began: float
) -> None:
    points = None if config.embed is None else _embedded(profile, config.embed, config.seed)
    facts = {"layout": row_reader.layout}
    writer = runs.start(output, "inspect", config, inputs=row_reader.files, facts=facts, began=began)
    writer.count_stages({"read": row_reader.row_counts})
    row_reader.quarantine.save(output / reading.QUARANTINE)
    metrics: dict[str, Estimate | float | int | str | None] = {"rows": row_reader.row_counts.kept}
    if "longer_wins" in found:
        metrics["longer_wins"] = Estimate(**found["longer_wins"])
        metrics["sharing_an_opening"] = found["shared_opening"]["share_of_pairs"]
    for side, lengths in found["characters"].items():
        metrics[f"{side}_characters_median"] = lengths["p50"]
    metrics["near_duplicate_prompts"] = found["near_duplicate_prompts"]["having_one"]
    writer.write_metrics(metrics)
    write_json(output / "inspection.json", found)
    if points:
        write_json(output / embedding.FILE, points)
    writer.finish()
    say(f"written: {output}")


# --- on the terminal ----------------------------------------------------------------------------------------------


def _page(found: Mapping[str, Any], profile: Profile) -> Iterator[RenderableType]:
    yield Text(Path(found["data"]).name or found["data"], style="bold")
    yield _facts([("layout", found["layout"]), ("holds", _holds(found)), *_row_counts(found)])
    yield _heading("Prompts")
    yield _facts(_prompts(found))
    yield _heading("Responses", "" if "tokens" not in found else f"tokens of {found['sampled_rows']:,} sampled rows")
    yield _lengths(found)
    if "longer_wins" in found:
        yield _heading("Shortcuts", "what a model could learn without reading")
        yield _facts(_shortcuts(found))
        yield _heading("Words that tell", "z of log-odds, Monroe et al. 2008; a ranking, no test")
        yield _facts(_telling(found["terms"]))
    yield _heading("Rows", f"{len(found['samples'])} of {found['account']['kept']:,}")
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


def _holds(found: Mapping[str, Any]) -> str:
    kinds = {"preferences": "pairs", "candidates": "prompts with several responses", "unpaired": "labelled responses"}
    return f"{found['account']['kept']:,} {kinds[found['holds']]}"


def _row_counts(found: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    row_counts, dropped = found["account"], found["account"]["dropped"]
    parts = f"{row_counts['kept']:,} kept + {row_counts['quarantined']:,} bad + {sum(dropped.values()):,} dropped"
    yield "rows", f"{row_counts['rows_in']:,} = {parts}"
    if dropped:
        yield "dropped", ", ".join(f"{reason} {count:,}" for reason, count in sorted(dropped.items()))
    if "split" in row_counts:
        yield "split", row_counts["split"]
    if "not_read" in row_counts:
        yield "not read", ", ".join(row_counts["not_read"])
    for note, rows in sorted(row_counts.get("notes", {}).items()):
        yield "read", f"{note.replace('_', ' ')} in {rows:,} rows"
    if found["bad_rows"]["codes"]:
        yield "bad", ", ".join(f"{code} {count:,}" for code, count in sorted(found["bad_rows"]["codes"].items()))
        yield "first bad row", visible(found["bad_rows"]["first"])


def _prompts(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    turns = [f"{rows:,} with {count}" for count, rows in list(found["turns"].items())[:6]]
    more = sum(list(found["turns"].values())[6:])
    near = found["near_duplicate_prompts"]
    of_sample = (
        "" if found["sampled_rows"] == found["account"]["kept"] else f" of {found['sampled_rows']:,} sampled rows"
    )
    rows = [("user turns", ", ".join(turns) + (f", {more:,} longer" if more else ""))]
    if found["with_system_turn"]:
        rows.append(("system turn", f"{found['with_system_turn']:,} rows"))
    hidden = found["hidden_characters"]
    if hidden["rows"]:
        said = f"{hidden['characters']:,} (controls, bidi, zero width) in {hidden['rows']:,} rows; shown as marks"
        rows.append(("hidden characters", said))
    scripts = [f"{script} {_share(share)}" for script, share in list(found["scripts"].items())[:5]]
    rows.append(("scripts", ", ".join(scripts) + f"  of the letters{of_sample}" if scripts else "no letters"))
    different = f"of {near['prompts']:,} different prompts{of_sample}"
    rows.append(("near-duplicates", f"{near['having_one']:,} {different} (Jaccard ≥ {NEAR:g})"))
    rows += [("", f"such as {one} and {other}") for one, other in near["pairs"][:1]]
    return rows


def _share(share: float) -> str:
    """Write a share, a small one not as if it were none."""
    return f"{share:.1%}" if share >= 0.001 else "<0.1%"


def _lengths(found: Mapping[str, Any]) -> Padding:
    table = Table(box=None, padding=(0, 1), pad_edge=False, header_style="dim")
    table.add_column("", no_wrap=True)
    for name in ("mean", "least", "5 %", "25 %", "median", "75 %", "95 %", "most"):
        table.add_column(name, justify="right", no_wrap=True)
    keys = ("mean", *(f"p{level}" for level in QUANTILES))
    for unit, short in (("characters", "chars"), ("tokens", "tokens")):
        for side, lengths in found.get(unit, {}).items():
            table.add_row(f"{side}, {short}", *(_rounded(lengths[key]) for key in keys))
    if "score_margin" in found:
        table.add_row("score margin", *(f"{found['score_margin'][key]:.2f}" for key in keys))
    return Padding(table, (0, 0, 0, 2))


def _rounded(length: float) -> str:
    return f"{length:,.0f}" if length < 10_000 else f"{length / 1000:,.0f}k"


def _shortcuts(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    wins, shared = Estimate(**found["longer_wins"]), found["shared_opening"]
    interval = wins.interval() if wins.low is None else f"95 % [{wins.low:.1%}, {wins.high:.1%}]"
    length = f"{wins.value:.1%}  {interval}  n {wins.n:,} ({wins.clusters:,} openings)"
    conversation_id = f"{shared['share_of_pairs']:.1%} of pairs; median {shared['characters']['p50']:.0f} characters"
    return [("longer one wins", length), ("shared opening", conversation_id)]


def _telling(terms: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Return the words that tell most, by side; the data's own letters and digits, nothing else."""
    return [
        (f"more in {side}", ", ".join(f"{row['term']} {row['z']:+.1f}" for row in terms[side][:TELLING]) or "none")
        for side in ("chosen", "rejected")
    ]


def _shown(record: Record) -> Table:
    table = Table.grid(padding=(0, 1), expand=True)
    table.add_column(width=3, no_wrap=True, justify="right")
    table.add_column(ratio=1, no_wrap=True, overflow="ellipsis")
    sample = _sample(record)
    table.add_row("", Text(visible(sample["id"]), style="dim"))
    table.add_row(Text("?", style="cyan"), Text(visible(sample["prompt"])))
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
