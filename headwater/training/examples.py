"""Training and held-out rows of a job: read, split, truncated, tokenised and counted."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from headwater.console import say, say_notes, say_stages
from headwater.data import reading
from headwater.data.preference import Preference, Unpaired
from headwater.data.preparation import PrepLog, prepare
from headwater.data.splitting import Overlap, split, without_leakage
from headwater.data.tokenizers import Tokenizer
from headwater.data.tokens import EncodeOptions, PairTokens
from headwater.data.truncation import Truncation
from headwater.errors import DataError, UsageError
from headwater.training import labels
from headwater.training.job import TrainingJob
from headwater.training.reference import Reference


class Examples(NamedTuple):
    """Rows to train on and rows held out."""

    train: Sequence[Preference | Unpaired]
    held_out: Sequence[Preference | Unpaired]
    read: list[reading.Loaded[Preference | Unpaired]]
    """Loaded files: `--data`, and `--eval-data` where it is given."""
    shared: Overlap | None = None
    """Prompts that `--eval-data` shares with the training part."""


def read(job: TrainingJob) -> Examples:
    """Return the rows to train on and the rows to evaluate on, after counting them.

    Errors: `UsageError` for rows that the loss cannot read; `DataError` where `--eval-data` shares prompts with the
    training data, unless `--leakage` settles it.
    """
    config, options = job.config, job.options
    loaded = _load(job, config.data, config.read_options)
    if options.eval_data is None:
        seed = options.seed if options.split_seed is None else options.split_seed
        return Examples(*split(loaded.preferences, options.eval_fraction or 0.0, seed), [loaded])
    held_out = _load_evaluation_data(job, options.eval_data)
    train, row_counts, shared = without_leakage(loaded.preferences, held_out.preferences, options.leakage)
    job.log.stages["leakage"] = row_counts
    say(" · ".join(filter(None, (shared.summary(), shared.examples()))))
    return Examples(train, held_out.preferences, [loaded, held_out], shared)


def _load(
    job: TrainingJob, place: Path, read_options: reading.ReadOptions, name: str = "data", stage: str = "read"
) -> reading.Loaded[Preference | Unpaired]:
    """Read a file of rows that the loss of the job can be trained on. Errors: `UsageError`, `DataError`."""
    loaded = reading.load_examples(place, read_options)
    say(f"{name}: {loaded.path} · {loaded.layout}")
    job.log.stages[stage] = loaded.row_counts
    labels.check_row(loaded.preferences[0], job.loss, job.task.weights, job.config.truncation)
    kept, row_counts = labels.demonstrations(loaded.preferences, job.loss)
    if row_counts:
        job.log.stages[f"{stage}, labels"] = row_counts
        if not kept:
            raise DataError(str(loaded.path), "every response is labelled undesirable", "expected some to learn from")
    return loaded._replace(preferences=kept)


def _load_evaluation_data(job: TrainingJob, place: Path) -> reading.Loaded[Preference | Unpaired]:
    """Read `--eval-data`. Errors: those of `_load`, under the names of its own flags."""
    config = job.config
    # A limit on rows of --data does not apply to other data; a revision holds for all splits of one name.
    read_options = dataclasses.replace(config.read_options, split=job.options.eval_split, limit=None)
    if place != config.data:
        read_options = dataclasses.replace(read_options, dataset_config=None, revision=None, streaming=False)
    try:
        return _load(job, place, read_options, "evaluation data", "read, evaluation data")
    except UsageError as error:
        raise UsageError(
            "--eval-data", *(str(part).replace("--split", "--eval-split") for part in error.args)
        ) from error


class Pairs(NamedTuple):
    """Training and held-out rows as tokens."""

    train: list[PairTokens]
    held_out: list[PairTokens]


def encode(job: TrainingJob, data: Examples, encode_options: EncodeOptions, tokenizer: Tokenizer) -> Pairs:
    """Return the rows as tokens, training pairs only as far as the task chooses them, and print the row counts."""
    train = prepare("training part", data.train, encode_options, tokenizer, job.log)
    held_out = prepare("held-out part", data.held_out, encode_options, tokenizer, job.log) if data.held_out else []
    say_stages(job.log.stages)
    say_notes(job.log.notes)
    if job.task.choose is not None:
        stage = "choose, training part"
        train, job.log.stages[stage] = job.task.choose(train, job.options.seed)
        say_stages({stage: job.log.stages[stage]})
    return Pairs(train, held_out)


class Rows(NamedTuple):
    """The rows of both parts, counted as those of one, and the same rows with whole responses."""

    every: list[PairTokens]
    whole: list[PairTokens]


def with_whole(pairs: Pairs, data: Examples, encode_options: EncodeOptions, tokenizer: Tokenizer) -> Rows:
    """Return the pairs of both parts, and those that they are beginnings of where responses are cut to prefixes."""
    before = len(data.train)  # the rows of both parts are counted as those of one
    every = [*pairs.train, *(pair._replace(row=before + pair.row) for pair in pairs.held_out)]
    whole = every
    if not encode_options.truncation.changes_nothing and encode_options.truncation.part == "prefix":
        uncut = dataclasses.replace(encode_options, truncation=Truncation())
        # Rows whose whole responses are too long stand for themselves; those may be all.
        with contextlib.suppress(DataError):
            whole = prepare("whole responses", [*data.train, *data.held_out], uncut, tokenizer, PrepLog())
    return Rows(every, whole)


def with_reference(
    pairs: Pairs, reference: Reference, data: Examples, encode_options: EncodeOptions, tokenizer: Tokenizer
) -> Pairs:
    """Return pairs with reference values; beginnings of responses get those of the whole responses, read once."""
    before = len(data.train)
    filled = reference.fill(*with_whole(pairs, data, encode_options, tokenizer))
    held_out = [pair._replace(row=pair.row - before) for pair in filled[len(pairs.train) :]]
    return Pairs(filled[: len(pairs.train)], held_out)
