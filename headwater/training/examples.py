"""What a session trains and evaluates on: examples that are read, held apart, cut, tokenised, and accounted for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from headwater import files
from headwater.console import say, say_notes, say_stages
from headwater.data import reading
from headwater.data.preference import Preference, Unpaired
from headwater.data.preparation import PrepLog, flops_saved, prepare
from headwater.data.splitting import Overlap, split, without_leakage
from headwater.data.tokenizers import Tokenizer
from headwater.data.tokens import EncodeOptions, PairTokens
from headwater.data.truncation import Truncation
from headwater.errors import UsageError
from headwater.losses import Loss
from headwater.results import runs
from headwater.results.runs import RunWriter
from headwater.training import labels
from headwater.training.options import TrainingConfig
from headwater.training.reference import Reference
from headwater.training.task import TrainingTask


class Examples(NamedTuple):
    """Rows to train on and rows held out."""

    train: Sequence[Preference | Unpaired]
    held_out: Sequence[Preference | Unpaired]
    read: list[reading.Loaded[Preference | Unpaired]]
    """What was read: `--data`, and `--eval-data` where it is given."""
    shared: Overlap | None = None
    """What `--eval-data` shares with the training part."""


def read(config: TrainingConfig, task: TrainingTask, loss: Loss, prep_log: PrepLog) -> Examples:
    """Read what to train on and what to evaluate on, and account for it.

    Errors: `UsageError` for rows that the loss cannot read; `DataError` where `--eval-data` shares prompts with the
    training data, unless `--leakage` settles it.
    """
    options = config.training
    loaded = reading.load_examples(config.data, config.read_options)
    say(f"data: {loaded.path} · {loaded.layout}")
    prep_log.stages["read"] = loaded.row_counts
    labels.check_row(loaded.preferences[0], loss, task.weights, config.truncation)
    if options.eval_data is None:
        seed = options.seed if options.split_seed is None else options.split_seed
        return Examples(*split(loaded.preferences, options.eval_fraction or 0.0, seed), [loaded])
    judged = _evaluation_data(options.eval_data, config)
    say(f"evaluation data: {judged.path} · {judged.layout}")
    prep_log.stages["read, evaluation data"] = judged.row_counts
    labels.check_row(judged.preferences[0], loss, task.weights, config.truncation)
    train, row_counts, shared = without_leakage(loaded.preferences, judged.preferences, options.leakage)
    prep_log.stages["leakage"] = row_counts
    say(" · ".join(filter(None, (shared.summary(), shared.examples()))))
    return Examples(train, judged.preferences, [loaded, judged], shared)


def _evaluation_data(place: Path, config: TrainingConfig) -> reading.Loaded[Preference | Unpaired]:
    """Read `--eval-data`. Errors: those of `reading.load_examples`, under the names of its own flags."""
    # What picks rows of --data (a limit) says nothing of other data; a revision holds for all splits of one name.
    read_options = dataclasses.replace(config.read_options, split=config.training.eval_split, limit=None)
    if place != config.data:
        read_options = dataclasses.replace(read_options, dataset_config=None, revision=None, streaming=False)
    try:
        return reading.load_examples(place, read_options)
    except UsageError as error:
        raise UsageError(
            "--eval-data", *(str(part).replace("--split", "--eval-split") for part in error.args)
        ) from error


def saved_so_far(before: Mapping[str, Any], pairs: list[PairTokens], prep_log: PrepLog) -> float:
    """Return the share of training FLOPs saved by all cuts so far, those of the data's own run included, and say it."""
    saved = flops_saved(pairs, prep_log.kept["training part"])
    if saved:
        say(f"training FLOPs saved by this cut: about {saved:.0%} (tokens of prompts and responses)")
    return float(1 - (1 - before.get("flops_saved", 0.0)) * (1 - saved))


def keep(run: RunWriter, data: Examples) -> None:
    """Store the rows that were not kept, the openings trained on, and what the evaluation data shares with them."""
    for loaded, name in zip(data.read, (reading.QUARANTINE, f"evaluation-{reading.QUARANTINE}"), strict=False):
        loaded.quarantine.save(run.path / name)
    conversation_ids = sorted({preference.conversation_id for preference in data.train})
    files.write_text(
        run.path / runs.TRAINED_ON, "".join(f"{conversation_id}\n" for conversation_id in conversation_ids)
    )
    if data.shared:
        matches = [match._asdict() for match in data.shared.matches]
        files.write_json(run.path / "overlap.json", {"evaluation_rows": data.shared.rows, "matches": matches})


class Pairs(NamedTuple):
    """The same, as tokens."""

    train: list[PairTokens]
    held_out: list[PairTokens]


def pairs_of(data: Examples, encode_options: EncodeOptions, tokenizer: Tokenizer, prep_log: PrepLog) -> Pairs:
    """Tokenise both parts, and say what happened to the rows on their way here."""
    train = prepare("training part", data.train, encode_options, tokenizer, prep_log)
    held_out = prepare("held-out part", data.held_out, encode_options, tokenizer, prep_log) if data.held_out else []
    say_stages(prep_log.stages)
    say_notes(prep_log.notes)
    return Pairs(train, held_out)


def chosen(pairs: Pairs, task: TrainingTask, seed: int, prep_log: PrepLog) -> Pairs:
    """Train on some of the training pairs only where the recipe says so, and account for the others."""
    if task.choose is None:
        return pairs
    train, row_counts = task.choose(pairs.train, seed)
    prep_log.stages["choose, training part"] = row_counts
    say_stages({"choose, training part": row_counts})
    return pairs._replace(train=train)


def with_reference(
    pairs: Pairs, reference: Reference, data: Examples, encode_options: EncodeOptions, tokenizer: Tokenizer
) -> Pairs:
    """Give pairs their reference values, from those of whole responses where the view shows their beginnings."""
    before = len(data.train)  # the rows of both parts are counted as those of one
    every = [*pairs.train, *(pair._replace(row=before + pair.row) for pair in pairs.held_out)]
    whole = every
    if not encode_options.truncation.changes_nothing and encode_options.truncation.part == "prefix":
        uncut = dataclasses.replace(encode_options, truncation=Truncation())
        whole = prepare("whole responses", [*data.train, *data.held_out], uncut, tokenizer, PrepLog())
    filled = reference.fill(every, whole)
    held_out = [pair._replace(row=pair.row - before) for pair in filled[len(pairs.train) :]]
    return Pairs(filled[: len(pairs.train)], held_out)
