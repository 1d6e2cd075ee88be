"""Show what a data set is: its layout, every row's fate, lengths, shortcuts, and ten rows. Bad rows never stop it."""

from __future__ import annotations

import shlex
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from rich.console import Group

from headwater.commands._flags import RunFlags
from headwater.config import POSITIONAL
from headwater.console import say, show
from headwater.data import embedding, reading
from headwater.data.reading import ReadOptions, memory
from headwater.errors import UsageError
from headwater.files import to_json
from headwater.reporting.ending import layout_flags
from headwater.reporting.inspection_tables import inspection_page
from headwater.results import runs
from headwater.results.facts import Facts
from headwater.results.inspecting import SAMPLES, embed_pairs, inspect_rows, metrics
from headwater.results.inspection import Inspection
from headwater.results.recording import recording
from headwater.results.stored import as_json

EXAMPLE = "headwater inspect pairs.jsonl"
UNSTOPPED = ReadOptions(max_bad_rows="100%")

HELP = {
    "Input": ("data", "layout", "columns", "split", "limit"),
    "Output": ("output", "overwrite", "json"),
    "Measurement": ("tokenizer",),
}


@dataclass(frozen=True, kw_only=True)
class Config(RunFlags):
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


def run(config: Config) -> Inspection:
    """Inspect the data and return what was found."""
    began = time.monotonic()
    _refuse(config)
    row_reader = reading.stream(config.data, config.read_options)
    found, profile = inspect_rows(row_reader, config.tokenizer)
    if config.json:
        # Not through the console, which would wrap it.
        print(to_json(as_json(found)))
    else:
        show(Group(*inspection_page(found, profile.shown(SAMPLES))))
    if config.output:
        points = None if config.embed is None else embed_pairs(profile, config.embed, config.seed)
        stages = {"read": row_reader.row_counts}
        facts: Facts = {"layout": row_reader.layout}
        with recording(
            config.output, "inspect", config, read=row_reader, stages=stages, facts=facts, began=began
        ) as writer:
            writer.write_metrics(metrics(found))
            writer.write(found)
            if points:
                writer.write(points)
        say(f"written: {config.output}")
    if not config.json and memory.find(config.data) is None:
        flags = layout_flags(config.read_options.layout, config.read_options.columns)
        say(" ".join(["next: headwater signal", shlex.quote(str(config.data)), *flags]))
    return found


def _refuse(config: Config) -> None:
    """Refuse what cannot work, before any row is read."""
    if config.output:
        runs.check_free(config.output, config.overwrite, config)
    if config.embed is not None:
        embedding.check(config.embed)
        if not config.output:
            raise UsageError(f"--embed {config.embed}", "there is no run to hold the points", "add --output RUN")
