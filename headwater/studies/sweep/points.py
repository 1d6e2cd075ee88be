"""Points of a sweep: the models to train, their evaluations, and their directories."""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal

from headwater import config as configs
from headwater.config import POSITIONAL
from headwater.data.reading import ReadOptions
from headwater.data.truncation import parse_keep
from headwater.data.turns import EndToken
from headwater.errors import UsageError
from headwater.noninferiority import MARGIN, check_margin

Budget = Literal["examples", "tokens"]

HELP = {
    "Input": ("data", "split", "limit"),
    "Output": ("output", "status"),
    "Study": ("train", "model", "keeps", "seeds", "equal", "margin"),
    "Training": (
        "num_train_epochs",
        "learning_rate",
        "per_device_train_batch_size",
        "freeze_layers",
        "lora_r",
        "precision",
        "max_length",
        "eval_fraction",
    ),
}


@dataclass(frozen=True)
class Config:
    """Flags of `headwater sweep`."""

    data: Annotated[Path, POSITIONAL]
    """Preference pairs: a file, directory, pattern, run, or name on the hub."""
    read_options: ReadOptions = field(default_factory=ReadOptions)
    output: Path = Path("sweep")
    """Directory of the study: a run for every model and evaluation, a summary, and report.html."""
    train: Literal["reward", "dpo"] = "reward"
    """What to train at every point: a reward model, or a policy by DPO."""
    model: str = "scratch(hidden=256, layers=4)"
    """Model to train: Hugging Face name or path, or scratch(…) for random weights."""
    keeps: tuple[str, ...] = ("10%", "25%", "50%", "100%")
    """Kept ratios; 100% is always among them."""
    seeds: tuple[int, ...] = (0, 1, 2)
    """Random seeds of weights, order and held-out share; intervals are over them."""
    equal: tuple[Budget, ...] = ("examples", "tokens")
    """What every ratio gets as much of as full responses: examples, or tokens (which means more examples)."""
    margin: float = MARGIN
    """Percentage points of accuracy that a kept ratio may lose and still count as not worse than all."""
    num_train_epochs: float = 1.0
    """Number of passes over the training pairs with full responses."""
    learning_rate: float | None = None
    """Peak learning rate. Default: 1e-3 for a small model and for what descends from a scratch one, less for a large
    scratch one, and by command for pretrained ones; it is printed with its reason."""
    per_device_train_batch_size: int = 8
    """Pairs in a batch, on every device."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of the computation. auto is bf16 where the device computes it natively and, on a CPU, where a
    timing at the start finds it no slower than fp32."""
    freeze_layers: int | None = None
    """Train the last so many layers only, with the final norm and the head; 0 trains the score head alone. Hidden
    states of the frozen ones are computed once for all seeds, and of a causal model for all ratios. Default: train all
    layers."""
    lora_r: int | None = None
    """Rank of LoRA adapters to train instead of all weights. Default: train all weights."""
    eval_fraction: float = 0.2
    """Share of the prompts that is held out of training and evaluated."""
    end: EndToken = "complete"
    """Which responses get an end-of-turn token: complete ones, always (as in published runs), or never; template gives
    complete ones all that the chat template writes behind them, such as a line break."""
    max_length: int | None = None
    """Maximum number of tokens of a prompt with its longer response; longer pairs are dropped and counted. Default:
    2048, or the number of positions of the model if that is less."""
    status: bool = False
    """Print which points are done, and run nothing."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work. Errors: `UsageError`."""
        if not self.seeds or not self.equal:
            raise UsageError("--seeds" if not self.seeds else "--equal", "is empty", "give one or more")
        check_margin(self.margin)
        if self.freeze_layers is not None and self.lora_r is not None:
            problem = "adapters would change what the frozen layers compute"
            raise UsageError("--freeze-layers with --lora-r", problem, "leave one of them out")
        if not 0 < self.eval_fraction < 1:
            raise UsageError(f"--eval-fraction {self.eval_fraction:g}", "expected a share in (0, 1)", "such as 0.2")
        if len(self.ratios) < 2:
            raise UsageError("--keeps", "has no ratio below 100%", "give ratios to compare with it, such as 25% 50%")

    @property
    def ratios(self) -> list[Fraction]:
        """Kept ratios, ascending, with 1 at the end. Errors: `UsageError`."""
        keeps = {text: parse_keep(text) for text in self.keeps}
        for text, keep in keeps.items():
            if keep.unit != "ratio":
                raise UsageError(f"--keeps {text}", "is not a ratio", "write 25% or 0.25")
        return sorted({keep.amount for keep in keeps.values()} | {Fraction(1)})

    def common(self) -> dict[str, Any]:
        """Return the settings that every point shares."""
        own = configs.flatten(self)
        return {
            name: value
            for name, value in own.items()
            if name not in ("output", "keeps", "seeds", "equal", "margin", "status")
        }


@dataclass(frozen=True)
class Point:
    """One model of the sweep."""

    keep: Fraction
    equal: Budget
    seed: int

    @property
    def name(self) -> str:
        """Name of its directory."""
        return f"keep-{100 * float(self.keep):g}-equal-{self.equal}-seed-{self.seed}"

    @property
    def seen(self) -> list[Fraction]:
        """Kept ratios of the held-out responses it is evaluated on: all, and the ratio it was trained on."""
        return sorted({Fraction(1), self.keep}, reverse=True)


@dataclass(frozen=True)
class Sweep:
    """Points of a sweep and their directories."""

    config: Config

    def points(self) -> list[Point]:
        """Return all points; full responses appear once, because equal examples are equal tokens there."""
        config = self.config
        budgets: tuple[Budget, ...] = ("examples", "tokens")  # tokens are counted by the run of equal examples
        return [
            Point(keep, equal, seed)
            for equal in budgets[: 1 + ("tokens" in config.equal)]
            for keep in reversed(config.ratios)
            for seed in config.seeds
            if keep < 1 or equal == "examples"
        ]

    def trained(self, point: Point) -> Path:
        """Return the training run of a point."""
        return self.config.output / point.name

    def judged(self, point: Point, seen: Fraction) -> Path:
        """Return the evaluation of a point on the `seen` share of held-out responses."""
        return self.config.output / f"{point.name}-on-{100 * float(seen):g}"

    def failure(self, point: Point) -> Path:
        """Return the file of the error of a point."""
        return self.config.output / f"{point.name}.failed.txt"

    def is_done(self, point: Point) -> bool:
        """Return whether a point is trained and evaluated."""
        wanted = [self.trained(point), *(self.judged(point, seen) for seen in point.seen)]
        return all((path / "done").is_file() for path in wanted)
