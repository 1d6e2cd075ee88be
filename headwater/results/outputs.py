"""Output paths of commands that write data: the data file, and the directory of its run."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from headwater.data import reading
from headwater.errors import UsageError
from headwater.files import destinations
from headwater.results import runs


class Places(NamedTuple):
    """The data file and the run directory of an output."""

    target: Path
    home: Path


def places_of(output: Path) -> Places:
    """Return the paths of an output: a name with a suffix is a data file with a run beside it, else a run directory.

    Errors: `UsageError` for a name that cannot be one.
    """
    destinations.check_name(output)
    return Places(output, runs.beside(output)) if output.suffix else Places(output / reading.PREFERENCES, output)


def free_places(output: Path, source: Path, overwrite: bool, config: Any = None) -> Places:
    """Return the paths of an output made from `source`, and check them before any work; `config` as for `check_free`.

    Errors: `UsageError` where they exist and are not to be overwritten, or would replace the data that is read.
    """
    target, home = places_of(output)
    reading.check_writable(target)
    data = source.resolve()
    if overwrite and (data == target.resolve() or home.resolve() in (data, *data.parents)):
        raise UsageError(f"--output {output}", "would replace the data that is read", "name another place")
    check_data_file(target, home, overwrite or (config is not None and runs.begun(home, config)))
    runs.check_free(home, overwrite, config)
    return Places(target, home)


def check_data_file(target: Path, home: Path, overwrite: bool, flag: str = "--output") -> None:
    """Refuse a data file that cannot be written, or exists (unless `overwrite`), or is not an output of the run `home`.

    Errors: `UsageError`.
    """
    if target.parent != home:  # inside of a run directory, which is checked as a whole
        destinations.check_file(target, flag)
    if not target.exists():
        return
    if not overwrite:
        raise UsageError(f"{flag} {target}", "already exists", "name another file or add --overwrite")
    if target.parent != home and not (home / "environment.json").is_file():
        fix = "delete it yourself, or name another file"
        raise UsageError(f"{flag} {target}", f"was not written by headwater: there is no {home.name} beside it", fix)


def journal_of(output: Path) -> Path:
    """Return the journal of an output, which holds finished work until the output is complete: `OUTPUT.ledger`."""
    return output.with_name(output.name + ".ledger")


def default_run(model: str, data: Path) -> Path:
    """Return the directory MODEL-on-DATA beside a local model, or in the working directory."""
    path = Path(runs.trained_of(model))
    before = "untrained-" if runs.is_untrained(model) else ""
    name = f"{before}{path.name}-on-{reading.name_of(data)}"
    return path.parent / name if path.is_dir() else Path(name)
