"""Options of a training run, with the names of Hugging Face; importable without torch."""

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
"""Default number of optimizer steps that are skipped before a training stops."""


@dataclass(frozen=True)
class TrainingOptions:
    """Training options; those with names of `transformers.TrainingArguments` mean the same there."""

    num_train_epochs: float = 1.0
    """Number of passes over the training pairs."""
    learning_rate: float | None = None
    """Peak learning rate. Default: 1e-3 for a small model and for what descends from a scratch one, less for a large
    scratch one, and by command for pretrained ones; it is printed with its reason."""
    find_learning_rate: bool = False
    """Find the learning rate before training: raise it step by step until the loss rises, record the curve, and
    train with a tenth of the rate at which the loss was lowest."""
    per_device_train_batch_size: int = 8
    """Pairs in a batch, on every device. Memory use depends on --tokens-per-pass instead."""
    gradient_accumulation_steps: int = 1
    """Batches in an optimizer step; the loss is averaged over all their pairs."""
    tokens_per_pass: int = TOKENS_PER_PASS
    """Maximum number of tokens in one forward pass; a prompt counts once for both of its responses. Changes memory
    use, not the result."""
    lr_scheduler_type: str = "cosine"
    """Learning-rate schedule, by its transformers name."""
    lr_scheduler_kwargs: str | None = None
    """Settings of the schedule, such as min_lr_rate=0.1 for cosine_with_min_lr or num_decay_steps=50 for
    warmup_stable_decay."""
    warmup_ratio: float = 0.03
    """Share of the optimizer steps in which the learning rate rises from 0."""
    weight_decay: float = 0.0
    """Weight decay of AdamW."""
    max_grad_norm: float = 1.0
    """Gradient norm above which the gradient is scaled down."""
    neftune_noise_alpha: float | None = None
    """Scale of the noise added to input embeddings while training (NEFTune), such as 5. Default: no noise."""
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    """Number format of the computation. auto is bf16 where the device computes it natively and, on a CPU, where a
    timing at the start finds it no slower than fp32."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    torch_compile: bool = False
    """Compile the layers of the model: about a minute at the start, then faster steps."""
    freeze_layers: int | None = None
    """Train the last so many layers only, with the final norm and the head, and freeze the others and the
    embeddings; 0 trains the score head of a reward model alone. Default: train all layers.

    The hidden states that enter the first trained layer are computed once and kept on disk, where later epochs, seeds,
    losses and learning rates find them; how much they take is printed before. An output layer that shares the weights
    of the embeddings is frozen with them."""
    lora_r: int | None = None
    """Rank of LoRA adapters to train instead of all weights; they are merged into the saved model."""
    lora_alpha: int | None = None
    """Scale of the adapters; their output is multiplied by alpha / rank. Default: 2 × rank."""
    lora_dropout: float | None = None
    """Dropout of the adapters' input. Default: 0."""
    lora_target_modules: str | None = None
    """Modules that get adapters, by the ends of their names, separated by commas. Default: all linear modules except
    the head."""
    logging_steps: int = 10
    """Optimizer steps between two lines of the training history."""
    eval_fraction: float | None = None
    """Share of the prompts held out for evaluation, chosen by a hash of the prompt; 0 holds out nothing. Default:
    0.1."""
    eval_steps: int | None = None
    """Optimizer steps between two evaluations. Default: evaluate at the end of every epoch."""
    early_stopping_patience: int | None = None
    """Stop after this many evaluations in a row without a better held-out accuracy (train-sft: loss), and keep the
    weights of the best one. Default: train to the end and keep the last weights."""
    eval_data: Path | None = None
    """Pairs to evaluate on instead of a held-out share: file, directory, pattern, run, or name on the hub."""
    eval_split: str | None = None
    """Split of --eval-data to evaluate on, such as test."""
    leakage: Leakage = "refuse"
    """What to do with training rows whose prompts are in --eval-data: refuse to train, drop the rows (they are
    counted), or allow them."""
    save_steps: int | None = None
    """Optimizer steps between two checkpoints. The same command, repeated, continues from the last checkpoint."""
    nan_policy: Literal["stop", "skip"] = "stop"
    """What to do at an optimizer step whose loss or gradient is not finite: stop and keep the last good checkpoint,
    or skip the step and count it."""
    max_skips: int | None = None
    """Number of steps that --nan-policy skip may skip before training stops. Default: 10."""
    allow_changes: bool = False
    """Continue from a checkpoint although the data, model, settings, versions or number of processes have changed;
    the run records what changed."""
    ddp_timeout: int = 600
    """Seconds after which a job of several processes ends because one of them does not answer."""
    seed: int = 42
    """Random seed of the weights, the order of pairs, the held-out share and the bootstrap intervals."""
    split_seed: int | None = None
    """Random seed of the held-out share alone, so that models of different seeds share it. Default: --seed."""
    live: bool = False
    """Show loss, rewards, held-out accuracy and the time left while training runs, on a page of this machine whose
    address is printed. A notebook shows the same view in its output without this option."""
    report_to: str = "none"
    """Experiment tracker, by its transformers name: tensorboard, trackio or wandb, for example."""
    push_to_hub: str | None = None
    """Repository on the hub (owner/name) to upload the finished model to; a new repository is private."""

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
        if self.find_learning_rate and self.learning_rate is not None:
            raise UsageError("--find-learning-rate", "has no effect with --learning-rate", "leave one of them out")
        if self.max_skips is not None and self.nan_policy == "stop":
            raise UsageError("--max-skips", "has no effect with --nan-policy stop", "add --nan-policy skip")
        self._check_evaluation()
        self._check_adapters()
        self._check_frozen()
        alpha = self.neftune_noise_alpha
        _require(alpha is None or alpha > 0, "neftune_noise_alpha", alpha, "above 0")
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
                f"--leakage {self.leakage}", "has no effect without --eval-data", "a held-out part shares no prompt"
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

    def _check_frozen(self) -> None:
        if self.freeze_layers is None:
            return
        _require(self.freeze_layers >= 0, "freeze_layers", self.freeze_layers, "of 0 or more")
        if self.lora_r is not None:
            problem = "adapters would change what the frozen layers compute"
            raise UsageError("--freeze-layers with --lora-r", problem, "leave one of them out")
        if self.neftune_noise_alpha is not None:
            problem = "noise on the embeddings changes the hidden states at every step"
            raise UsageError("--freeze-layers with --neftune-noise-alpha", problem, "leave one of them out")


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise UsageError(f"--{name.replace('_', '-')} {value}", f"expected a value {expected}")


@dataclass(frozen=True, kw_only=True)
class TrainingConfig:
    """Flags that `train-sft`, `train-reward` and `train-dpo` share; each command sets its own `loss`."""

    data: Annotated[Path, POSITIONAL]
    """Preference pairs: a file, directory, pattern, run, or name on the hub. Responses may be truncated already."""
    output: Path
    """Directory of the run: a Hugging Face model, with metrics and history beside it."""
    model: str = "scratch(hidden=256, layers=4)"
    """Model to train: Hugging Face name or path, or scratch(hidden=…, layers=…, vocab=…) for random weights."""
    loss: str
    """Loss function with its settings, such as dpo(beta=0.1)."""
    chat_template: str | None = None
    """Chat template to use instead of the model's own: plain, chatml, or a Jinja file."""
    overwrite: bool = False
    """Replace an existing run at --output."""
    read_options: ReadOptions = field(default_factory=ReadOptions)
    truncation: TruncationOptions = field(default_factory=TruncationOptions)
    training: TrainingOptions = field(default_factory=TrainingOptions)
