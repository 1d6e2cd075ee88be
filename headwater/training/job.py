"""One training job: its settings with the defaults filled in, and how its processes run together."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from transformers import TrainingArguments

from headwater.console import say, silence
from headwater.data.preparation import PrepLog
from headwater.data.templates import given_template
from headwater.files import destinations
from headwater.losses import Loss, loss_of
from headwater.models import precision, publishing
from headwater.training import processes, resume
from headwater.training.arguments import arguments_for
from headwater.training.default_rate import DefaultRate, default_rate
from headwater.training.options import TrainingConfig, TrainingOptions
from headwater.training.task import TrainingTask

EVAL_FRACTION = 0.1


@dataclass(frozen=True)
class TrainingJob:
    """What the steps of a training run have in common."""

    config: TrainingConfig
    """Flags with the defaults filled in, as the run stores them."""
    task: TrainingTask
    loss: Loss
    arguments: TrainingArguments
    log: PrepLog = field(default_factory=PrepLog)
    """Row counts and notes of the steps that prepare the data."""

    @property
    def options(self) -> TrainingOptions:
        """The options that all training commands share."""
        return self.config.training

    @property
    def is_first(self) -> bool:
        """Whether this is the process that prints and writes."""
        return bool(self.arguments.process_index == 0)


def begin(config: TrainingConfig, task: TrainingTask) -> TrainingJob:
    """Return the job of a config, after joining its processes. Errors: `UsageError` for settings that cannot work."""
    destinations.check_directory(config.output)
    open_rate = config.training.learning_rate is None and not config.training.find_learning_rate
    rate = default_rate(config.model, task.learning_rate, task.command) if open_rate else None
    config = _with_defaults(resume.with_precision(config), rate)
    arguments = arguments_for(config.training, str(config.output))
    if config.training.push_to_hub is not None:
        publishing.check(config.training.push_to_hub)
    job = TrainingJob(config, task, loss_of(config.loss, task.losses), arguments)
    if rate is not None and job.is_first:
        say(f"learning rate: {rate.value:g}, the default for {config.model}: {rate.reason}")
    return job


def _with_defaults(config: TrainingConfig, rate: DefaultRate | None) -> TrainingConfig:
    """Fill in the precision, learning rate and held-out part that were left open; the run stores them."""
    training = dataclasses.replace(config.training, precision=precision.resolve(config.training.precision))
    if rate is not None:
        training = dataclasses.replace(training, learning_rate=rate.value)
    if training.eval_fraction is None and training.eval_data is None:
        training = dataclasses.replace(training, eval_fraction=EVAL_FRACTION)
    return dataclasses.replace(config, training=training)


@contextlib.contextmanager
def running(job: TrainingJob) -> Iterator[Path | None]:
    """Run the steps of a job inside, then upload the model where that is asked for.

    Yields the checkpoint from which the job goes on; None where it begins. Processes other than the first print
    nothing, and all end with a reason where one does not answer. Errors: `UsageError` for an output that is taken.
    """
    with given_template(job.config.chat_template), contextlib.nullcontext() if job.is_first else silence():
        # The first process decides: another one would find what that one has begun meanwhile.
        checkpoint = resume.from_first(lambda: resume.checkpoint_of(job.config, job.task.command))
        with processes.answering(job.arguments.world_size, job.options.ddp_timeout):
            yield checkpoint
        if job.is_first and job.options.push_to_hub is not None:
            publishing.push(job.config.output, job.options.push_to_hub)
