"""The run directory, the only link between commands that compute and the report that shows.

    RUN/
      config.yaml       the resolved flags; `headwater COMMAND --config RUN/config.yaml` repeats the run
      environment.json  command, arguments, versions, machine, input fingerprints
      facts.json        what later commands and the report need to know, inherited by later runs (kept ratio, …)
      account.json      rows in = kept + quarantined + dropped, by reason, for every stage
      history.jsonl     one line a logging step
      metrics.json      figures with their intervals
      records.parquet   one row a scored pair
      manifest.json     name, size and sha256 of every file
      done              written last; a directory without it did not finish

Files are written under a temporary name and renamed, so that none is ever incomplete. A training run also holds its
model: the directory is itself a loadable Hugging Face model. Typed results (`stored.py`) are files of their own.
"""

from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import platform
import re
import shutil
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import pyarrow
import pyarrow.parquet

from headwater import config as configs
from headwater.console import RowAccount, say
from headwater.data.reading import memory
from headwater.errors import DataError, UsageError
from headwater.files import (
    destinations,
    digest,
    locks,
    room_for,
    sha256,
    to_json,
    write_json,
    write_text,
)
from headwater.masking import mask, mask_all, mask_values
from headwater.results.facts import Facts
from headwater.results.stored import StoredResult, write_parquet
from headwater.results.training import TrainingHistory
from headwater.statistics import Estimate

PACKAGES = ("headwater", "torch", "transformers", "accelerate", "tokenizers", "numpy", "pyarrow")


TRAINED_ON = "trained_on.txt"
"""In a training run: the conversation ids of its training pairs, one a line; `evaluate` leaves them out."""


class RunWriter:
    """Writer of a run; `start` returns one, and `finish` ends the run."""

    def __init__(self, path: Path, facts: Facts, began: float | None = None) -> None:
        self.path = path
        self.facts = facts.copy()
        self.row_counts: list[dict[str, Any]] = []
        self._began = time.monotonic() if began is None else began

    def log(self, row: Mapping[str, Any]) -> None:
        """Append one row to the history; it is on disk when this returns."""
        path = self.path / "history.jsonl"
        with room_for(path), path.open("a", encoding="utf-8") as handle:
            handle.write(mask_values(to_json(row)) + "\n")

    def count(
        self, stage: str, rows_in: int, kept: int, dropped: Mapping[str, int], quarantined: int = 0, **also: Any
    ) -> None:
        """Store the row counts of a stage, and `also` beside them. Errors: ValueError where they do not add up."""
        if rows_in != kept + quarantined + sum(dropped.values()):
            found = f"{kept} kept, {quarantined} quarantined and {dict(dropped)} dropped"
            raise ValueError(f"{stage}: {rows_in} rows in, but {found}")
        counts = {"rows_in": rows_in, "kept": kept, "quarantined": quarantined, "dropped": dict(dropped)}
        self.row_counts.append({"stage": stage, **counts, **also})
        write_json(self.path / "account.json", self.row_counts)

    def count_stages(self, stages: Mapping[str, RowAccount]) -> None:
        """Store the row counts of several stages."""
        for stage, row_counts in stages.items():
            also: dict[str, Any] = {"split": row_counts.split} if row_counts.split else {}
            also |= {"not_read": list(row_counts.not_read)} if row_counts.not_read else {}
            also |= {"notes": dict(row_counts.notes)} if row_counts.notes else {}
            self.count(stage, row_counts.rows_in, row_counts.kept, row_counts.dropped, row_counts.quarantined, **also)

    def write_metrics(self, metrics: Mapping[str, Estimate | float | int | str | None]) -> None:
        """Store figures; an `Estimate` is stored with its interval and counts."""
        plain = {key: m._asdict() if isinstance(m, Estimate) else m for key, m in metrics.items()}
        write_json(self.path / "metrics.json", plain)

    def write_records(self, records: Sequence[Mapping[str, Any]]) -> None:
        """Store one row a scored pair as Parquet."""
        write_parquet(self.path / "records.parquet", records)

    def write(self, result: StoredResult) -> None:
        """Store a typed result in its own file."""
        result.write(self.path)

    def finish(self) -> Path:
        """Write facts, manifest and, last, the done-marker, and return the run's path."""
        write_json(self.path / "facts.json", self.facts)
        files = sorted(path for path in self.path.rglob("*") if path.is_file() and self._belongs(path))
        manifest = {path.relative_to(self.path).as_posix(): _entry(path) for path in files}
        write_json(self.path / "manifest.json", manifest)
        write_json(self.path / "done", {"seconds": round(time.monotonic() - self._began, 3)})
        locks.release(self.path)
        return self.path

    def _belongs(self, path: Path) -> bool:
        """Say whether a file belongs to the finished run: checkpoints, and their remains after a crash, do not."""
        first = path.relative_to(self.path).parts[0]
        return first not in ("manifest.json", "done") and not first.startswith(("checkpoint-", ".tmp-"))


