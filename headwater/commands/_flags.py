"""Flags that several commands share."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from headwater.data.reading import ReadOptions
from headwater.data.tokens import TOKENS_PER_PASS
from headwater.data.turns import EndToken
from headwater.errors import UsageError

TRAINING_HELP = {
    "Input": ("data", "split", "limit"),
    "Output": ("output", "overwrite"),
    "Model": ("model", "lora_r", "freeze_layers"),
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


@dataclass(frozen=True, kw_only=True)
class RewardFlags:
    """Flags of commands that compute rewards."""

    reference: str | None = None
    """Reference model of a policy. Default: the one that its training run names; policies trained with simpo, orpo, cpo
    or slic have none, and get the reward of their loss."""
    reward_head: int | None = None
    """Output, from 0, that is the reward in a reward model with several. Default: its only one."""
    beta: float | None = None
    """Scale of a policy's implicit reward, beta × (log π − log π_ref). Default: 0.1."""
    tokens_per_pass: int = TOKENS_PER_PASS
    """Maximum number of tokens in one forward pass. Changes memory use, not the result."""


@dataclass(frozen=True, kw_only=True)
class ResponseFlags(RewardFlags):
    """Flags of commands that compute rewards of single responses."""

    end: EndToken | None = None
    """Which responses get an end-of-turn token: complete ones, always, or never; template gives complete ones all that
    the chat template writes behind them, such as a line break. Default: as in training; template for reward models
    from elsewhere, complete for policies."""
    max_length: int | None = None
    """Maximum number of tokens of a prompt with a response; longer ones are left out and counted. Default: 2048, or the
    number of positions of the model if that is less."""


def refuse_given(config: Any, names: Sequence[str], problem: str, fix: str) -> None:
    """Refuse options of a config, or whole groups of them, that are set and have no effect. Errors: `UsageError`."""
    groups = [group for group in vars(config).values() if dataclasses.is_dataclass(group)]
    for name in names:
        group = next(each for each in (config, *groups) if name in vars(each))
        default = next(each for each in dataclasses.fields(group) if each.name == name)
        usual = default.default_factory() if callable(default.default_factory) else default.default
        if getattr(group, name) != usual:
            flag = "a flag of how the data is read" if name == "read_options" else f"--{name.replace('_', '-')}"
            raise UsageError(flag, problem, fix)
