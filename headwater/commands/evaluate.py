"""Score preference pairs, or labelled responses, with a trained model: accuracy or AUC, and rewards, with intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from rich.table import Table

from headwater import files, statistics
from headwater.config import POSITIONAL, build
from headwater.console import say, say_notes, say_stages, show, sparkline
from headwater.data import embedding, reading
from headwater.data.preference import Example, Preference, Unpaired
from headwater.data.preparation import PrepLog, prepare
from headwater.data.reading import Loaded, ReadOptions
from headwater.data.recorded import RowName
from headwater.data.splitting import unseen
from headwater.data.templates import renders_conversations
from headwater.data.tokens import TOKENS_PER_PASS, PairTokens
from headwater.data.truncation_options import TruncationOptions, facts_of
from headwater.errors import UsageError
from headwater.results import runs
from headwater.statistics import LEVEL, Estimate, Floats

if TYPE_CHECKING:
    from headwater.evaluation.length_bias import Correction
    from headwater.losses.token_weights import Weights
    from headwater.rewards.reward_models import Rewarding

EXAMPLE = "headwater evaluate --model runs/reward --dataset pairs.jsonl --output runs/reward-eval"

SPANS = 24
"""Bars of the margins on the terminal."""

HELP = {
    "Input": ("model", "dataset", "split", "limit"),
    "Output": ("output", "overwrite"),
    "Policies": ("reference", "beta"),
    "Truncation": ("keep", "max_length"),
    "Comparison": ("against", "untrained"),
    "Computation": ("tokens_per_pass", "allow_leakage", "seed"),
}
"""Options that `--help` shows, by group; `--help-all` shows the others too."""


@dataclass(frozen=True)
class Config:
    """Flags of `headwater evaluate`."""

    model: Annotated[str, POSITIONAL]
    """Model to evaluate: a training run, path or Hugging Face name of a reward model, of an ensemble, or of a policy
    (by its implicit reward)."""
    dataset: Annotated[Path, POSITIONAL]
    """Preference pairs or responses with labels: a file, directory, pattern, run, or name on the hub. Rows whose
    prompts the model was trained on are left out."""
    output: Path | None = None
    """Directory of the run. Default: MODEL-on-DATASET beside a training run, ./DATASET-evaluation otherwise."""
    reference: str | None = None
    """Reference model of a policy. Default: the one that its training run names; policies trained with simpo, orpo,
    cpo or slic have none, and get the reward of their loss."""
    reward_head: int | None = None
    """Output, from 0, that is the reward in a reward model with several. Default: its only one."""
    beta: float | None = None
    """Scale of a policy's implicit reward, beta × (log π − log π_ref). Default: 0.1."""
    weights: str | None = None
    """Weight of every token in the implicit reward: first(tokens=…), decay(gamma=…), tail(alpha=…), mean(), …
    Default: uniform()."""
    correct: str | None = None
    """Correction of rewards for length: "divide(alpha=100)" is r / (alpha + tokens); "regress(on='RUN')" is r − b ×
    tokens, with b from a run of evaluate on the training pairs (with --allow-leakage). Figures are shown before and
    after."""
    against: tuple[Path, ...] = ()
    """Runs of evaluate on the same pairs to compare with, by a paired bootstrap and McNemar's test."""
    untrained: bool = False
    """Compare a reward model with itself before training: its initial weights and a new head."""
    embed: int | None = None
    """Number of pairs to embed by PCA and t-SNE of the model's last hidden states, for the report."""
    tokens_per_pass: int = TOKENS_PER_PASS
    """Maximum number of tokens in one forward pass. Changes memory use, not the result."""
    allow_leakage: bool = False
    """Evaluate rows whose prompts the model was trained on, too."""
    seed: int = 42
    """Random seed of the bootstrap intervals and of --embed."""
    chat_template: str | None = None
    """Chat template to use instead of the model's own: plain, chatml, or a Jinja file."""
    overwrite: bool = False
    """Replace an existing run at --output."""
    read_options: ReadOptions = field(default_factory=ReadOptions)
    truncation: TruncationOptions = field(default_factory=TruncationOptions)


