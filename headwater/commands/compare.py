"""Compare models by what judges prefer: win rates, also at equal length, strengths, agreement of judges, examples."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from headwater.commands._flags import RunFlags
from headwater.config import POSITIONAL
from headwater.console import say_stages, show
from headwater.data.reading import LayoutOptions
from headwater.errors import UsageError
from headwater.noninferiority import MARGIN, check_margin
from headwater.results import runs
from headwater.results.recording import recording
from headwater.statistics import LEVEL

if TYPE_CHECKING:
    from headwater.evaluation.policy_comparison import ComparisonOptions, PolicyComparison

EXAMPLE = "headwater compare runs/judged annotations.json --output runs/compared"

HELP = {
    "Input": ("judgements", "columns", "baseline"),
    "Output": ("output", "overwrite"),
    "Length and style": ("lc_data", "lc_prompts", "style_control"),
    "Statistics": ("compat", "margin", "seed"),
}


@dataclass(frozen=True, kw_only=True)
class Config(RunFlags):
    """Flags of `headwater compare`."""

    judgements: Annotated[tuple[Path, ...], POSITIONAL]
    """Files of judgements, and runs of judge, on the same answers."""
    output: Path
    """Directory of the run."""
    layout_options: LayoutOptions = field(default_factory=LayoutOptions)
    baseline: str | None = None
    """Model to compare with. Default: the one that comes first in all judgements."""
    lc_data: Path | None = None
    """AlpacaEval's instruction_difficulty.csv or df_gamed.csv, for the length-controlled win rate as published.
    Without it, only length is controlled for, which works for any prompts."""
    lc_prompts: Path | None = None
    """AlpacaEval outputs of any model for all prompts, to find those that were not judged; not needed where one of
    the models was judged on all."""
    style_control: bool = False
    """Rank models at equal style: length, headers, lists and bold text."""
    answers: tuple[Path, ...] = ()
    """Arena-Hard answers whose style is measured; not needed where the judgements hold the answers."""
    compat: Literal["upstream"] | None = None
    """Compute win rates as a benchmark does: upstream, as Arena-Hard does, with 90% intervals over votes that are
    not independent."""
    examples: int = 5
    """Number of most improved prompts, and of most degraded ones, to keep."""
    margin: float = MARGIN
    """Percentage points of win rate by which a model may be below the baseline and still count as not worse."""
    seed: int = 42
    """Random seed of the bootstrap intervals."""


def run(config: Config) -> Path:
    """Compare, print what follows and return the run directory."""
    from headwater.evaluation.judgement_files import read_all
    from headwater.evaluation.policy_comparison import compare

    _check(config)
    judgements, stages = read_all(config.judgements, config.layout_options.description)
    found = compare(judgements, _options(config))
    if config.lc_data and found.length_control is None:
        raise UsageError(
            "--lc-data", "has no effect: the judgements hold no answers of different lengths", "leave it out"
        )
    stages[f"against {found.baseline}"] = found.row_counts
    with recording(config.output, "compare", config, inputs=config.judgements, stages=stages) as run:
        found.write(run)
    say_stages(stages)
    _show(found, config)
    return run.path


def _check(config: Config) -> None:
    """Refuse flags that cannot work. Errors: `UsageError`."""
    check_margin(config.margin)
    if not config.judgements:
        raise UsageError("no judgements are named", "headwater compare RUN … --output runs/compared")
    config.layout_options.check_describes()
    if config.lc_prompts and not config.lc_data:
        raise UsageError("--lc-prompts", "has no effect without --lc-data", "add it, or leave --lc-prompts out")
    if config.answers and not config.style_control:
        raise UsageError("--answers", "has no effect without --style-control", "add it, or leave --answers out")
    if config.examples < 0:
        raise UsageError(f"--examples {config.examples}", "expected 0 or more")
    runs.check_free(config.output, config.overwrite, config)


def _options(config: Config) -> ComparisonOptions:
    from headwater.evaluation import arena_hard, length_control
    from headwater.evaluation.policy_comparison import ComparisonOptions

    return ComparisonOptions(
        baseline=config.baseline,
        reference=length_control.read_reference(config.lc_data, config.lc_prompts),
        style_control=config.style_control,
        styles=arena_hard.read_styles(config.answers),
        upstream=config.compat == "upstream",
        examples=config.examples,
        margin=config.margin,
        seed=config.seed,
    )


def _show(found: PolicyComparison, config: Config) -> None:
    """Print the tables, and what follows in sentences."""
    from headwater.evaluation import tables

    level = "90 % over votes" if config.compat else f"{100 * LEVEL:g} %"
    for table in tables.comparison(found, level, show_official=config.lc_data is not None):
        show(table)
    for sentence in found.sentences:
        show(sentence)