def _entry(path: Path) -> dict[str, Any]:
    """Return the entry of a file in the manifest: its size, a digest to publish, and a fast one to check reads by."""
    return {"bytes": path.stat().st_size, "sha256": sha256(path), "xxh3": digest(path)}


class NullRunWriter(RunWriter):
    """Writer that writes nothing, for all processes of a training but the first."""

    def log(self, row: Mapping[str, Any]) -> None:
        """Write nothing."""

    def count(
        self, stage: str, rows_in: int, kept: int, dropped: Mapping[str, int], quarantined: int = 0, **also: Any
    ) -> None:
        """Write nothing."""

    def write_metrics(self, metrics: Mapping[str, Estimate | float | int | str | None]) -> None:
        """Write nothing."""

    def write(self, result: StoredResult) -> None:
        """Write nothing."""

    def finish(self) -> Path:
        """Return the run's path."""
        return self.path


def check_free(path: Path, overwrite: bool, config: Any = None) -> None:
    """Refuse an output that exists (unless `overwrite`), cannot be made, or is being written, before any work.

    Only a directory that holds a run of headwater and nothing else is ever replaced. An unfinished run of the same
    command and `config` is replaced without `overwrite`. Errors: `UsageError`.
    """
    destinations.check_directory(path)
    if path.is_dir() and any(path.iterdir()):
        destinations.check_own(path)
        again = config is not None and begun(path, config)
        if not overwrite and not again:
            raise UsageError(f"--output {path}", "already holds a run", "name another directory or add --overwrite")
        if again:
            say(f"{path}: was begun by this command and not finished; it starts over")
    locks.hold(path)


def is_unfinished(path: Path) -> bool:
    """Say whether `path` holds an unfinished run."""
    return (path / "environment.json").is_file() and not (path / "done").is_file()


def config_of(path: Path) -> dict[str, Any]:
    """Return the stored settings of a run by flag; {} where they cannot be read."""
    try:
        return dict(configs.read_yaml(path / "config.yaml"))
    except (OSError, UsageError):
        return {}


def begun(path: Path, config: Any) -> bool:
    """Say whether `path` holds an unfinished run of this config (`overwrite` aside)."""
    if (path / "done").is_file() or not (path / "environment.json").is_file():
        return False
    before, now = config_of(path), mask_all(configs.flatten(config), mask)
    return all(before.get(name) == value for name, value in now.items() if name != "overwrite")


def start(
    path: Path,
    command: str,
    config: Any,
    *,
    inputs: Iterable[Path] = (),
    facts: Facts | None = None,
    began: float | None = None,
) -> RunWriter:
    """Begin a run: create its directory with config and environment.

    Call it when the inputs are known to be good, so that a refused command leaves nothing behind. An earlier run at
    `path` is replaced here; `check_free` has checked it. `began` is `time.monotonic()` at the start of the work;
    default: now.
    """
    destinations.remove_own(path)
    # Filled under another name, so that a killed command leaves no directory that is not a run.
    begun_at = path.absolute().with_name(f".tmp-{path.absolute().name}")
    shutil.rmtree(begun_at, ignore_errors=True)
    begun_at.mkdir(parents=True)
    write_text(begun_at / "config.yaml", configs.to_yaml(mask_all(configs.flatten(config), mask)))
    environment = {
        "written_by": "headwater",
        "command": command,
        "arguments": [mask(argument) for argument in sys.argv[1:]],
        "started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "versions": {"python": platform.python_version(), **_versions()},
        "machine": _machine(),
        "inputs": {str(path): found for path in inputs if (found := _input_digest(path))},
    }
    write_json(begun_at / "environment.json", environment)
    begun_at.replace(path)
    return RunWriter(path, facts or {}, began)


def take_up(path: Path, *, inputs: Iterable[Path] = (), facts: Facts | None = None, config: Any = None) -> RunWriter:
    """Continue an unfinished run; `config` replaces the stored one where it is given.

    Errors: `DataError` where an input has changed since.
    """
    if config is not None:
        write_text(path / "config.yaml", configs.to_yaml(mask_all(configs.flatten(config), mask)))
    before = _read_json(path / "environment.json", {})["inputs"]
    for file in inputs:
        if (now := _input_digest(file)) and before.get(str(file)) != now:
            raise DataError(str(file), f"has changed since {path} was begun", "start anew with --overwrite")
    return RunWriter(path, facts or {})


def _input_digest(path: Path) -> str | None:
    """Return the SHA-256 of a file, or of the rows of data in memory; None for any other input."""
    return memory.digest_of(path) or (sha256(path) if path.is_file() else None)


def _machine() -> dict[str, Any]:
    found = {"system": platform.platform(), "processor": platform.machine(), "cpus": os.cpu_count()}
    try:
        about = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return found
    model = re.search(r"^model name\s*: (.+)$", about, flags=re.MULTILINE)
    return found | ({"model": model[1].strip()} if model else {})


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


