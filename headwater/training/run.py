"""A training run, from a data file to a finished run directory: `train-sft`, `train-reward` and `train-dpo` alike.

A command gives a `TrainingTask` (losses, score function, head); the steps are the same for all of them.
"""

from __future__ import annotations

import copy
import functools
from pathlib import Path
from typing import Any

from headwater import interrupts
from headwater.console import say
from headwater.data.preference import PAIR_COLUMNS
from headwater.data.tokenizers import Tokenizer, is_call
from headwater.data.tokens import EncodeOptions
from headwater.errors import DataError, UsageError
from headwater.forward.compilation import compile_layers
from headwater.forward.format_check import common_row_format
from headwater.forward.frozen_layers import join
from headwater.forward.packing import RowFormat
from headwater.forward.scores import REWARD_MODEL, ScoreFunction, divergence_scores, kind_of
from headwater.losses import COMPUTED, MEANINGS, Loss
from headwater.models import adapters, loading, positions, saving
from headwater.models.turn_ends import give_padding, say_place
from headwater.results.runs import RunWriter
from headwater.training import checkpoints, examples, frozen, labels, learning_rate, memory, readback, records
from headwater.training.callbacks import EvaluateEvery, KeepBest, StopWhenAsked
from headwater.training.examples import Examples, Pairs
from headwater.training.job import TrainingJob, begin, running
from headwater.training.kl_estimate import KLEstimate, longest_partner
from headwater.training.live import ShowLive, in_notebook
from headwater.training.options import TrainingConfig
from headwater.training.reference import Reference
from headwater.training.task import TrainingTask
from headwater.training.trainer import PairTrainer


def train(config: TrainingConfig, task: TrainingTask) -> Path:
    """Train as `config` says and return the run directory: a loadable model beside the files of the run.

    Every process that torchrun or accelerate starts runs this; the first one prints and writes.
    """
    job = begin(config, task)
    with running(job) as checkpoint:
        data = examples.read(job)
        model, tokenizer = loaded = _load_model(job, data)
        other = _other_reference(job, loaded)
        readers = [model] if other is None else [model, other]
        encode_options = positions.fitted(config.truncation.encode_options(job.options.seed), *readers)
        if job.task.head == "reward":
            say_place(tokenizer, encode_options.end)
        pairs = examples.encode(job, data, encode_options, tokenizer)
        _check_needs(job, pairs, model)
        row_format = _prepare_forward(job, model, pairs, encode_options)
        frozen_part = frozen.freeze(job, model, pairs, row_format)
        prints = records.fingerprints(job, checkpoint, data, pairs, loaded, other)
        run = records.start(job, checkpoint, data, pairs, prints)
        if frozen_part is not None:
            run.facts["frozen"] = frozen_part.size._asdict()
            frozen_part.fill(data, pairs, encode_options, tokenizer)
        pairs = _add_reference(job, run, loaded, other, data, pairs, encode_options)
        live = _live_reference(job, model, other)
        run.facts["layout"] = row_format = _row_format(job, model, pairs, encode_options, live)
        score, kl_estimate = _compared_with(job, live, encode_options)
        del other, readers, live
        model = _trainable(job, model)
        memory_use = memory.MemoryUse(job.options, model, pairs.train, row_format, bf16=job.arguments.bf16)
        new_trainer = functools.partial(
            PairTrainer,
            model,
            score,
            job.loss,
            train_pairs=pairs.train,
            held_out=pairs.held_out,
            row_format=row_format,
            weights=task.weights,
            max_tokens=job.options.tokens_per_pass,
            kl_estimate=kl_estimate,
            options=job.options,
        )
        if job.options.find_learning_rate:
            run.facts["learning_rate_search"] = learning_rate.search(new_trainer, job.arguments).facts()
        trainer = new_trainer(arguments=job.arguments, log=run.log, fingerprints=prints)
        _watch(job, trainer, pairs)
        with interrupts.postponed():
            if checkpoint is None or trainer.take_up(checkpoint):
                trainer.train(resume_from_checkpoint=None if checkpoint is None else str(checkpoint))
            records.end(run, trainer, pairs, row_format, memory_use)
            _finish(job, run, trainer, pairs, tokenizer)
    return job.config.output


