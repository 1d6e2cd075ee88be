"""Truncate the responses of pairs or labelled rows to their beginnings; prompts are not changed."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

from headwater import files
from headwater.commands._flags import RunFlags
from headwater.config import POSITIONAL
from headwater.console import say, say_stages
from headwater.data import reading
from headwater.data.preference import Preference, Unpaired
from headwater.data.reading import ReadOptions, RowReader
from headwater.data.tokenizers import is_call, load_tokenizer
from headwater.data.tokens import EncodeOptions, token_ends
from headwater.data.truncation import (
    Boundary,
    CutBy,
    Part,
    Truncation,
    shortened,
)
from headwater.data.truncation_effect import TruncationEffect, truncation_report
from headwater.data.truncation_options import facts_of, one_keep
from headwater.data.writing import shard_paths
from headwater.errors import DataError, UsageError
from headwater.results import runs
from headwater.results.facts import Facts
from headwater.results.outputs import check_data_file, places_of
from headwater.results.recording import recording

EXAMPLE = "headwater preprocess pairs.jsonl --output cut.jsonl --keep 50%"

HELP = {
    "Input": ("input", "layout", "columns", "split", "limit"),
    "Output": ("output", "overwrite", "shards"),
    "Truncation": ("keep", "truncate_percentage", "cut", "part", "boundary", "tokenizer", "seed"),
}


@dataclass(frozen=True, kw_only=True)
class Config(RunFlags):
    """Flags of `headwater preprocess`."""

    input: Annotated[Path, POSITIONAL]
    """Preference pairs: a file, directory, pattern, run, or name on the hub."""
    output: Path
    """Data file to write (.jsonl, .jsonl.gz or .parquet), whose run is OUTPUT.run, or a run directory."""
    keep: str | None = None
    """How much of every response to keep: a ratio (0.4), a percentage (40%) or an amount (128tok, 3sent, 50words,
    200chars)."""
    truncate_percentage: str | None = None
    """The same as --keep, as a number in [1, 100]: 40 keeps 40%."""
    cut: CutBy = "own"
    """Which length a ratio refers to: own is that of each response; equal, the shorter one of the pair; shared, the
    longer one."""
    part: Part = "prefix"
    """Part of the response to keep. suffix, middle and random-span of the same size serve as controls."""
    boundary: Boundary = "grapheme"
    """Unit that is never split by truncation. grapheme is a visible character; token gives exact token counts."""
    seed: int = 42
    """Random seed of the places of random spans."""
    tokenizer: str = "scratch(vocab=4096)"
    """Tokenizer that counts tokens: Hugging Face name or path, or scratch(vocab=…) for one trained on the data."""
    shards: int = 1
    """Number of files to distribute the rows over in turn: cut-00001-of-00004.jsonl, …; read them as
    "cut-*-of-*.jsonl"."""
    read_options: ReadOptions = field(default_factory=ReadOptions)


def run(config: Config) -> Path:
    """Write the truncated rows and return the data file; of shards, the name they are derived from."""
    began = time.monotonic()
    truncation = Truncation(
        one_keep(config.keep, config.truncate_percentage), config.cut, config.part, config.boundary, config.seed
    )
    target, home = places_of(config.output)
    _check_free(config, target, home)
    runs.check_free(home, config.overwrite, config)

    tokenizer = load_tokenizer(config.tokenizer, reading.examples(reading.stream(config.input, config.read_options)))
    if is_call(config.tokenizer):
        say(f"tokens: byte-level BPE of {len(tokenizer)} trained on this data; --tokenizer NAME takes your model's")
    row_reader, effect = reading.stream(config.input, config.read_options), TruncationEffect()
    # Written to a temporary place: an earlier output stays until all rows have passed, and a refusal leaves no files.
    existing = next(place for place in home.parents if place.exists())
    with tempfile.TemporaryDirectory(prefix=".tmp-", dir=existing) as aside:
        rows = shortened(_examples(row_reader, truncation), truncation, token_ends(tokenizer), effect)
        written = reading.write(Path(aside) / target.name, rows, config.shards)
        say(f"data: {row_reader.place} · {row_reader.layout}")
        stages = {"read": row_reader.row_counts, "truncate": effect.row_counts}
        say_stages(stages)
        if not row_reader.row_counts.kept:
            raise row_reader.no_usable_rows()
        if not effect.row_counts.kept:
            raise DataError(row_reader.place, "no row is left", "keep more")
        facts = _facts(config, truncation, effect)
        with recording(home, "preprocess", config, read=row_reader, stages=stages, facts=facts, began=began) as writer:
            for file in written:
                shutil.move(file, target.parent / file.name)
            if not truncation.changes_nothing:
                writer.write_metrics(effect.figures())
                files.write_json(home / "dropped.json", effect.dropped)
                for line in truncation_report(effect):
                    say(line)
    return target


def _examples(row_reader: RowReader, truncation: Truncation) -> Iterator[Preference | Unpaired]:
    """Yield the rows, if the cut is possible for them. Errors: `UsageError`; `DataError` for another kind."""
    for example in reading.examples(row_reader):
        truncation.check_rows(example)
        yield example


def _facts(config: Config, truncation: Truncation, effect: TruncationEffect) -> Facts:
    before = runs.facts_of(config.input)
    saved = 1 - (1 - before.get("flops_saved", 0.0)) * (1 - effect.flops_saved)
    return {**before, **facts_of(EncodeOptions(truncation, "complete", 0), before), "flops_saved": saved}


def _check_free(config: Config, target: Path, home: Path) -> None:
    """Refuse an output that exists or cannot be created, before any work."""
    reading.check_writable(target)
    if config.shards > 1 and not config.output.suffix:
        raise UsageError(f"--shards {config.shards}", f"--output {config.output} is a run directory", "name a file")
    replaces = config.overwrite or runs.begun(home, config)
    for path in shard_paths(target, config.shards):
        check_data_file(path, home, replaces)