@renders_conversations
def run(config: Config) -> Path:
    """Score the rows, print the tables and return the run directory."""
    from headwater.evaluation.baselines import Baseline
    from headwater.evaluation.diagnostics import FILE

    output = config.output or _default_output(config)
    runs.check_free(output, config.overwrite, config)
    _refuse_embedding(config)
    others = [Baseline.load(path) for path in config.against]
    task = _task(config)
    laid_out = embedding.drawn(task.pairs, config.embed, config.seed) if config.embed is not None else []
    compared = {other.name: other.of(task.rows) for other in others}
    writer = runs.start(output, "evaluate", config, inputs=task.loaded.files, facts=task.facts)
    by_member = task.model.rewards(task.pairs, config.tokens_per_pass, task.weights)
    found = _of_labels(config, task, by_member) if task.labelled else _of_pairs(config, task, by_member, compared)
    columns: dict[str, NDArray[Any]] = {"reward": found.rewards, "tokens": task.lengths.astype(np.int64)}
    if len(by_member) > 1:
        spread: Floats = by_member.std(axis=0, ddof=1)
        columns["reward_std"] = spread
        found.metrics["ensemble_std"] = _mean_of_responses(task, spread, config.seed)
    if found.before is not None:
        columns["reward_untrained"] = found.before
    writer.count_stages(task.prep_log.stages)
    task.loaded.quarantine.save(writer.path / reading.QUARANTINE)
    writer.write_metrics(found.metrics)
    writer.write_records(_records(task, columns))
    if found.diagnostics:
        files.write_json(writer.path / FILE, found.diagnostics)
    if laid_out:
        files.write_json(writer.path / embedding.FILE, _embedded(config, task, [task.pairs[i] for i in laid_out]))
    _print(found, config)
    return writer.finish()


@dataclass(frozen=True)
class _Task:
    """What is to be judged, and by what: everything that can be refused has been."""

    model: Rewarding
    weights: Weights
    pairs: list[PairTokens]
    rows: list[Preference | Unpaired]
    """The texts of `pairs`."""
    correction: Correction | None
    loaded: Loaded[Preference | Unpaired]
    prep_log: PrepLog
    facts: dict[str, Any]

    @property
    def labelled(self) -> bool:
        """Whether rows are single responses with a label."""
        return isinstance(self.rows[0], Unpaired)

    @property
    def conversation_ids(self) -> list[str]:
        """The clusters of the bootstrap, [rows]."""
        return [pair.conversation_id for pair in self.pairs]

    @property
    def lengths(self) -> Floats:
        """Tokens of the responses, [rows, 2]; 0 where a row has no such response."""
        return np.array([[len(pair.chosen), len(pair.rejected)] for pair in self.pairs], dtype=np.float64)