def _load_model(job: TrainingJob, data: Examples) -> loading.Loaded:
    """Return the model to train with its tokenizer, and print what it is."""
    task, name = job.task, job.config.model
    model, tokenizer = loading.load(
        name, task.head, data.train, job.options.seed, new_head=True, reward_head=task.reward_head
    )
    kind = kind_of(model)
    if kind.causal:
        give_padding(model, tokenizer, reward=kind is REWARD_MODEL)
    else:
        loading.give_template(tokenizer)
    size = f"{model.num_parameters() / 1e6:.2f} M parameters · {len(tokenizer)} tokens"
    say(f"model: {name} · {size} · trained in {job.options.precision}")
    return loading.Loaded(model, tokenizer)


def _other_reference(job: TrainingJob, loaded: loading.Loaded) -> Any:
    """Load the reference that `--reference` names; None where it is the policy itself. Errors: `ModelError`."""
    if job.task.reference is None:
        return None
    other = loading.reference_of(job.config.model, job.task.reference, loaded.tokenizer, job.options.seed)
    say(f"reference: {job.task.reference} · {other.num_parameters() / 1e6:.2f} M parameters")
    return other.to(next(loaded.model.parameters()).device).eval().requires_grad_(False)


def _check_needs(job: TrainingJob, pairs: Pairs, model: Any) -> None:
    """Refuse a loss or adapters that cannot be trained, before the run starts. Errors: `DataError`, `UsageError`."""
    loss, needs = job.loss, needs_of(job.loss)
    for name in sorted(needs - COMPUTED):
        lacking = [pair.id for pair in (*pairs.train, *pairs.held_out) if name not in pair.columns]
        if lacking:
            problem = f"{len(lacking)} pairs have no {MEANINGS.get(name, name)}, the first is {lacking[0]}"
            raise DataError(f"--loss {loss!r}", problem, "use data that has it, or another loss")
    if "score_gap" not in needs:
        _note_unused(job, [name for name in PAIR_COLUMNS if name not in needs], pairs)
    if "kl_estimate" in needs:
        problem = f"{loss!r} needs responses to other prompts"
        if job.options.per_device_train_batch_size < 2:
            raise UsageError("--per-device-train-batch-size 1", problem, "give 2 or more")
        for part, rows in (("training", pairs.train), ("held-out", pairs.held_out)):
            if 0 < len(rows) < 2 * job.arguments.world_size:
                raise DataError(f"{part} part", f"{len(rows)} rows", problem, "2 rows")
    adapters.check_targets(model, job.options.lora)


def _note_unused(job: TrainingJob, columns: list[str], pairs: Pairs) -> None:
    """Print and record columns of the data that the loss does not use, with the number of their rows."""
    for name in columns:
        rows = sum(name in pair.columns for pair in (*pairs.train, *pairs.held_out))
        if rows:
            note = f"{name} not used by {job.loss!r}"
            job.log.notes[note] = rows
            say(f"{note}: {rows} rows")


def needs_of(loss: Loss) -> frozenset[str]:
    """Return what a loss needs beyond two scores; a plain callable of a notebook needs nothing."""
    return frozenset(getattr(loss, "needs", ()))


def _prepare_forward(job: TrainingJob, model: Any, pairs: Pairs, encode_options: EncodeOptions) -> RowFormat:
    """Set how `model` reads the rows, and compile its layers where that is asked for: the reference is computed so."""
    row_format = _row_format(job, model, pairs, encode_options)
    if job.options.torch_compile:
        compile_layers(model)
    return row_format


def _row_format(
    job: TrainingJob, model: Any, pairs: Pairs, encode_options: EncodeOptions, live: Any = None
) -> RowFormat:
    """Return the tightest row format that `model` reads correctly for `pairs`, and set the model to it.

    A reference that is `live` during training reads the same rows, and is set too.
    A loss with a KL estimate also has rows of prompts with the responses to other prompts, which may be longer.
    """
    rows = [*pairs.train, *pairs.held_out]
    longest = longest_partner(rows, encode_options.longest) if "kl_estimate" in needs_of(job.loss) else 0
    models = [model] if live is None else [model, live]
    return common_row_format(models, rows, job.options.tokens_per_pass, longest=longest, bf16=job.arguments.bf16)


