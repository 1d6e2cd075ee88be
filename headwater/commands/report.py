"""Write one self-contained HTML page from run directories: findings, tables, and interactive figures."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from headwater.config import POSITIONAL
from headwater.console import say, show
from headwater.errors import UsageError
from headwater.files import destinations
from headwater.noninferiority import MARGIN, check_margin
from headwater.reporting import figures, page
from headwater.reporting.findings import distinct, findings
from headwater.reporting.terminal import key_figures
from headwater.results import runs

EXAMPLE = "headwater report runs/reward runs/reward-on-pairs --output report.html"

HELP = {
    "Input": ("runs",),
    "Findings": ("margin",),
    "Output": ("output", "overwrite", "figures"),
}


@dataclass(frozen=True)
class Config:
    """Flags of `headwater report`."""

    runs: Annotated[tuple[Path, ...], POSITIONAL]
    """Run directories, in the order in which they should appear; of any other directory, all finished runs beneath."""
    output: Path = Path("report.html")
    """HTML file to write."""
    overwrite: bool = False
    """Replace an existing page at --output."""
    margin: float = MARGIN
    """Percentage points of accuracy by which a model may be worse and still count as not worse."""
    figures: Path | None = None
    """Directory to write every figure to as SVG, PDF and PNG; existing files of the same names are replaced."""


def run(config: Config) -> Path:
    """Write the page, print what it found, and return its path."""
    if not config.runs:
        raise UsageError("no run is named", "headwater report RUN… --output report.html")
    if config.output.suffix.lower() not in (".html", ".htm"):
        raise UsageError(f"--output {config.output}", "is not a page's name", "end it in .html")
    check_margin(config.margin)
    destinations.check_file(config.output)
    if config.output.exists() and not config.overwrite:
        raise UsageError(f"--output {config.output}", "already exists", "name another page or add --overwrite")
    if config.figures:
        destinations.check_directory(config.figures, "--figures")
    loaded = [runs.load(path) for folder in config.runs for path in _runs_of(folder)]
    written = page.write(loaded, config.output, config.margin)
    show(key_figures(distinct(loaded)))
    show(" ".join(findings(loaded, config.margin)))
    if config.figures:
        say(f"figures: {len(figures.write(distinct(loaded), config.figures))} files in {config.figures}")
    return written


def _runs_of(folder: Path) -> list[Path]:
    """Return a run itself, or the finished runs beneath a folder; names the unfinished ones. Errors: `UsageError`."""
    if not folder.is_dir() or runs.command_of(folder) is not None:
        return [folder]  # one that is no finished run is refused when it is read
    finished, unfinished = runs.beneath(folder)
    if not finished:
        found = f"holds no finished run, and {len(unfinished)} unfinished ones" if unfinished else "holds no run"
        raise UsageError(str(folder), found, "name a directory that a headwater command wrote, or one above")
    for path in unfinished:
        say(f"left out: {path}, which did not finish")
    return finished