def _task(config: Config) -> _Task:
    """Load model and data, and leave out what the model was trained on."""
    from headwater.losses.token_weights import WEIGHTS
    from headwater.models import loading, positions
    from headwater.models.turn_ends import end_rule
    from headwater.rewards import reward_models
    from headwater.training import labels

    facts = runs.facts_of(Path(config.model))
    encode_options = config.truncation.encode_options(config.seed, config.truncation.end or end_rule(config.model))
    head = loading.head_of(runs.members_of(config.model)[0])
    _refuse_flags(config, head)
    reward_models.refuse_flags(config.model, head, reference=config.reference, beta=config.beta, weights=config.weights)
    weights: Weights = build(config.weights or "uniform()", WEIGHTS, "weights")
    correction = _correction(config)
    loaded = reading.load_examples(config.dataset, config.read_options)
    say(f"data: {loaded.path} · {loaded.layout}")
    prep_log = PrepLog({"read": loaded.row_counts})
    rows = loaded.preferences
    labels.check_reading(rows[0], weights, encode_options.truncation)
    _refuse_without_pairs(config, rows[0])
    if not config.allow_leakage:
        rows, prep_log.stages["leakage"] = unseen(rows, runs.trained_on(Path(config.model)))
    model = reward_models.load(config.model, config.reference, config.beta, rows, config.seed, config.reward_head)
    loading.check_conditions(config.model, (row.condition for row in rows))
    encode_options = positions.fitted(encode_options, *model.models)
    part = "evaluated responses" if isinstance(loaded.preferences[0], Unpaired) else "evaluated pairs"
    pairs = prepare(part, rows, encode_options, model.tokenizer, prep_log)
    say_stages(prep_log.stages)
    say_notes(prep_log.notes)
    facts.pop("members", None)  # theirs is the model's run, not this one
    facts |= {f"evaluated_{name}": value for name, value in facts_of(encode_options, {}).items()}
    facts.setdefault("kind", "reward model" if head == "reward" else "policy")
    facts |= {"correction": config.correct} if config.correct else {}
    return _Task(model, weights, pairs, [rows[pair.row] for pair in pairs], correction, loaded, prep_log, facts)


class _Found(NamedTuple):
    """What rewards say of the rows."""

    rewards: Floats
    """[rows, 2] of chosen and rejected, corrected."""
    metrics: dict[str, Estimate]
    diagnostics: dict[str, Any]
    """What only pairs can tell; {} for labelled responses."""
    before: Floats | None = None
    """The rewards before training, [pairs, 2], where they were asked for."""


def _of_pairs(config: Config, task: _Task, by_member: Floats, compared: Mapping[str, Floats]) -> _Found:
    """Judge pairs by rewards [models, pairs, 2], beside what others made of them, `compared` [pairs, 2] by name."""
    from headwater.evaluation.comparison import summarise_rewards, wins
    from headwater.evaluation.diagnostics import Judged, diagnose

    plain: Floats = by_member.mean(axis=0)
    lengths, conversation_ids = task.lengths, task.conversation_ids
    rewards = task.correction(plain, lengths) if task.correction else plain
    baselines = {name: wins(*theirs.T) for name, theirs in compared.items()}
    before = _untrained(config, task) if config.untrained else None
    if before is not None:
        baselines["untrained"] = wins(*before.T)
    if len(by_member) > 1:
        baselines |= _members(config, by_member)
    pairs = [row for row in task.rows if isinstance(row, Preference)]
    diagnostics = diagnose(Judged(pairs, rewards, lengths), baselines, config.seed)
    if task.correction:
        diagnostics["corrected"] = _both_biases(plain, rewards, lengths, conversation_ids, config.seed)
    diagnostics["length_bias"] = [
        {"name": name, "figures": _both_biases(theirs, rewards, lengths, conversation_ids, config.seed)}
        for name, theirs in compared.items()
    ]
    return _Found(rewards, summarise_rewards(rewards, lengths, conversation_ids, config.seed), diagnostics, before)


def _of_labels(config: Config, task: _Task, by_member: Floats) -> _Found:
    """Judge labelled responses by rewards [models, rows, 2]."""
    from headwater.evaluation.labels import summarise_labels

    rewards, lengths = by_member.mean(axis=0), task.lengths
    desirable = lengths[:, 0] > 0
    own: Floats = np.where(desirable, *rewards.T)
    metrics = summarise_labels(own, desirable, lengths.sum(axis=1), task.conversation_ids, config.seed)
    if "auc" not in metrics:
        say(f"all responses are {'' if desirable.any() else 'un'}desirable: there is nothing to tell them from")
    return _Found(rewards, metrics, {})