def _add_reference(
    job: TrainingJob,
    run: RunWriter,
    loaded: loading.Loaded,
    other: Any,
    data: Examples,
    pairs: Pairs,
    encode_options: EncodeOptions,
) -> Pairs:
    """Return pairs with the log-probabilities of the untrained model, or of another, for a loss with a reference."""
    if not job.loss.needs_reference:
        return pairs
    if job.is_first:
        _keep_reference(job, run, loaded)
    reference = Reference(loaded.model if other is None else other, job.options.tokens_per_pass, job.arguments.bf16)
    return examples.with_reference(pairs, reference, data, encode_options, loaded.tokenizer)


def _keep_reference(job: TrainingJob, run: RunWriter, loaded: loading.Loaded) -> None:
    """Record the reference model in the facts: by name, or saved in the run where a scratch model has none."""
    name = job.task.reference or job.config.model
    if is_call(name):
        saving.save(loaded.model, loaded.tokenizer, run.path / "reference")
        run.facts["reference"] = "reference"
    else:
        run.facts["reference"] = str(Path(name).resolve()) if Path(name).exists() else name


def _live_reference(job: TrainingJob, model: Any, other: Any) -> Any:
    """Return the frozen reference that takes part in training; None for a loss that does without."""
    if not needs_of(job.loss) & {"divergence", "kl_estimate"}:
        return None
    return copy.deepcopy(model).eval().requires_grad_(False) if other is None else other


def _compared_with(
    job: TrainingJob, live: Any, encode_options: EncodeOptions
) -> tuple[ScoreFunction, KLEstimate | None]:
    """Return the score function, and the KL estimate if any, with the `live` reference where the loss needs one."""
    if live is None:
        return job.task.score, None
    if "divergence" in needs_of(job.loss):
        return divergence_scores(live), None
    return job.task.score, KLEstimate(live, encode_options.longest)


def _trainable(job: TrainingJob, model: Any) -> Any:
    """Return the model with its adapters and with activation checkpointing, where they are asked for."""
    if job.options.lora:
        model = adapters.adapted(model, job.task.head, job.options.lora)
    if job.options.gradient_checkpointing:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    return model


def _watch(job: TrainingJob, trainer: PairTrainer, pairs: Pairs) -> None:
    """Add the callbacks that decide when a training is evaluated and when it ends, and those that show it."""
    options = job.options
    if options.eval_steps:
        trainer.add_callback(EvaluateEvery(options.eval_steps))
    if options.early_stopping_patience is not None:
        figure = labels.watched(job.task.watched, pairs.held_out)
        trainer.best = KeepBest(options.early_stopping_patience, figure)
        trainer.add_callback(trainer.best)
    trainer.add_callback(StopWhenAsked(trainer.accelerator, trainer.steps_per_epoch))
    if job.is_first and (options.live or in_notebook()):
        trainer.add_callback(ShowLive(f"{job.task.command} {job.config.output}", options.live, in_notebook()))


def _finish(job: TrainingJob, run: RunWriter, trainer: PairTrainer, pairs: Pairs, tokenizer: Tokenizer) -> None:
    """Save the model, check that it scores as before when it is read back, and end the run.

    Processes but the first only contribute their weights.
    """
    output, task = job.config.output, job.task
    join(trainer.accelerator.unwrap_model(trainer.model).model)  # what is saved reads rows from their first layer on
    trained = readback.asked(trainer, task.score, pairs.train)
    weights = trainer.whole_weights()
    if trainer.is_world_process_zero():
        model = trainer.accelerator.unwrap_model(trainer.model).model
        saving.save(model, tokenizer, output, records.model_card(job, run), weights)
        del model, weights
        readback.let_go(trainer)
        off = readback.check(output, task.head, task.score, trained, tokenizer)
        run.facts["read_back"] = {"pairs": len(trained.pairs), "largest_difference": off}
        run.finish()
        checkpoints.remove(output)  # only now: until the run is done, they are what it goes on from