@dataclasses.dataclass(frozen=True)
class Run:
    """A finished run, read from its directory."""

    path: Path
    command: str
    config: dict[str, Any]
    environment: dict[str, Any]
    facts: Facts
    row_counts: list[dict[str, Any]]
    history: list[dict[str, Any]]
    metrics: dict[str, Any]
    seconds: float

    @property
    def name(self) -> str:
        """Name of the directory."""
        return self.path.name

    @property
    def training_history(self) -> TrainingHistory:
        """The history with its columns; empty for a command that trains nothing."""
        return TrainingHistory(tuple(self.history))

    def records(self) -> list[dict[str, Any]]:
        """Return the rows of records.parquet, by column; [] for a command that writes none."""
        path = self.path / "records.parquet"
        return pyarrow.parquet.read_table(path).to_pylist() if path.exists() else []


def load(path: Path) -> Run:
    """Read a finished run. Errors: `UsageError` when `path` is not a run or did not finish."""
    if not (path / "environment.json").is_file():
        raise UsageError(str(path), "is not a run directory", "name a directory that a headwater command wrote")
    if not (path / "done").is_file():
        raise UsageError(str(path), "did not finish (no done-marker)", "repeat the command that wrote it")
    environment = _read_json(path / "environment.json", {})
    history = path / "history.jsonl"
    lines = history.read_text(encoding="utf-8").splitlines() if history.exists() else []
    return Run(
        path=path.resolve(),
        command=environment["command"],
        config=configs.read_yaml(path / "config.yaml"),
        environment=environment,
        facts=_read_json(path / "facts.json", {}),
        row_counts=_read_json(path / "account.json", []),
        history=[json.loads(line) for line in lines],
        metrics=_read_json(path / "metrics.json", {}),
        seconds=_read_json(path / "done", {})["seconds"],
    )


def beneath(path: Path) -> tuple[list[Path], list[Path]]:
    """Return the finished and the unfinished runs at or beneath a directory, in the order of their names.

    What lies inside a run belongs to it: members of an ensemble, references and checkpoints are not runs of their own.
    """
    finished: list[Path] = []
    unfinished: list[Path] = []
    for folder, inner, files in os.walk(path):
        if "environment.json" in files:
            (finished if "done" in files else unfinished).append(Path(folder))
            inner.clear()
        inner.sort(key=_natural)
    return finished, unfinished


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts 2 before 10."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def _read_json(path: Path, default: Any) -> Any:
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else default


_SHARD = re.compile(r"-[\d*?]+-of-[\d*?]+(?=\.)")


def command_of(path: Path) -> str | None:
    """Return the command that wrote the run at `path`; None where there is no run."""
    found = _read_json(path / "environment.json", {}).get("command")
    return found if isinstance(found, str) else None


def beside(data: Path) -> Path:
    """Return the run directory of a data file: `cut.jsonl.run` for `cut.jsonl`.

    Shards have the same one, each (`cut-00001-of-00004.jsonl`) and all of them (`cut-*-of-*.jsonl`).
    """
    data = data if data.name else data.resolve()  # the working directory has no name of its own
    return data.with_name(_SHARD.sub("", data.name) + ".run")


def home_of(result: Path) -> Path:
    """Return the run directory of what a command wrote: itself, the folder that holds it, or the one beside it."""
    return next((place for place in (result, result.parent) if (place / "environment.json").is_file()), beside(result))


def trained_on(path: Path) -> frozenset[str]:
    """Return the conversation ids that a training run was trained on; none for any other model.

    Those of `untrained(RUN)` are those of RUN, so that both are evaluated on the same rows.
    """
    file = Path(trained_of(str(path))) / TRAINED_ON
    return frozenset(file.read_text(encoding="utf-8").split()) if file.is_file() else frozenset()


def members_of(path: str) -> tuple[str, ...]:
    """Return the paths of the members of an ensemble; of any other model, `path` alone."""
    return tuple(str(Path(path) / name) for name in facts_of(Path(path)).get("members", ())) or (path,)


def trained_of(name: str) -> str:
    """Return the run whose reward model `untrained(RUN)` names before its training; any other name as it is."""
    return name.removeprefix("untrained(").removesuffix(")") if is_untrained(name) else name


def is_untrained(name: str) -> bool:
    """Return whether a name is `untrained(RUN)`: a reward model before its training, as a baseline."""
    return name.startswith("untrained(") and name.endswith(")")


def facts_of(path: Path) -> Facts:
    """Return the facts of the run at `path`, of the run that wrote the file `path`, or of data in memory; or else {}.

    Those of `untrained(RUN)` are those of RUN.
    """
    path = Path(trained_of(str(path)))
    if held := memory.facts_of(path):
        return cast(Facts, dict(held))
    for place in (path, beside(path)):
        if (place / "facts.json").is_file():
            facts: Facts = _read_json(place / "facts.json", {})
            return facts
    return {}
