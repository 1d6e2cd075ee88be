"""Align a small real model on this machine: signal, truncation, reward models, DPO, and answers before and after.

Every step is a command of headwater, which is printed as you would type it. The pairs are those of a file of yours, or
are written from templates. A stopped demo goes on where it was when the command is repeated. The report opens with the
answers of the model before and after training, side by side.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from headwater import config as configs
from headwater import files
from headwater.config import POSITIONAL
from headwater.console import say, show
from headwater.errors import ModelError, UsageError
from headwater.files import destinations, locks
from headwater.reporting.findings import findings
from headwater.reporting.side_by_side import beside
from headwater.results import runs
from headwater.studies.command_steps import run_steps
from headwater.studies.demo_real.pairs import write_parts
from headwater.studies.demo_real.steps import Plan

EXAMPLE = "headwater demo-real --output demo-real"
HELP = {
    "Input": ("data", "pairs", "prompts"),
    "Output": ("output",),
    "Models": ("model", "judge", "freeze_layers", "seed"),
}
SETTINGS = "settings.yaml"
"""File of the settings of a demo; other settings need another directory."""
SHOWN = 2
"""Prompts whose answers are printed at the end."""


@dataclass(frozen=True)
class Config:
    """Flags of `headwater demo-real`."""

    data: Annotated[Path | None, POSITIONAL] = None
    """Preference pairs: a file, directory, pattern, run, or name on the hub. Default: pairs that are written from
    templates, with a known quality of every answer."""
    output: Path = Path("demo-real")
    """Directory of the study: the pairs, a run for every step, and report.html."""
    model: str = "models/SmolLM2-135M-Instruct"
    """Policy to train, and reward model that measures the signal: Hugging Face name or path of a causal model."""
    judge: str = "models/all-MiniLM-L6-v2"
    """Model from which the judge of the answers is trained, on other prompts than the policy's: name or path."""
    freeze_layers: int = 6
    """Number of layers of the policy, and of its reward model, that are trained: the last ones. The others are frozen,
    which is several times faster."""
    pairs: int = 480
    """Number of pairs to write, or to take from the data, in all three parts."""
    prompts: int = 20
    """Number of held-out prompts to answer before and after training."""
    seed: int = 0
    """Random seed of the pairs, the parts, the training and the intervals."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work. Errors: `UsageError`."""
        for name in ("pairs", "prompts", "freeze_layers"):
            if getattr(self, name) < 1:
                raise UsageError(f"--{name.replace('_', '-')} {getattr(self, name)}", "expected 1 or more")


def run(config: Config) -> Path:
    """Run the steps that are not done, print what was found and the first answers, and return the report's path."""
    _check_models(config)
    _check_settings(config)
    plan = Plan(config.output, config.model, config.judge, config.seed, config.pairs, config.freeze_layers)
    say(f"demo-real: {config.model} and {config.judge}, {config.pairs} pairs, in {config.output}")
    write_parts(config.data, plan.pairs, config.pairs, config.prompts, config.seed, config)
    run_steps(plan.steps())
    loaded = [runs.load(path) for path in plan.shown()]
    for answers in beside(loaded):
        for row in answers.rows[:SHOWN]:
            show(f"\n{row.prompt}")
            for answer in row.answers:
                show(f"  {answer.model}: {' '.join(answer.text.split())}")
    show("\n" + "\n".join(findings(loaded)))
    return plan.report


def _check_models(config: Config) -> None:
    """Errors: `ModelError` for a model of `make models` that is not there."""
    for name in (config.model, config.judge):
        if name.startswith("models/") and not Path(name).exists():
            raise ModelError(name, "no such directory", "run `make models`, or name another model")


def _check_settings(config: Config) -> None:
    """Refuse a directory of other settings or of something else; begin a new one. Errors: `UsageError`."""
    path, now = config.output / SETTINGS, configs.flatten(config)
    destinations.check_directory(config.output)
    locks.hold(config.output)
    if path.is_file():
        before = configs.read_yaml(path)
        changed = next((name for name, value in now.items() if name != "output" and before.get(name) != value), None)
        if changed:
            found = f"{config.output} was begun with {before.get(changed)}"
            raise UsageError(f"--{changed} {now[changed]}", found, "choose another --output")
    elif config.output.is_dir() and any(config.output.iterdir()):
        raise UsageError(f"--output {config.output}", "holds other files than a demo's", "choose another directory")
    else:
        config.output.mkdir(parents=True, exist_ok=True)
        files.write_text(path, configs.to_yaml(now))
