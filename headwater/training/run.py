"""One training session, from a data file to a finished run: what `train-sft`, `train-reward` and `train-dpo` share.

A verb gives a `TrainingTask` (which losses, how to score, which head); everything else is the same for all of them.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import TrainingArguments

from headwater import interrupts
from headwater.config import build
from headwater.console import say, show, silence, trends
from headwater.data.preparation import PrepLog
from headwater.data.templates import given_template
from headwater.data.tokenizers import Tokenizer, is_call
from headwater.data.tokens import EncodeOptions
from headwater.data.truncation_options import facts_of
from headwater.errors import DataError, UsageError
from headwater.files import destinations
from headwater.forward.attention import is_encoder
from headwater.forward.compilation import compile_layers
from headwater.forward.format_check import row_format_for
from headwater.forward.packing import RowFormat
from headwater.forward.scores import ScoreFunction, divergence_scores
from headwater.losses import Loss
from headwater.models import adapters, fingerprint, loading, positions, precision, publishing, saving
from headwater.models.turn_ends import give_padding
from headwater.results import runs
from headwater.results.runs import RunWriter
from headwater.training import checkpoints, examples, labels, learning_rate, memory, processes, readback, resume
from headwater.training.arguments import arguments_for
from headwater.training.callbacks import EvaluateEvery, KeepBest, StopWhenAsked
from headwater.training.flops import training_cost
from headwater.training.kl_estimate import KLEstimate, longest_partner
from headwater.training.options import TrainingConfig, TrainingOptions
from headwater.training.reference import Reference
from headwater.training.task import TrainingTask
from headwater.training.trainer import PairTrainer

SCRATCH_LEARNING_RATE = 1e-3
EVAL_FRACTION = 0.1


def train(config: TrainingConfig, task: TrainingTask) -> Path:
    """Train as `config` says and return the finished run directory: a loadable model beside the run's files.

    Started by torchrun or accelerate, every process runs this; the first one speaks and writes.
    """
    destinations.check_directory(config.output)
    config = _with_defaults(resume.with_precision(config), task)
    arguments = arguments_for(config.training, str(config.output))
    first = arguments.process_index == 0
    repository = config.training.push_to_hub
    if repository is not None:
        publishing.check(repository)
    with given_template(config.chat_template), contextlib.nullcontext() if first else silence():
        # The first process decides: another one would find what that one has begun meanwhile.
        checkpoint = resume.from_first(lambda: resume.checkpoint_of(config, task.command))
        with processes.answering(arguments.world_size, config.training.ddp_timeout):
            trained = _train(config, task, arguments, checkpoint)
        if first and repository is not None:
            publishing.push(trained, repository)
    return trained


def _train(config: TrainingConfig, task: TrainingTask, arguments: TrainingArguments, checkpoint: Path | None) -> Path:
    first = arguments.process_index == 0
    options, loss, prep_log = config.training, build(config.loss, task.losses, "loss"), PrepLog()
    data = examples.read(config, task, loss, prep_log)
    model, tokenizer = _load(config, task, data)
    encode_options = positions.fitted(config.truncation.encode_options(options.seed), model)
    pairs = examples.chosen(examples.pairs_of(data, encode_options, tokenizer, prep_log), task, options.seed, prep_log)
    _check_needs(loss, pairs, options, arguments.world_size)
    adapters.check_targets(model, options.lora)
    attention = model.config._attn_implementation
    row_format = _row_format(model, pairs, options, encode_options, loss, bf16=arguments.bf16)
    if options.torch_compile:
        compile_layers(model)

    prints = _fingerprints(config, checkpoint, data, pairs, loading.Loaded(model, tokenizer))
    run = (
        _start(config, task, loss, data, pairs, prep_log, checkpoint)
        if first
        else runs.NullRunWriter(config.output, {})
    )
    if loss.needs_reference:
        if first:
            _keep_reference(run, config, model, tokenizer)
        pairs = examples.with_reference(
            pairs, Reference(model, options.tokens_per_pass, arguments.bf16), data, encode_options, tokenizer
        )
        # Whole responses may have taken another one.
        row_format = _row_format(model, pairs, options, encode_options, loss, bf16=arguments.bf16)
    run.facts |= {"layout": row_format} | ({"changes": prints["changes"]} if "changes" in prints else {})
    score, kl_estimate = _with_live_reference(loss, task.score, model, encode_options)
    model = _trainable(model, task, options)
    estimate = memory.estimate(model, pairs.train, row_format, options, bf16=arguments.bf16)
    say(f"memory: {estimate} to train")
    before = memory.peak()
    make = functools.partial(
        PairTrainer,
        model,
        score,
        loss,
        train_pairs=pairs.train,
        held_out=pairs.held_out,
        row_format=row_format,
        weights=task.weights,
        max_tokens=options.tokens_per_pass,
        kl_estimate=kl_estimate,
        options=options,
    )
    if options.find_learning_rate:
        _set_rate(arguments, learning_rate.search(make, arguments), run)
    trainer = make(arguments=arguments, log=run.log, fingerprints=prints)
    best = _watch(trainer, options, labels.watched(task.watched, pairs.held_out))
    stop = StopWhenAsked(trainer.accelerator, trainer.steps_per_epoch)
    trainer.add_callback(stop)
    with interrupts.postponed():
        trainer.train(None if checkpoint is None else str(checkpoint))
        stop.check()
        run.facts["memory_bytes"] = {**estimate._asdict(), **_peak(before)}
        run.facts |= training_cost(model, pairs.train, row_format, float(trainer.state.epoch))._asdict()
        show(trends(trainer.state.log_history, TRENDS))
        run.write_metrics({**_kept(best, trainer, run), **_counts(pairs), **_skipped(trainer, run)})
        trained = readback.asked(trainer, model, task.score, pairs.train, attention)
        return _finish(config, task, run, trainer, trained, tokenizer)


def _peak(before: int) -> dict[str, int]:
    """Say how much memory was used, and return it in bytes."""
    peak = memory.peak()
    say(f"memory: at most {peak / memory.GIB:.2f} GiB were used, {before / memory.GIB:.2f} before training")
    return {"peak": peak, "before_training": before}


def _counts(pairs: examples.Pairs) -> dict[str, int]:
    return labels.counts("train", pairs.train) | labels.counts("held_out", pairs.held_out)


def _finish(
    config: TrainingConfig,
    task: TrainingTask,
    run: RunWriter,
    trainer: PairTrainer,
    trained: readback.Trained,
    tokenizer: Tokenizer,
) -> Path:
    """Save the model, read it back, remove the checkpoints and end the run.

    Processes but the first only give their weights.
    """
    weights = trainer.whole_weights()
    if trainer.is_world_process_zero():
        model = trainer.accelerator.unwrap_model(trainer.model).model
        saving.save(model, tokenizer, config.output, _card(config, task, run), weights)
        del model, weights
        readback.let_go(trainer)
        off = readback.check(config.output, task.head, task.score, trained, tokenizer)
        run.facts["read_back"] = {"pairs": len(trained.pairs), "largest_difference": off}
        run.finish()
        checkpoints.remove(config.output)  # only now: until the run is done, they are what it goes on from
    return config.output


def _fingerprints(
    config: TrainingConfig,
    checkpoint: Path | None,
    data: examples.Examples,
    pairs: examples.Pairs,
    loaded: loading.Loaded,
) -> dict[str, Any]:
    """Return what the training depends on, as a checkpoint records it. Errors: where it is not what it was."""
    now = {
        "settings": resume.settings_of(config),
        "data": fingerprint.of_data([file for each in data.read for file in each.files]),
        "model": fingerprint.of_weights(loaded.model),
        "tokenizer": fingerprint.of_tokenizer(loaded.tokenizer),
        "rows": fingerprint.of_pairs([*pairs.train, *pairs.held_out]),
        "versions": fingerprint.versions(),
        "processes": PartialState().num_processes,
    }
    return now if checkpoint is None else resume.check(checkpoint, now, config.training.allow_changes)


def _set_rate(arguments: TrainingArguments, found: learning_rate.Search, run: RunWriter) -> None:
    """Train with the rate that a search suggests, and record its curve."""
    arguments.learning_rate = found.suggestion
    run.facts["learning_rate_search"] = {**dataclasses.asdict(found), "suggestion": found.suggestion}


def _load(config: TrainingConfig, task: TrainingTask, data: examples.Examples) -> loading.Loaded:
    """Load the model that is trained, and say what it is."""
    seed, new_head = config.training.seed, task.head == "reward"
    model, tokenizer = loading.load(
        config.model, task.head, data.train, seed, new_head=new_head, reward_head=task.reward_head
    )
    if is_encoder(model):
        loading.give_template(tokenizer)
    else:
        give_padding(model, tokenizer, reward=task.head == "reward")
    size = f"{model.num_parameters() / 1e6:.2f} M parameters · {len(tokenizer)} tokens"
    say(f"model: {config.model} · {size} · trained in {config.training.precision}")
    return loading.Loaded(model, tokenizer)


def _row_format(
    model: Any,
    pairs: examples.Pairs,
    options: TrainingOptions,
    encode_options: EncodeOptions,
    loss: Loss,
    *,
    bf16: bool,
) -> RowFormat:
    """Return how the rows of `pairs` are laid out, and of prompts with other responses, where a loss has those."""
    rows = [*pairs.train, *pairs.held_out]
    longest = longest_partner(rows, encode_options.longest) if "kl_estimate" in _needs(loss) else 0
    return row_format_for(model, rows, options.tokens_per_pass, longest=longest, bf16=bf16)


def _trainable(model: Any, task: TrainingTask, options: TrainingOptions) -> Any:
    """Give a model its adapters, and checkpointing of its activations, where they are asked for."""
    if options.lora:
        model = adapters.adapted(model, task.head, options.lora)
    if options.gradient_checkpointing:
        model.activation_checkpointing_enable(activation_checkpointing_kwargs={"use_reentrant": False})
    return model


TRENDS = {
    "loss": "loss",
    "eval_loss": "held-out loss",
    "rewards/chosen": "better-sample reward",
    "rewards/rejected": "worse-sample reward",
    "rewards/margins": "margin",
    "rewards/accuracies": "accuracy",
}
"""Columns of the history that are shown when training ends, and what they are called."""


def _watch(trainer: PairTrainer, options: TrainingOptions, figure: str) -> KeepBest | None:
    """Tell the trainer when to evaluate and when to stop, where that is asked for."""
    if options.eval_steps:
        trainer.add_callback(EvaluateEvery(options.eval_steps))
    if options.early_stopping_patience is None:
        return None
    best = KeepBest(options.early_stopping_patience, figure)
    trainer.add_callback(best)
    trainer.best = best
    return best


def _kept(best: KeepBest | None, trainer: PairTrainer, run: RunWriter) -> dict[str, float]:
    """Return the held-out figures of the weights that are kept, and say which those are."""
    if best is None:
        return trainer.last_evaluation
    say(best.summary(trainer.state.global_step))
    run.facts["early_stopping"] = {"kept_step": best.step, "evaluations": best.evaluations}
    return best.evaluation


def _skipped(trainer: PairTrainer, run: RunWriter) -> dict[str, float]:
    """Count the optimizer steps that were skipped in the account and, by their rows, in the facts."""
    skipped = trainer.guard.skipped
    if not skipped:
        return {}
    steps = trainer.state.global_step
    run.facts["skipped_steps"] = [step._asdict() for step in skipped]
    run.count("optimizer steps", steps, steps - len(skipped), {"not_finite": len(skipped)})
    return {"skipped_steps": len(skipped)}


def _needs(loss: Loss) -> frozenset[str]:
    """Return what a loss needs beyond two scores; a plain callable of a notebook names nothing."""
    return frozenset(getattr(loss, "needs", ()))


def _check_needs(loss: Loss, pairs: examples.Pairs, options: TrainingOptions, processes: int) -> None:
    """Refuse what a loss cannot be trained on, before the run is started. Errors: `DataError`, `UsageError`."""
    lacking = [pair.id for pair in (*pairs.train, *pairs.held_out) if pair.score_gap is None]
    if "score_gap" in _needs(loss) and lacking:
        problem = f"{len(lacking)} pairs have no score of both responses, the first is {lacking[0]}"
        raise DataError(f"--loss {loss!r}", problem, "use data with scores, or another loss")
    if "kl_estimate" in _needs(loss) and options.per_device_train_batch_size < 2:
        raise UsageError(
            "--per-device-train-batch-size 1", f"{loss!r} needs responses to other prompts", "give 2 or more"
        )
    for part, rows in (("training", pairs.train), ("held-out", pairs.held_out)):
        if "kl_estimate" in _needs(loss) and 0 < len(rows) < 2 * processes:
            raise DataError(f"{part} part", f"{len(rows)} rows", f"{loss!r} needs responses to other prompts", "2 rows")


def _with_live_reference(
    loss: Loss, score: ScoreFunction, model: Any, encode_options: EncodeOptions
) -> tuple[ScoreFunction, KLEstimate | None]:
    """Give a loss the reference model itself where stored log-probabilities do not do: a frozen copy."""
    if not _needs(loss) & {"divergence", "kl_estimate"}:
        return score, None
    frozen = copy.deepcopy(model).eval().requires_grad_(False)
    if "divergence" in _needs(loss):
        return divergence_scores(frozen), None
    return score, KLEstimate(frozen, encode_options.longest)


def _start(
    config: TrainingConfig,
    task: TrainingTask,
    loss: Loss,
    data: examples.Examples,
    pairs: examples.Pairs,
    prep_log: PrepLog,
    checkpoint: Path | None,
) -> RunWriter:
    """Open the run directory with what is known before training, or again, to go on from a checkpoint."""
    before = runs.facts_of(config.data)
    facts = before | facts_of(config.truncation.encode_options(config.training.seed), before)
    facts |= {} if task.reward_head is None else {"reward_head": task.reward_head}
    facts |= {"conditional": True} if any(preference.condition for preference in data.train) else {}
    facts |= {"kind": task.kind, "base": config.model, "notes": dict(prep_log.notes)}
    facts["flops_saved"] = examples.saved_so_far(before, pairs.train, prep_log)
    facts |= labels.facts_of(loss, pairs.train)
    inputs = [file for loaded in data.read for file in loaded.files]
    if checkpoint is None:
        run = runs.start(config.output, task.command, config, inputs=inputs, facts=facts)
    else:
        facts["resumed_at"] = checkpoints.step_of(checkpoint)
        run = runs.take_up(config.output, facts=facts, config=config)
        checkpoints.rewind(config.output, checkpoint)
        say(f"{config.output}: goes on after step {checkpoints.step_of(checkpoint)}")
    run.count_stages(prep_log.stages)
    examples.keep(run, data)
    return run


def _with_defaults(config: TrainingConfig, task: TrainingTask) -> TrainingConfig:
    """Fill in the precision, learning rate and held-out part that were left open; the stored config says them."""
    training = dataclasses.replace(config.training, precision=precision.resolve(config.training.precision))
    if training.learning_rate is None and not training.find_learning_rate:
        rate = SCRATCH_LEARNING_RATE if is_call(config.model) else task.learning_rate
        training = dataclasses.replace(training, learning_rate=rate)
    if training.eval_fraction is None and training.eval_data is None:
        training = dataclasses.replace(training, eval_fraction=EVAL_FRACTION)
    return dataclasses.replace(config, training=training)


def _keep_reference(run: RunWriter, config: TrainingConfig, model: Any, tokenizer: Tokenizer) -> None:
    """Record the reference model: by name, or saved in the run where a scratch model has none."""
    if is_call(config.model):
        saving.save(model, tokenizer, run.path / "reference")
        run.facts["reference"] = "reference"
    else:
        path = Path(config.model)
        run.facts["reference"] = str(path.resolve()) if path.is_dir() else config.model


def _card(config: TrainingConfig, task: TrainingTask, run: RunWriter) -> dict[str, Any]:
    base = None if is_call(config.model) or Path(config.model).exists() else config.model
    about = {"title": config.output.name, "command": task.command, "tags": [task.kind], "base_model": base}
    return about | {"facts": run.facts}
