"""One training session, from a data file to a finished run: what `train-sft`, `train-reward` and `train-dpo` share.

A verb gives a `Recipe` (which losses, how to score, which head); everything else is the same for all of them.
"""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from transformers import TrainingArguments

from headwater import files, runs
from headwater.config import build
from headwater.console import say, say_notes, say_stages, show, silence, trends
from headwater.data import reading
from headwater.data.preference import Preference, Unpaired
from headwater.data.preparation import Ledger, flops_saved, prepare
from headwater.data.splitting import Overlap, split, without_leakage
from headwater.data.tokenizers import Tokenizer, is_call
from headwater.data.tokens import PairTokens, View
from headwater.data.truncation import Truncation
from headwater.data.view import ViewOptions, facts_of
from headwater.engine import checkpoints, labels, learning_rate, memory, models, resuming
from headwater.engine.attention import is_encoder, layout_for
from headwater.engine.compilation import compile_layers
from headwater.engine.drift import Drift
from headwater.engine.flops import training_cost
from headwater.engine.losses import Loss
from headwater.engine.options import TrainingOptions
from headwater.engine.packing import UNIFORM
from headwater.engine.reference import Reference
from headwater.engine.scoring import ScoreFunction, divergence_scores, response_values
from headwater.engine.stopping import EvaluateEvery, KeepBest
from headwater.engine.training import PairTrainer, arguments_for
from headwater.engine.weights import Weights
from headwater.errors import DataError, UsageError
from headwater.runs import RunWriter

SCRATCH_LEARNING_RATE = 1e-3
EVAL_FRACTION = 0.1


Choose = Callable[[list[PairTokens], int], tuple[list[PairTokens], reading.Account]]
"""Training pairs and a seed to those that are trained on, with their account."""


class TrainConfig(Protocol):
    """What the configs of the training commands have in common."""

    @property
    def data(self) -> Path: ...  # noqa: D102
    @property
    def output(self) -> Path: ...  # noqa: D102
    @property
    def model(self) -> str: ...  # noqa: D102
    @property
    def loss(self) -> str: ...  # noqa: D102
    @property
    def door(self) -> reading.Door: ...  # noqa: D102
    @property
    def view(self) -> ViewOptions: ...  # noqa: D102
    @property
    def overwrite(self) -> bool: ...  # noqa: D102
    @property
    def training(self) -> TrainingOptions: ...  # noqa: D102


@dataclass(frozen=True)
class Recipe:
    """What makes a training command itself."""

    command: str
    kind: str
    """What the report calls the trained model: reward model, dpo, sft."""
    head: models.Head
    losses: Mapping[str, Callable[..., Loss]]
    score: ScoreFunction
    learning_rate: float
    """Default peak learning rate for a pretrained model."""
    weights: Weights = UNIFORM
    choose: Choose | None = None
    """Which of the training pairs to train on, by the seed; None for all of them."""
    watched: str = "eval_rewards/accuracies"
    """The held-out figure by which early stopping keeps weights."""


def train(config: TrainConfig, recipe: Recipe) -> Path:
    """Train as `config` says and return the finished run directory: a loadable model beside the run's files.

    Started by torchrun or accelerate, every process runs this; the first one speaks and writes.
    """
    config = _with_defaults(config, recipe)
    arguments = arguments_for(config.training, str(config.output))
    first = arguments.process_index == 0
    checkpoint = _checkpoint(config)
    if first and checkpoint is None:
        runs.check_free(config.output, config.overwrite)
    with contextlib.nullcontext() if first else silence():
        return _train(config, recipe, arguments, checkpoint)


def _checkpoint(config: TrainConfig) -> Path | None:
    """Return where to go on: the last checkpoint of the same command, where it was stopped."""
    if config.overwrite or not runs.begun(config.output, config):
        return None
    return resuming.latest(config.output)


