"""The settings of a training run, under the names that Hugging Face users know; starts without torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from headwater.config import POSITIONAL
from headwater.data.reading import ReadOptions
from headwater.data.splitting import Leakage
from headwater.data.tokens import TOKENS_PER_PASS
from headwater.data.truncation_options import TruncationOptions
from headwater.errors import UsageError
from headwater.models.lora_options import LoraOptions

MAX_SKIPS = 10
"""Optimizer steps that are skipped before a training stops, unless said otherwise."""


@dataclass(frozen=True)
class TrainingOptions:
    """How to train: passed to `transformers.Trainer` as they are, unless said otherwise."""

    num_train_epochs: float = 1.0
    """Passes over the training pairs."""
    learning_rate: float | None = None
    """Peak learning rate. Default: by loss for a pretrained model, 1e-3 for a scratch one."""
    find_learning_rate: bool = False
    """Before training, raise the rate step by step to where the loss rises, show and record the curve, and train with a
    tenth of the rate at which it was lowest."""
    per_device_train_batch_size: int = 8
    """Pairs an optimizer step sees, on every device; how many are computed at once is up to --tokens-per-pass."""
    gradient_accumulation_steps: int = 1
    """Batches an optimizer step; the loss is averaged over all their pairs."""
    tokens_per_pass: int = TOKENS_PER_PASS
    """Tokens that are computed at once, prompts counted once a pair: memory, not the result, depends on it."""
    lr_scheduler_type: str = "cosine"
    """Learning-rate schedule, by its transformers name."""
    lr_scheduler_kwargs: str | None = None
    """Its settings, such as min_lr_rate=0.1 for cosine_with_min_lr, or num_decay_steps=50 for warmup_stable_decay."""
    warmup_ratio: float = 0.03
    """Part of the steps that warm up."""
    weight_decay: float = 0.0
    max_grad_norm: float = 1.0
    """Gradient norm above which the gradient is scaled down."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """auto: bf16 where the device computes it natively and, on a CPU, no slower than fp32 (timed at the start)."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    torch_compile: bool = False
    """Fuse the work between matrix products, layer by layer: a minute at the start, then faster steps."""
    lora_r: int | None = None
    """Train low-rank adapters of this rank instead of all weights; the saved model has them merged in."""
    lora_alpha: int | None = None
    """Scale of the adapters, divided by their rank. [2 × rank]"""
    lora_dropout: float | None = None
    """Dropout of the adapters' input. [0]"""
    lora_target_modules: str | None = None
    """Modules that get adapters, by the end of their names, separated by commas. [all linear ones but the head]"""
    logging_steps: int = 10
    eval_fraction: float | None = None
    """Part of the prompts (by a hash of their opening) held out of training; 0 holds out nothing. [0.1]"""
    eval_steps: int | None = None
    """Evaluate the held-out part every so many steps too. [at the end of every epoch only]"""
    early_stopping_patience: int | None = None
    """End training after so many evaluations in a row without a better held-out accuracy (train-sft: loss), and keep
    the weights of the best one. [train to the end, keep the last]"""
    eval_data: Path | None = None
    """Evaluate on these pairs (file, directory, pattern, run, or name on the hub) instead of a held-out part."""
    eval_split: str | None = None
    """Which part of --eval-data, where it has several (train, test, …)."""
    leakage: Leakage = "refuse"
    """Where --data and --eval-data share prompts: refuse, drop those training rows (counted), or allow it."""
    save_steps: int | None = None
    """Write a checkpoint every so many steps; the same command, given again, then goes on from the last one."""
    nan_policy: Literal["stop", "skip"] = "stop"
    """What happens at an optimizer step whose loss or gradient is not finite, and which is never taken: stop, keeping
    the last good checkpoint; or skip the step, and count it."""
    max_skips: int | None = None
    """Steps that --nan-policy skip leaves out before it stops. [10]"""
    allow_changes: bool = False
    """Go on from a checkpoint although data, model, settings, versions or the number of processes have changed since;
    the run's facts record what."""
    ddp_timeout: int = 600
    """Seconds after which a job of several processes ends where one of them does not answer."""
    seed: int = 42
    """Seeds weights, order of pairs, the held-out part and bootstrap intervals."""
    split_seed: int | None = None
    """Seeds the held-out part alone, which models of several seeds then have in common. [--seed]"""
    report_to: str = "none"
    """Tracker that transformers knows: tensorboard, trackio, wandb, …"""
    push_to_hub: str | None = None
    """Upload the finished model to this repository of the hub (owner/name), private where it is new."""

    def __post_init__(self) -> None:
        """Refuse values that cannot work. Errors: `UsageError`."""
        for name in (
            "num_train_epochs",
            "per_device_train_batch_size",
            "gradient_accumulation_steps",
            "tokens_per_pass",
            "ddp_timeout",
        ):
            _require(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        _require(self.learning_rate is None or self.learning_rate > 0, "learning_rate", self.learning_rate, "above 0")
        _require(
            self.eval_fraction is None or 0 <= self.eval_fraction < 1, "eval_fraction", self.eval_fraction, "in [0, 1)"
        )
        for name in ("eval_steps", "early_stopping_patience", "save_steps", "max_skips"):
            _require(getattr(self, name) is None or getattr(self, name) > 0, name, getattr(self, name), "above 0")
        if self.save_steps is not None and self.early_stopping_patience is not None:
            raise UsageError("--save-steps", "does not keep the best weights", "leave --early-stopping-patience out")
        if self.find_learning_rate and self.learning_rate is not None:
            raise UsageError("--find-learning-rate", "has no effect with --learning-rate", "leave one of them out")
        if self.max_skips is not None and self.nan_policy == "stop":
            raise UsageError("--max-skips", "has no effect with --nan-policy stop", "add --nan-policy skip")
        self._check_evaluation()
        self._check_adapters()
        _require(0 <= self.warmup_ratio < 1, "warmup_ratio", self.warmup_ratio, "in [0, 1)")
        _require(self.logging_steps > 0, "logging_steps", self.logging_steps, "above 0")

    def _check_evaluation(self) -> None:
        if self.eval_data is not None and self.eval_fraction is not None:
            raise UsageError("--eval-fraction", "has no effect with --eval-data", "leave one of them out")
        if self.eval_data is not None and self.split_seed is not None:
            raise UsageError("--split-seed", "has no effect with --eval-data", "leave one of them out")
        for name in ("eval_steps", "early_stopping_patience"):
            if self.eval_fraction == 0 and getattr(self, name) is not None:
                raise UsageError(f"--{name.replace('_', '-')}", "has no effect without held-out pairs", "hold some out")
        if self.eval_data is None and self.eval_split is not None:
            raise UsageError(f"--eval-split {self.eval_split}", "has no effect without --eval-data", "name the data")
        if self.eval_data is None and self.leakage != "refuse":
            raise UsageError(
                f"--leakage {self.leakage}", "has no effect without --eval-data", "a held-out part shares no opening"
            )

    @property
    def lora(self) -> LoraOptions | None:
        """The adapters to train; None where all weights are trained."""
        if self.lora_r is None:
            return None
        return LoraOptions(self.lora_r, self.lora_alpha, self.lora_dropout, self.lora_target_modules)

    def _check_adapters(self) -> None:
        if self.lora_r is not None:
            _require(self.lora_r > 0, "lora_r", self.lora_r, "above 0")
            return
        for name in ("lora_alpha", "lora_dropout", "lora_target_modules"):
            if getattr(self, name) is not None:
                raise UsageError(f"--{name.replace('_', '-')}", "has no effect without --lora-r", "give a rank")


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise UsageError(f"--{name.replace('_', '-')} {value}", f"expected a value {expected}")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Flags that `train-sft`, `train-reward` and `train-dpo` share; each command sets its own `loss`."""

    data: Annotated[Path, POSITIONAL]
    """Preference file, directory, pattern, run, or name on the hub; responses may be cut already."""
    output: Path
    """Directory of the run: a loadable Hugging Face model with metrics and history beside it."""
    model: str = "scratch(hidden=256, layers=4)"
    """Hugging Face name or path, or scratch(hidden=…, layers=…, vocab=…): random weights."""
    loss: str
    """Loss with its settings, such as dpo(beta=0.1)."""
    chat_template: str | None = None
    """Render conversations by this template instead of the model's own: plain, chatml, or a Jinja file."""
    overwrite: bool = False
    """Replace an earlier run at --output."""
    read_options: ReadOptions = field(default_factory=ReadOptions)
    truncation: TruncationOptions = field(default_factory=TruncationOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)
