"""Fine-tune a policy on the chosen responses: the usual start before DPO, and the way to a usable scratch model."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from headwater.data.reading import ReadOptions
from headwater.data.templates import renders_conversations
from headwater.data.truncation_options import TruncationOptions
from headwater.training.options import TrainingOptions

EXAMPLE = 'headwater train-sft --data pairs.jsonl --output runs/sft --model "scratch(hidden=256, layers=4)"'


@dataclass(frozen=True)
class Config:
    """Flags of `headwater train-sft`."""

    data: Annotated[Path, tyro.conf.arg(aliases=["--dataset-name"])]
    """Preference file, directory, pattern, run, or name on the hub; only chosen responses are trained on."""
    output: Annotated[Path, tyro.conf.arg(aliases=["--output-dir"])]
    """Directory of the run: a loadable Hugging Face model with metrics and history beside it."""
    model: Annotated[str, tyro.conf.arg(aliases=["--model-name-or-path"])] = "scratch(hidden=256, layers=4)"
    """Hugging Face name or path, or scratch(hidden=…, layers=…, vocab=…): random weights."""
    loss: str = "sft()"
    """sft(): mean negative log-likelihood a token."""
    chat_template: str | None = None
    """Render conversations by this template instead of the model's own: plain, chatml, or a Jinja file."""
    overwrite: bool = False
    """Replace an earlier run at --output."""
    read_options: Annotated[ReadOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=ReadOptions)
    truncation: Annotated[TruncationOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=TruncationOptions)
    training: Annotated[TrainingOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=TrainingOptions)


@renders_conversations
def run(config: Config) -> Path:
    """Fine-tune a policy and return its run directory."""
    from headwater.forward.scores import policy_scores
    from headwater.losses import SFT
    from headwater.training.run import train
    from headwater.training.task import TrainingTask

    return train(
        config, TrainingTask("train-sft", "sft", "policy", {"sft": SFT}, policy_scores, 2e-5, watched="eval_loss")
    )