def _train(config: TrainConfig, recipe: Recipe, arguments: TrainingArguments, checkpoint: Path | None) -> Path:
    first = arguments.process_index == 0
    options, loss = config.training, build(config.loss, recipe.losses, "loss")
    ledger = Ledger()
    data = _read(config, recipe, loss, ledger)
    model, tokenizer = _load(config, recipe, data)
    view = config.view.view(options.seed)
    pairs = _chosen(_pairs(data, view, tokenizer, ledger), recipe, options.seed, ledger)
    _check_needs(loss, pairs, options, arguments.world_size)
    models.check_targets(model, options)
    layout = layout_for(model, pairs.train, response_values(recipe.score))
    if options.torch_compile:
        compile_layers(model)

    run = _start(config, recipe, loss, data, pairs, ledger, checkpoint) if first else runs.Bystander(config.output, {})
    run.facts["layout"] = layout
    if loss.needs_reference:
        if first:
            _keep_reference(run, config, model, tokenizer)
        reference = Reference(model, layout, options.tokens_per_pass, arguments.bf16)
        pairs = _with_reference(pairs, reference, data, view, tokenizer)
    score, drift = _with_live_reference(loss, recipe.score, model, view)
    model = _trainable(model, recipe, options)
    estimate = memory.estimate(model, pairs.train, layout, options, bf16=arguments.bf16)
    say(f"memory: {estimate} to train")
    before = memory.peak()
    make = functools.partial(
        PairTrainer,
        model,
        score,
        loss,
        train_pairs=pairs.train,
        held_out=pairs.held_out,
        layout=layout,
        weights=recipe.weights,
        room=options.tokens_per_pass,
        drift=drift,
    )
    if options.find_learning_rate:
        _set_rate(arguments, learning_rate.search(make, arguments), run)
    trainer = make(arguments=arguments, log=run.log)
    best = _watch(trainer, options, labels.watched(recipe.watched, pairs.held_out))
    trainer.train(None if checkpoint is None else str(checkpoint))
    say(f"memory: at most {memory.peak() / memory.GIB:.2f} GiB were used, {before / memory.GIB:.2f} before training")
    run.facts |= training_cost(model, pairs.train, layout, float(trainer.state.epoch))._asdict()
    show(trends(trainer.state.log_history, TRENDS))
    run.facts["memory_bytes"] = {**estimate._asdict(), "peak": memory.peak(), "before_training": before}
    counts = labels.counts("train", pairs.train) | labels.counts("held_out", pairs.held_out)
    run.write_metrics({**_kept(best, trainer, run), **counts})
    weights = trainer.whole_weights()
    if first:
        checkpoints.save(model, tokenizer, config.output, _card(config, recipe, run), weights)
        resuming.remove(config.output)
    return run.finish()


def _set_rate(arguments: TrainingArguments, found: learning_rate.Search, run: RunWriter) -> None:
    """Train with the rate that a search suggests, and record its curve."""
    arguments.learning_rate = found.suggestion
    run.facts["learning_rate_search"] = {**dataclasses.asdict(found), "suggestion": found.suggestion}


def _load(config: TrainConfig, recipe: Recipe, data: _Data) -> models.Loaded:
    """Load the model that is trained, and say what it is."""
    model, tokenizer = models.load(config.model, recipe.head, data.train, config.training.seed)
    if is_encoder(model):
        models.give_template(tokenizer)
    say(f"model: {config.model} · {model.num_parameters() / 1e6:.2f} M parameters · {len(tokenizer)} tokens")
    return models.Loaded(model, tokenizer)


def _trainable(model: Any, recipe: Recipe, options: TrainingOptions) -> Any:
    """Give a model its adapters, and checkpointing of its activations, where they are asked for."""
    if options.lora_r:
        model = models.adapted(model, recipe.head, options)
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
    return best


def _kept(best: KeepBest | None, trainer: PairTrainer, run: RunWriter) -> dict[str, float]:
    """Return the held-out figures of the weights that are kept, and say which those are."""
    if best is None:
        return trainer.last_evaluation
    say(best.summary(trainer.state.global_step))
    run.facts["early_stopping"] = {"kept_step": best.step, "evaluations": best.evaluations}
    return best.evaluation


def _needs(loss: Loss) -> frozenset[str]:
    """Return what a loss needs beyond two scores; a plain callable of a notebook names nothing."""
    return frozenset(getattr(loss, "needs", ()))


def _check_needs(loss: Loss, pairs: _Pairs, options: TrainingOptions, processes: int) -> None:
    """Refuse what a loss cannot be trained on, before the run is started. Errors: `DataError`, `UsageError`."""
    lacking = [pair.id for pair in (*pairs.train, *pairs.held_out) if pair.score_gap is None]
    if "score_gap" in _needs(loss) and lacking:
        problem = f"{len(lacking)} pairs have no score of both responses, the first is {lacking[0]}"
        raise DataError(f"--loss {loss!r}", problem, "use data with scores, or another loss")
    if "drift" in _needs(loss) and options.per_device_train_batch_size < 2:
        raise UsageError(
            "--per-device-train-batch-size 1", f"{loss!r} needs responses to other prompts", "give 2 or more"
        )
    for part, rows in (("training", pairs.train), ("held-out", pairs.held_out)):
        if "drift" in _needs(loss) and 0 < len(rows) < 2 * processes:
            raise DataError(f"{part} part", f"{len(rows)} rows", f"{loss!r} needs responses to other prompts", "2 rows")


