"""Conversion of training options to `transformers.TrainingArguments`."""

from __future__ import annotations

import torch
import transformers

from headwater.console import draws_bars
from headwater.errors import UsageError, first_line
from headwater.models import precision
from headwater.training import processes, schedules
from headwater.training.options import TrainingOptions


def arguments_for(options: TrainingOptions, output: str) -> transformers.TrainingArguments:
    """Return the arguments of `transformers.Trainer` for options; models are saved by `models/saving.py` instead.

    Errors: `UsageError` for a value that transformers refuses, now or later.
    """
    schedules.check(options)
    processes.join(options.ddp_timeout)
    try:
        arguments = transformers.TrainingArguments(
            output_dir=output,
            num_train_epochs=options.num_train_epochs,
            learning_rate=options.learning_rate or 0.0,  # where it is searched for, the search sets it
            per_device_train_batch_size=options.per_device_train_batch_size,
            per_device_eval_batch_size=options.per_device_train_batch_size,
            gradient_accumulation_steps=options.gradient_accumulation_steps,
            lr_scheduler_type=options.lr_scheduler_type,
            lr_scheduler_kwargs=schedules.arguments_of(options),
            warmup_steps=options.warmup_ratio,
            weight_decay=options.weight_decay,
            max_grad_norm=options.max_grad_norm,
            bf16=precision.resolve(options.precision) == "bf16",
            use_cpu=not torch.cuda.is_available(),
            logging_steps=options.logging_steps,
            logging_first_step=True,
            eval_strategy="no" if options.eval_fraction == 0 else "epoch",
            save_strategy="steps" if options.save_steps else "no",
            save_steps=options.save_steps or 500,
            logging_nan_inf_filter=False,
            remove_unused_columns=False,
            dataloader_pin_memory=torch.cuda.is_available(),
            disable_tqdm=not draws_bars(),
            report_to=options.report_to,
            ddp_timeout=options.ddp_timeout,
            ddp_find_unused_parameters=False,
            seed=options.seed,
        )
    except (ValueError, ImportError) as error:
        raise UsageError("training options", first_line(error)) from error
    _ = arguments.device  # counts the GPUs, once; afterwards the count can be set
    arguments._n_gpu = 1  # DataParallel would scatter the rows of a batch away from their pairs
    return arguments