def _mean_of_responses(task: _Task, values: Floats, seed: int) -> Estimate:
    """Return the mean of `values` [rows, 2] over the responses that rows have."""
    there = (task.lengths > 0).T.reshape(-1)
    conversation_ids = [
        conversation_id for conversation_id, has in zip(task.conversation_ids * 2, there.tolist(), strict=True) if has
    ]
    return statistics.mean(values.T.reshape(-1)[there], conversation_ids, seed)


def _refuse_without_pairs(config: Config, row: Example) -> None:
    """Refuse for labelled rows what compares the responses of pairs. Errors: `UsageError`."""
    for name in ("against", "untrained", "correct", "embed") if isinstance(row, Unpaired) else ():
        if getattr(config, name):
            found = f"{row.id} is a single response with a label"
            raise UsageError(f"--{name}", "needs pairs", found, f"leave --{name} out")


def _refuse_flags(config: Config, head: str) -> None:
    """Refuse flags that have no effect on this kind of model."""
    if head == "policy" and config.untrained:
        raise UsageError("--untrained", f"{config.model} is a policy", "its reference is what it was before training")


def _correction(config: Config) -> Correction | None:
    """Build the length correction; what it is fitted on must be the same model's."""
    from headwater.evaluation.length_bias import CORRECTIONS, Regress

    if config.correct is None:
        return None
    correction: Correction = build(config.correct, CORRECTIONS, "correction")
    if isinstance(correction, Regress):
        correction.slope()  # refused here, before any work
        fitted_on = runs.load(Path(correction.on)).config.get("model")
        if fitted_on != config.model:
            raise UsageError(correction.on, f"holds the rewards of {fitted_on}", f"expected those of {config.model}")
    return correction


def _both_biases(
    before: Floats, after: Floats, lengths: Floats, conversation_ids: list[str], seed: int
) -> dict[str, dict[str, Any]]:
    """Return the figures of length bias before and after: a correction, or another way to train."""
    from headwater.evaluation.length_bias import bias

    one, other = (bias(rewards, lengths, conversation_ids, seed) for rewards in (before, after))
    return {name: {"before": one[name]._asdict(), "after": other[name]._asdict()} for name in one}


def _untrained(config: Config, task: _Task) -> Floats:
    """Return a reward model's rewards [pairs, 2] before it was trained: its base (or random) weights, a new head."""
    from headwater.models import loading

    fresh = loading.untrained(task.model.members[0], task.facts.get("base"), config.seed, task.facts.get("reward_head"))
    rewards: Floats = dataclasses.replace(task.model, members=[fresh]).rewards(task.pairs, config.tokens_per_pass)[0]
    return rewards


def _members(config: Config, by_member: Floats) -> dict[str, Floats]:
    """Return what every member of an ensemble won of the pairs alone."""
    from headwater.evaluation.comparison import wins

    names = [Path(member).name for member in runs.members_of(config.model)]
    return {name: wins(*rewards.T) for name, rewards in zip(names, by_member, strict=True)}


def _default_output(config: Config) -> Path:
    """Name the run after model and data: beside a local model, in the working directory otherwise."""
    model, data = Path(config.model), config.dataset.name.split(".")[0]
    name = f"{model.name}-on-{data}"
    return model.parent / name if model.is_dir() else Path(name)


def _refuse_embedding(config: Config) -> None:
    """Refuse a number of pairs that shows nothing, and a model that has no states of its own."""
    if config.embed is not None:
        embedding.check(config.embed)
        if len(members := runs.members_of(config.model)) > 1:
            raise UsageError(f"--embed {config.embed}", f"{config.model} is an ensemble", f"evaluate {members[0]}")