def _with_live_reference(
    loss: Loss, score: ScoreFunction, model: Any, view: View
) -> tuple[ScoreFunction, Drift | None]:
    """Give a loss the reference model itself where stored log-probabilities do not do: a frozen copy."""
    if not _needs(loss) & {"divergence", "drift"}:
        return score, None
    frozen = copy.deepcopy(model).eval().requires_grad_(False)
    if "divergence" in _needs(loss):
        return divergence_scores(frozen), None
    return score, Drift(frozen, view.max_length)


class _Pairs(NamedTuple):
    train: list[PairTokens]
    held_out: list[PairTokens]


def _pairs(data: _Data, view: View, tokenizer: Tokenizer, ledger: Ledger) -> _Pairs:
    """Tokenise both parts, and say what happened to the rows on their way here."""
    train = prepare("training part", data.train, view, tokenizer, ledger)
    held_out = prepare("held-out part", data.held_out, view, tokenizer, ledger) if data.held_out else []
    say_stages(ledger.stages)
    say_notes(ledger.notes)
    return _Pairs(train, held_out)


def _chosen(pairs: _Pairs, recipe: Recipe, seed: int, ledger: Ledger) -> _Pairs:
    """Train on some of the training pairs only where the recipe says so, and account for the others."""
    if recipe.choose is None:
        return pairs
    train, account = recipe.choose(pairs.train, seed)
    ledger.stages["choose, training part"] = account
    say_stages({"choose, training part": account})
    return pairs._replace(train=train)


def _with_reference(pairs: _Pairs, reference: Reference, data: _Data, view: View, tokenizer: Tokenizer) -> _Pairs:
    """Give pairs their reference values, from those of whole responses where the view shows their beginnings."""
    every = [*pairs.train, *pairs.held_out]
    whole = every
    if not view.truncation.changes_nothing and view.truncation.part == "prefix":
        uncut = dataclasses.replace(view, truncation=Truncation())
        whole = prepare("whole responses", [*data.train, *data.held_out], uncut, tokenizer, Ledger())
    filled = reference.fill(every, whole)
    return _Pairs(filled[: len(pairs.train)], filled[len(pairs.train) :])


def _start(
    config: TrainConfig,
    recipe: Recipe,
    loss: Loss,
    data: _Data,
    pairs: _Pairs,
    ledger: Ledger,
    checkpoint: Path | None,
) -> RunWriter:
    """Open the run directory with what is known before training, or again, to go on from a checkpoint."""
    before = runs.facts_of(config.data)
    facts = before | facts_of(config.view.view(config.training.seed), before)
    facts |= {"conditional": True} if any(preference.condition for preference in data.train) else {}
    facts |= {"kind": recipe.kind, "base": config.model, "notes": dict(ledger.notes)}
    facts["flops_saved"] = _flops_saved(before, pairs.train, ledger)
    facts |= labels.facts_of(loss, pairs.train)
    inputs = [file for loaded in data.read for file in loaded.files]
    if checkpoint is None:
        run = runs.start(config.output, recipe.command, config, inputs=inputs, facts=facts)
    else:
        run = runs.take_up(config.output, inputs=inputs, facts={**facts, "resumed_at": resuming.step_of(checkpoint)})
        resuming.rewind(config.output, checkpoint)
        say(f"{config.output}: goes on after step {resuming.step_of(checkpoint)}")
    run.count_stages(ledger.stages)
    _keep_data(run, data)
    return run


def _with_defaults(config: TrainConfig, recipe: Recipe) -> Any:
    """Fill in the default learning rate and held-out part, so that the stored config says what was used."""
    training = config.training
    if training.learning_rate is None and not training.find_learning_rate:
        rate = SCRATCH_LEARNING_RATE if is_call(config.model) else recipe.learning_rate
        training = dataclasses.replace(training, learning_rate=rate)
    if training.eval_fraction is None and training.eval_data is None:
        training = dataclasses.replace(training, eval_fraction=EVAL_FRACTION)
    return dataclasses.replace(config, training=training)  # type: ignore[type-var]


