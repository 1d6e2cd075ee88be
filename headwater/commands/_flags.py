"""Flags that several commands share."""

from __future__ import annotations

from dataclasses import dataclass, field

from headwater.data.reading import ReadOptions

TRAINING_HELP = {
    "Input": ("data", "split", "limit"),
    "Output": ("output", "overwrite"),
    "Model": ("model", "lora_r"),
    "Truncation": ("keep", "max_length"),
    "Training": (
        "loss",
        "num_train_epochs",
        "learning_rate",
        "per_device_train_batch_size",
        "gradient_accumulation_steps",
        "save_steps",
        "seed",
    ),
    "Evaluation": ("eval_data", "eval_fraction"),
}
"""Options that `--help` of the training commands shows, by group; `--help-all` shows the others too."""


@dataclass(frozen=True, kw_only=True)
class RunFlags:
    """Flags of commands that write a run."""

    overwrite: bool = False
    """Replace an existing run at --output."""


@dataclass(frozen=True, kw_only=True)
class TemplateFlags:
    """Flags of commands that render conversations."""

    chat_template: str | None = None
    """Chat template to use instead of the model's own: plain, chatml, or a Jinja file."""


@dataclass(frozen=True, kw_only=True)
class DataFlags(TemplateFlags):
    """Flags of commands that read data and render conversations."""

    read_options: ReadOptions = field(default_factory=ReadOptions)
