"""Flags that several commands share."""

from __future__ import annotations

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