class _Data(NamedTuple):
    train: Sequence[Preference | Unpaired]
    held_out: Sequence[Preference | Unpaired]
    read: list[reading.Loaded[Preference | Unpaired]]
    """What was read: `--data`, and `--eval-data` where it is given."""
    shared: Overlap | None = None
    """What `--eval-data` shares with the training part."""


def _read(config: TrainConfig, recipe: Recipe, loss: Loss, ledger: Ledger) -> _Data:
    """Read what to train on and what to evaluate on, and account for it.

    Errors: `UsageError` for rows that the loss cannot read; `DataError` where `--eval-data` shares prompts with the
    training data, unless `--leakage` settles it.
    """
    options = config.training
    loaded = reading.load_examples(config.data, config.door)
    say(f"data: {loaded.path} · {loaded.layout}")
    ledger.stages["read"] = loaded.account
    labels.check_row(loaded.preferences[0], loss, recipe.weights, config.view)
    if options.eval_data is None:
        seed = options.seed if options.split_seed is None else options.split_seed
        return _Data(*split(loaded.preferences, options.eval_fraction or 0.0, seed), [loaded])
    judged = _evaluation_data(options.eval_data, config)
    say(f"evaluation data: {judged.path} · {judged.layout}")
    ledger.stages["read, evaluation data"] = judged.account
    labels.check_row(judged.preferences[0], loss, recipe.weights, config.view)
    train, account, shared = without_leakage(loaded.preferences, judged.preferences, options.leakage)
    ledger.stages["leakage"] = account
    say(" · ".join(filter(None, (shared.summary(), shared.examples()))))
    return _Data(train, judged.preferences, [loaded, judged], shared)


def _evaluation_data(place: Path, config: TrainConfig) -> reading.Loaded[Preference | Unpaired]:
    """Read `--eval-data`. Errors: those of `reading.load_examples`, under the names of its own flags."""
    # What picks rows of --data (a limit) says nothing of other data; a revision holds for all splits of one name.
    door = dataclasses.replace(config.door, split=config.training.eval_split, limit=None)
    if place != config.data:
        door = dataclasses.replace(door, dataset_config=None, revision=None, streaming=False)
    try:
        return reading.load_examples(place, door)
    except UsageError as error:
        raise UsageError(
            "--eval-data", *(str(part).replace("--split", "--eval-split") for part in error.args)
        ) from error


def _flops_saved(before: Mapping[str, Any], pairs: list[PairTokens], ledger: Ledger) -> float:
    """Return the share of training FLOPs saved by all cuts so far, those of the data's own run included, and say it."""
    saved = flops_saved(pairs, ledger.kept["training part"])
    if saved:
        say(f"training FLOPs saved by this cut: about {saved:.0%} (tokens of prompts and responses)")
    return float(1 - (1 - before.get("flops_saved", 0.0)) * (1 - saved))


def _keep_data(run: RunWriter, data: _Data) -> None:
    """Store the rows that were not kept, the openings trained on, and what the evaluation data shares with them."""
    for loaded, name in zip(data.read, (reading.QUARANTINE, f"evaluation-{reading.QUARANTINE}"), strict=False):
        loaded.quarantine.save(run.path / name)
    openings = sorted({preference.opening for preference in data.train})
    files.write_text(run.path / runs.TRAINED_ON, "".join(f"{opening}\n" for opening in openings))
    if data.shared:
        matches = [match._asdict() for match in data.shared.matches]
        files.write_json(run.path / "overlap.json", {"evaluation_rows": data.shared.rows, "matches": matches})


def _keep_reference(run: RunWriter, config: TrainConfig, model: Any, tokenizer: Tokenizer) -> None:
    """Record the reference model: by name, or saved in the run where a scratch model has none."""
    if is_call(config.model):
        checkpoints.save(model, tokenizer, run.path / "reference")
        run.facts["reference"] = "reference"
    else:
        path = Path(config.model)
        run.facts["reference"] = str(path.resolve()) if path.is_dir() else config.model


def _card(config: TrainConfig, recipe: Recipe, run: RunWriter) -> dict[str, Any]:
    base = None if is_call(config.model) or Path(config.model).exists() else config.model
    about = {"title": config.output.name, "command": recipe.command, "tags": [recipe.kind], "base_model": base}
    return about | {"facts": run.facts}