def _embedded(config: Config, task: _Task, pairs: list[PairTokens]) -> dict[str, Any]:
    """Lay out the responses of `pairs` by what the model holds of them at their last tokens."""
    from headwater.forward.format_check import row_format_for
    from headwater.forward.passes import last_states

    (model,) = task.model.members
    layout = row_format_for(model, pairs, config.tokens_per_pass)
    states = last_states(model, pairs, config.tokens_per_pass, layout)
    found = embedding.project(states.reshape(2 * len(pairs), -1).astype(np.float64), config.seed)
    of = f"last hidden states, {states.shape[-1]} numbers"
    return embedding.as_rows([pair.id for pair in pairs], found, of, config.seed)


def _records(task: _Task, columns: Mapping[str, NDArray[Any]]) -> list[dict[str, object]]:
    """Return a record a row, with `columns` [rows, 2] by name; None where a row has no such response."""
    records: list[dict[str, object]] = []
    for place, pair in enumerate(task.pairs):
        record: dict[str, object] = RowName.of(task.rows[place]).record() | {"source": pair.source}
        for name, values in columns.items():
            chosen, rejected = values[place].tolist()
            record[f"chosen_{name}"] = chosen if len(pair.chosen) else None
            record[f"rejected_{name}"] = rejected if len(pair.rejected) else None
        records.append(record)
    return records


def _print(found: _Found, config: Config) -> None:
    """Print the figures to standard output."""
    table = _table(f"{config.model} on {config.dataset}", "figure", "value")
    for name, estimate in found.metrics.items():
        table.add_row(name, *_cells(estimate))
    show(table)
    if found.diagnostics:
        counts, edges = np.histogram(found.rewards[:, 0] - found.rewards[:, 1], SPANS)
        show(f"margins {edges[0]:.4g} {sparkline(counts.tolist(), SPANS)} {edges[-1]:.4g}, pairs of each size")
        _print_diagnostics(found.diagnostics, config)


def _print_diagnostics(diagnostics: Mapping[str, Any], config: Config) -> None:
    """Print where the model is right, and how it does against others."""
    where = _table("where it is right", "pairs", "accuracy")
    for side, found in diagnostics["preferred_is"].items():
        where.add_row(f"preferred one {side.replace('_', ' ')}", *_cells(Estimate(**found)))
    for name, said in (("by_length_difference", "chosen longer by {} tokens"), ("by_margin", "|margin| {}")):
        for group in diagnostics[name]:
            span = f"{group['from']:.4g} to {group['to']:.4g}"
            where.add_row(said.format(span), *_cells(Estimate(*(group[field] for field in Estimate._fields))))
    show(where)
    error = Estimate(**diagnostics["calibration_error"])
    say(f"calibration error: {error.value:.4f} {error.interval()}, n = {error.n} (not corrected for chance)")
    for baseline in diagnostics["rivals"]:
        difference = Estimate(**baseline["difference"])
        say(
            f"against {baseline['name']} ({baseline['accuracy']:.4f}): "
            f"{difference.value:+.4f} {difference.interval()}; "
            f"right alone on {baseline['only_first']} pairs, wrong alone on {baseline['only_second']}, "
            f"McNemar p = {baseline['p_value']:.3g}"
        )
    if config.correct:
        _print_biases(config.correct, "before", "after", diagnostics["corrected"])
    for other in diagnostics["length_bias"]:
        _print_biases("length bias", other["name"], config.model, other["figures"])


def _print_biases(title: str, before: str, after: str, figures: Mapping[str, Any]) -> None:
    interval = f"{LEVEL:.0%} interval"
    table = Table("figure", before, interval, after, interval, title=title, title_justify="left")
    for name, found in figures.items():
        estimates = (Estimate(**found[when]) for when in ("before", "after"))
        table.add_row(name, *(cell for estimate in estimates for cell in _cells(estimate)[:2]))
    show(table)


def _table(title: str, first: str, value: str) -> Table:
    return Table(first, value, f"{LEVEL:.0%} interval", "n", title=title, title_justify="left")


def _cells(estimate: Estimate) -> tuple[str, str, str]:
    return f"{estimate.value:.4f}", estimate.interval(), str(estimate.n)
