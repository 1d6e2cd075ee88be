"""Records of a training run: fingerprints, facts at its start, figures at its end, and the model card."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from accelerate import PartialState

from headwater import files
from headwater.console import say, show, trends
from headwater.data import reading
from headwater.data.preparation import flops_saved
from headwater.data.tokenizers import is_call
from headwater.data.truncation_options import facts_of
from headwater.forward.packing import RowFormat
from headwater.models import fingerprint, loading
from headwater.results import runs
from headwater.results.facts import Facts
from headwater.results.runs import RunWriter
from headwater.training import checkpoints, labels, resume
from headwater.training.examples import Examples, Pairs
from headwater.training.flops import training_cost
from headwater.training.job import TrainingJob
from headwater.training.loss_movement import hardly_moved
from headwater.training.memory import MemoryUse
from headwater.training.trainer import PairTrainer

TRENDS = {
    "loss": "loss",
    "eval_loss": "held-out loss",
    "rewards/chosen": "chosen reward",
    "rewards/rejected": "rejected reward",
    "rewards/margins": "margin",
    "rewards/accuracies": "accuracy",
}
"""Columns of the history that are shown when training ends, and what they are called."""


def fingerprints(
    job: TrainingJob, checkpoint: Path | None, data: Examples, pairs: Pairs, loaded: loading.Loaded, reference: Any
) -> dict[str, Any]:
    """Return what the training depends on, as checkpoints store it. Errors: where it differs from the checkpoint's."""
    now = {
        "settings": resume.settings_of(job.config),
        "data": fingerprint.of_data([file for each in data.read for file in each.files]),
        "model": fingerprint.of_weights(loaded.model),
        "tokenizer": fingerprint.of_tokenizer(loaded.tokenizer),
        "rows": fingerprint.of_pairs([*pairs.train, *pairs.held_out]),
        "versions": fingerprint.versions(),
        "processes": PartialState().num_processes,
    }
    if reference is not None:
        now["reference"] = fingerprint.of_weights(reference)
    return now if checkpoint is None else resume.check(checkpoint, now, job.options.allow_changes)


def start(job: TrainingJob, checkpoint: Path | None, data: Examples, pairs: Pairs, prints: dict[str, Any]) -> RunWriter:
    """Return the run directory with what is known before training; with a checkpoint, the one that was begun.

    Processes but the first get a writer that writes nothing.
    """
    config, task = job.config, job.task
    if not job.is_first:
        return runs.NullRunWriter(config.output, {})
    before = runs.facts_of(config.data)
    before.pop("frozen", None)  # of the model that the data was made with
    facts: Facts = {**before, **facts_of(config.truncation.encode_options(config.training.seed), before)}
    facts |= {} if task.reward_head is None else {"reward_head": task.reward_head}
    facts |= {"conditional": True} if any(preference.condition for preference in data.train) else {}
    facts |= {"kind": task.kind, "base": config.model, "notes": dict(job.log.notes)}
    facts["flops_saved"] = _flops_saved(before.get("flops_saved", 0.0), job, pairs)
    facts |= labels.facts_of(job.loss, pairs.train)
    facts |= {"changes": prints["changes"]} if "changes" in prints else {}
    if checkpoint is None:
        inputs = [file for loaded in data.read for file in loaded.files]
        run = runs.start(config.output, task.command, config, inputs=inputs, facts=facts)
    else:
        facts["resumed_at"] = checkpoints.step_of(checkpoint)
        run = runs.take_up(config.output, facts=facts, config=config)
        checkpoints.rewind(config.output, checkpoint)
        say(f"{config.output}: goes on after step {checkpoints.step_of(checkpoint)}")
    run.count_stages(job.log.stages)
    _keep_rows(run, data)
    return run


def _flops_saved(before: float, job: TrainingJob, pairs: Pairs) -> float:
    """Return the share of training FLOPs that all truncations have saved, those of the data's own run included."""
    saved = flops_saved(pairs.train, job.log.kept["training part"])
    if saved:
        say(f"training FLOPs saved by this cut: about {saved:.0%} (tokens of prompts and responses)")
    return float(1 - (1 - before) * (1 - saved))


def _keep_rows(run: RunWriter, data: Examples) -> None:
    """Store the rows that were not kept, the prompts trained on, and what the evaluation data shares with them."""
    for loaded, name in zip(data.read, (reading.QUARANTINE, f"evaluation-{reading.QUARANTINE}"), strict=False):
        loaded.quarantine.save(run.path / name)
    conversation_ids = sorted({preference.conversation_id for preference in data.train})
    files.write_text(run.path / runs.TRAINED_ON, "".join(f"{each}\n" for each in conversation_ids))
    if data.shared:
        matches = [match._asdict() for match in data.shared.matches]
        files.write_json(run.path / "overlap.json", {"evaluation_rows": data.shared.rows, "matches": matches})


def end(run: RunWriter, trainer: PairTrainer, pairs: Pairs, row_format: RowFormat, memory_use: MemoryUse) -> None:
    """Store what a training that ended has cost and reached, and show how its figures developed."""
    run.facts["memory_bytes"] = memory_use.measured()
    model = trainer.accelerator.unwrap_model(trainer.model).model
    cost = training_cost(model, pairs.train, row_format, float(trainer.state.epoch), run.facts.get("frozen"))
    run.facts |= {"training_tokens": cost.training_tokens, "training_flops": cost.training_flops}
    show(trends(trainer.state.log_history, TRENDS))
    _note_movement(run, trainer)
    counts = labels.counts("train", pairs.train) | labels.counts("held_out", pairs.held_out)
    run.write_metrics({**_held_out_figures(run, trainer), **counts, **_skipped_steps(run, trainer)})


def _note_movement(run: RunWriter, trainer: PairTrainer) -> None:
    """Say, and record, that the loss did not move."""
    note = hardly_moved([row["loss"] for row in trainer.state.log_history if "loss" in row])
    if note:
        run.facts["loss_note"] = note
        rate = trainer.args.learning_rate
        say(f"{note}: try a higher --learning-rate than {rate:g}, or more --num-train-epochs")


def _held_out_figures(run: RunWriter, trainer: PairTrainer) -> dict[str, float]:
    """Return the held-out figures of the weights that are kept; with early stopping, print which those are."""
    best = trainer.best
    if best is None:
        return trainer.last_evaluation
    say(best.summary(trainer.state.global_step))
    run.facts["early_stopping"] = {"kept_step": best.step, "evaluations": best.evaluations}
    return best.evaluation


def _skipped_steps(run: RunWriter, trainer: PairTrainer) -> dict[str, float]:
    """Return the number of skipped optimizer steps, after storing it in the row counts and their rows in the facts."""
    skipped = trainer.guard.skipped
    if not skipped:
        return {}
    steps = trainer.state.global_step
    run.facts["skipped_steps"] = [step._asdict() for step in skipped]
    run.count("optimizer steps", steps, steps - len(skipped), {"not_finite": len(skipped)})
    return {"skipped_steps": len(skipped)}


def model_card(job: TrainingJob, run: RunWriter) -> dict[str, Any]:
    """Return what the card of the trained model says."""
    model = job.config.model
    base = None if is_call(model) or Path(model).exists() else model
    about = {"title": job.config.output.name, "command": job.task.command, "tags": [job.task.kind], "base_model": base}
    return about | {"facts": run.facts}
