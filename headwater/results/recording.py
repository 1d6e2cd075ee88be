"""What every command does around its own work: begin the run, store the row counts and the bad rows, finish the run.

runs.check_free(config.output, config.overwrite, config)      # refuse a taken output before any work
loaded = reading.load(config.data, config.read_options)
with recording(output, "signal", config, read=loaded, stages=stages, facts=facts) as run:
    run.write(SignalCurve(points))
    run.write_metrics(metrics)
return run.path
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from headwater.console import RowAccount
from headwater.data.reading import QUARANTINE, Quarantine
from headwater.results import runs
from headwater.results.facts import Facts
from headwater.results.runs import RunWriter


class ReadRows(Protocol):
    """Rows that were read, or are read while the run is written: `reading.Loaded` or `reading.RowReader`."""

    @property
    def files(self) -> tuple[Path, ...]:
        """The files that were read."""

    @property
    def quarantine(self) -> Quarantine:
        """The rows that were not kept."""


@contextlib.contextmanager
def recording(
    path: Path,
    command: str,
    config: Any,
    *,
    read: ReadRows | None = None,
    stages: Mapping[str, RowAccount] | None = None,
    inputs: Iterable[Path] = (),
    facts: Facts | None = None,
    began: float | None = None,
) -> Iterator[RunWriter]:
    """Begin the run of a command, and finish it when the block ends without an error.

    Row counts (`stages`, by name) and the quarantine of `read` are stored at the end, so both may still fill inside of
    the block. Call it when the inputs are known to be good: a refused command then leaves nothing behind. An error
    inside of the block leaves a run without its done-marker. `inputs`, `facts` and `began` as for `runs.start`.
    """
    run = runs.start(path, command, config, inputs=[*(read.files if read else ()), *inputs], facts=facts, began=began)
    yield run
    run.count_stages(stages or {})
    if read is not None:
        read.quarantine.save(run.path / QUARANTINE)
    run.finish()
