"""Score preference pairs with a trained model: accuracy, rewards and margins, with intervals."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
import tyro
from rich.table import Table

from headwater import files, runs, statistics
from headwater.config import build
from headwater.console import say, say_notes, say_stages, show, sparkline
from headwater.data import embedding, reading
from headwater.data.preference import Preference
from headwater.data.preparation import Ledger, prepare
from headwater.data.reading import Door, Loaded
from headwater.data.splitting import unseen
from headwater.data.tokens import PairTokens
from headwater.data.view import ViewOptions, facts_of
from headwater.engine.options import TOKENS_PER_PASS
from headwater.errors import UsageError
from headwater.statistics import LEVEL, Estimate, Floats

if TYPE_CHECKING:
    from headwater.engine.losses import Call
    from headwater.judging.length_bias import Correction

EXAMPLE = "headwater evaluate --model runs/reward --dataset pairs.jsonl --output runs/reward-eval"

SPANS = 24
"""Bars of the margins on the terminal."""


@dataclass(frozen=True)
class Config:
    """Flags of `headwater evaluate`."""

    model: Annotated[str, tyro.conf.arg(aliases=["--model-name-or-path"])]
    """Training run, path or Hugging Face name; a reward model, an ensemble of them (its members' mean, compared with
    each), or a policy with its reference (implicit reward)."""
    dataset: Annotated[Path, tyro.conf.arg(aliases=["--data"])]
    """Preference file or run directory; pairs whose opening the model was trained on are left out and counted."""
    output: Annotated[Path | None, tyro.conf.arg(aliases=["--output-dir"])] = None
    """Directory of the run. Default: MODEL-on-DATASET beside a training run, ./DATASET-evaluation otherwise."""
    reference: str | None = None
    """Reference model of a policy. Default: the one its training run names; a run of simpo, orpo, cpo or slic has none,
    and its rewards are those of its loss."""
    beta: float | None = None
    """Scale of a policy's implicit reward β (log π − log π_ref). [0.1]"""
    weights: str | None = None
    """How much each token counts in it: first(tokens=…), decay(gamma=…), tail(alpha=…), mean(), … [uniform()]"""
    correct: str | None = None
    """Take length out of rewards: "divide(alpha=100)", r / (α + tokens); or "regress(on='RUN')", r − b · tokens, with b
    from a run of evaluate on the training pairs (--allow-leakage). Shown before and after."""
    against: tuple[Path, ...] = ()
    """Runs of evaluate on the same pairs: accuracy is compared by a paired bootstrap and McNemar's test, and the length
    bias of both is shown."""
    untrained: bool = False
    """Compare a reward model also with itself before training: the weights it started from, and a new head."""
    embed: int | None = None
    """Also lay out the responses of this many pairs by PCA and t-SNE of the model's last hidden states, for the report.
    """
    tokens_per_pass: int = TOKENS_PER_PASS
    """Tokens that are computed at once; figures do not depend on it."""
    allow_leakage: bool = False
    """Score also pairs whose opening the model was trained on."""
    seed: int = 42
    """Seeds the bootstrap; draws the pairs of --embed, and seeds t-SNE."""
    overwrite: bool = False
    """Replace an earlier run at --output."""
    door: Annotated[Door, tyro.conf.OmitArgPrefixes] = field(default_factory=Door)
    view: Annotated[ViewOptions, tyro.conf.OmitArgPrefixes] = field(default_factory=ViewOptions)


def run(config: Config) -> Path:
    """Score the pairs, print the tables and return the run directory."""
    from headwater.judging.comparison import summarise_rewards, wins
    from headwater.judging.scrutiny import FILE, Judged, scrutinise

    output = config.output or _default_output(config)
    runs.check_free(output, config.overwrite)
    _refuse_embedding(config)
    others = [_Other.load(path) for path in config.against]
    task = _task(config)
    laid_out = embedding.drawn(task.pairs, config.embed, config.seed) if config.embed is not None else []
    compared = {other.name: other.of(task.pairs) for other in others}
    rivals = {name: wins(*theirs.T) for name, theirs in compared.items()}
    writer = runs.start(output, "evaluate", config, inputs=task.loaded.files, facts=task.facts)
    by_member, lengths = _rewards(config, task), _lengths(task.pairs)
    plain: Floats = by_member.mean(axis=0)
    rewards = task.correction(plain, lengths) if task.correction else plain
    untrained = _untrained(config, task) if config.untrained else None
    if untrained is not None:
        rivals["untrained"] = wins(*untrained.T)
    openings = [pair.opening for pair in task.pairs]
    metrics = summarise_rewards(rewards, lengths, openings, config.seed)
    spread: Floats | None = by_member.std(axis=0, ddof=1) if len(by_member) > 1 else None
    if spread is not None:
        rivals |= _members(config, by_member)
        metrics["ensemble_std"] = statistics.mean(spread.T.reshape(-1), [*openings, *openings], config.seed)
    scrutiny = scrutinise(Judged(task.preferences, rewards, lengths), rivals, config.seed)
    if task.correction:
        scrutiny["corrected"] = _both_biases(plain, rewards, lengths, openings, config.seed)
    scrutiny["length_bias"] = [
        {"name": name, "figures": _both_biases(theirs, rewards, lengths, openings, config.seed)}
        for name, theirs in compared.items()
    ]
    writer.count_stages(task.ledger.stages)
    task.loaded.quarantine.save(writer.path / reading.QUARANTINE)
    writer.write_metrics(metrics)
    files.write_json(writer.path / FILE, scrutiny)
    writer.write_records(_records(task.pairs, rewards, {"std": spread, "untrained": untrained}))
    if laid_out:
        files.write_json(writer.path / embedding.FILE, _embedded(config, task, [task.pairs[i] for i in laid_out]))
    _print(metrics, scrutiny, rewards[:, 0] - rewards[:, 1], config)
    return writer.finish()


@dataclass(frozen=True)
class _Task:
    """What is to be judged, and by what: everything that can be refused has been."""

    models: list[Any]
    """One, or the members of an ensemble."""
    reference: Any
    """None for a reward model."""
    pairs: list[PairTokens]
    preferences: list[Preference]
    """The texts of `pairs`."""
    correction: Correction | None
    loaded: Loaded[Preference]
    ledger: Ledger
    facts: dict[str, Any]
    rule: Call
    """The loss whose rewards are reported."""


def _task(config: Config) -> _Task:
    """Load model and data, and leave out what the model was trained on."""
    from headwater.engine import models

    facts = runs.facts_of(Path(config.model))
    view = config.view.view(config.seed, facts.get("end", "complete"))
    head = models.head_of(runs.members_of(config.model)[0])
    _refuse_flags(config, head)
    correction = _correction(config)
    loaded = reading.load(config.dataset, config.door)
    say(f"data: {loaded.path} · {loaded.layout}")
    ledger = Ledger({"read": loaded.account})
    preferences = loaded.preferences
    if not config.allow_leakage:
        preferences, ledger.stages["leakage"] = unseen(preferences, runs.trained_on(Path(config.model)))
    members = models.load_members(config.model, head, preferences, config.seed)
    tokenizer = members[0].tokenizer
    models.check_conditions(config.model, (preference.condition for preference in preferences))
    pairs = prepare("evaluated pairs", preferences, view, tokenizer, ledger)
    say_stages(ledger.stages)
    say_notes(ledger.notes)
    rule, reference = _rule(config, head, facts), None
    if rule.needs_reference:
        reference = models.reference_of(config.model, config.reference, tokenizer, config.seed)
    facts.pop("members", None)  # theirs is the model's run, not this one
    facts |= {f"evaluated_{name}": value for name, value in facts_of(view, {}).items()}
    facts.setdefault("kind", "reward model" if head == "reward" else "policy")
    facts |= {"correction": config.correct} if config.correct else {}
    by_id = {preference.id: preference for preference in preferences}
    texts = [by_id[pair.id] for pair in pairs]
    return _Task([member.model for member in members], reference, pairs, texts, correction, loaded, ledger, facts, rule)


def _rule(config: Config, head: str, facts: Mapping[str, Any]) -> Call:
    """Return the loss whose rewards are reported: a policy's implicit ones, or its own loss's without a reference."""
    from headwater.engine.losses import DPO, POLICY_LOSSES, BradleyTerry

    if head == "reward":
        return BradleyTerry()
    own = POLICY_LOSSES.get(str(facts.get("kind")))
    if own is None or own.needs_reference or config.reference is not None or config.beta is not None:
        return DPO(0.1 if config.beta is None else config.beta)
    rule: Call = build(runs.load(Path(config.model)).config["loss"], POLICY_LOSSES, "loss")
    say(f"rewards: those of {rule!r}, by which {config.model} was trained without a reference")
    return rule


def _refuse_flags(config: Config, head: str) -> None:
    """Refuse flags that have no effect on this kind of model."""
    if head == "reward":
        _refuse_policy_flags(config)
    elif config.untrained:
        raise UsageError("--untrained", f"{config.model} is a policy", "its reference is what it was before training")


def _correction(config: Config) -> Correction | None:
    """Build the length correction; what it is fitted on must be the same model's."""
    from headwater.judging.length_bias import CORRECTIONS, Regress

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
    before: Floats, after: Floats, lengths: Floats, openings: list[str], seed: int
) -> dict[str, dict[str, Any]]:
    """Return the figures of length bias before and after: a correction, or another way to train."""
    from headwater.judging.length_bias import bias

    one, other = (bias(rewards, lengths, openings, seed) for rewards in (before, after))
    return {name: {"before": one[name]._asdict(), "after": other[name]._asdict()} for name in one}


@dataclass(frozen=True)
class _Other:
    """What another model made of pairs, as its run recorded it."""

    name: str
    rewards: dict[tuple[str, str], tuple[float, float]]
    """By id and opening: rows of another file may bear the same ids."""

    @classmethod
    def load(cls, path: Path) -> _Other:
        """Read a run. Errors: `UsageError` for one that recorded no pairs."""
        run = runs.load(path)
        if run.command != "evaluate" or not run.records():
            raise UsageError(f"--against {path}", "recorded no rewards of pairs", "name a run of evaluate")
        rows = {(row["id"], row["opening"]): (row["chosen_reward"], row["rejected_reward"]) for row in run.records()}
        return cls(str(path), rows)

    def of(self, pairs: list[PairTokens]) -> Floats:
        """Return its rewards of `pairs`, [pairs, 2]. Errors: `UsageError` where it did not judge all of them."""
        missing = [pair.id for pair in pairs if (pair.id, pair.opening) not in self.rewards]
        if missing:
            raise UsageError(
                f"--against {self.name}",
                f"did not judge {len(missing)} of {len(pairs)} pairs, {missing[0]} the first",
                "evaluate both on the same data, with the same flags and, where trainings differ, --allow-leakage",
            )
        return np.array([self.rewards[pair.id, pair.opening] for pair in pairs], dtype=np.float64)


def _untrained(config: Config, task: _Task) -> Floats:
    """Return a reward model's rewards [pairs, 2] before it was trained: its base (or random) weights, a new head."""
    from headwater.engine import models

    fresh = models.untrained(task.models[0], task.facts.get("base"), config.seed)
    rewards: Floats = _rewards(config, dataclasses.replace(task, models=[fresh]))[0]
    return rewards


def _members(config: Config, by_member: Floats) -> dict[str, Floats]:
    """Return what every member of an ensemble won of the pairs alone."""
    from headwater.judging.comparison import wins

    names = [Path(member).name for member in runs.members_of(config.model)]
    return {name: wins(*rewards.T) for name, rewards in zip(names, by_member, strict=True)}


def _refuse_policy_flags(config: Config) -> None:
    """Refuse flags of the implicit reward for a reward model, which has none."""
    for name in ("reference", "beta", "weights"):
        if getattr(config, name) is not None:
            raise UsageError(f"--{name}", f"{config.model} is a reward model", f"leave --{name} out")


def _default_output(config: Config) -> Path:
    """Name the run after model and data: beside a local model, in the working directory otherwise."""
    model, data = Path(config.model), config.dataset.name.split(".")[0]
    name = f"{model.name}-on-{data}"
    return model.parent / name if model.is_dir() else Path(name)


def _rewards(config: Config, task: _Task) -> Floats:
    """Return rewards [models, pairs, 2]: of reward models, or of a policy by its rule."""
    from headwater.engine.attention import layout_for
    from headwater.engine.scoring import (
        exact_policy_scores,
        response_values,
        reward_scores,
        score_pairs,
        with_reference,
    )
    from headwater.engine.weights import WEIGHTS

    pairs, room = task.pairs, config.tokens_per_pass
    score = reward_scores if task.rule.name == "bradley_terry" else exact_policy_scores
    layouts = [layout_for(model, pairs, response_values(score)) for model in task.models]
    if task.reference is not None:
        layout = layout_for(task.reference, pairs, response_values(score))
        pairs = with_reference(task.reference, pairs, room, layout)
    weights = build(config.weights or "uniform()", WEIGHTS, "weights")
    columns = zip(task.models, layouts, strict=True)
    return np.stack([score_pairs(each, score, task.rule, pairs, room, how, weights) for each, how in columns])


def _refuse_embedding(config: Config) -> None:
    """Refuse a number of pairs that shows nothing, and a model that has no states of its own."""
    if config.embed is not None:
        embedding.check(config.embed)
        if len(members := runs.members_of(config.model)) > 1:
            raise UsageError(f"--embed {config.embed}", f"{config.model} is an ensemble", f"evaluate {members[0]}")


def _embedded(config: Config, task: _Task, pairs: list[PairTokens]) -> dict[str, Any]:
    """Lay out the responses of `pairs` by what the model holds of them at their last tokens."""
    from headwater.engine.attention import attend_with
    from headwater.engine.scoring import last_states

    (model,) = task.models
    attend_with(model, "eager")  # separate forwards, which every model can: these are few pairs
    states = last_states(model, pairs, config.tokens_per_pass, "padded")
    found = embedding.project(states.reshape(2 * len(pairs), -1).astype(np.float64), config.seed)
    of = f"last hidden states, {states.shape[-1]} numbers"
    return embedding.as_rows([pair.id for pair in pairs], found, of, config.seed)


def _lengths(pairs: list[PairTokens]) -> Floats:
    return np.array([[len(pair.chosen), len(pair.rejected)] for pair in pairs], dtype=np.float64)


def _records(pairs: list[PairTokens], rewards: Floats, more: Mapping[str, Floats | None]) -> list[dict[str, object]]:
    """Return a row a pair; `more` [pairs, 2] by name: deviation of an ensemble's members, rewards before training."""
    records: list[dict[str, object]] = [
        {
            "id": pair.id,
            "source": pair.source,
            "opening": pair.opening,
            "chosen_reward": float(chosen),
            "rejected_reward": float(rejected),
            "chosen_tokens": len(pair.chosen),
            "rejected_tokens": len(pair.rejected),
        }
        for pair, (chosen, rejected) in zip(pairs, rewards, strict=True)
    ]
    for name, values in more.items():
        for record, (chosen, rejected) in zip(records, () if values is None else values, strict=values is not None):
            record |= {f"chosen_reward_{name}": float(chosen), f"rejected_reward_{name}": float(rejected)}
    return records


def _print(metrics: dict[str, Estimate], scrutiny: Mapping[str, Any], margins: Floats, config: Config) -> None:
    """Print the figures to standard output: the model's, where it is right, and against others."""
    table = _table(f"{config.model} on {config.dataset}", "figure", "value")
    for name, estimate in metrics.items():
        table.add_row(name, *_cells(estimate))
    show(table)
    counts, edges = np.histogram(margins, SPANS)
    show(f"margins {edges[0]:.4g} {sparkline(counts.tolist(), SPANS)} {edges[-1]:.4g}, pairs of each size")
    where = _table("where it is right", "pairs", "accuracy")
    for side, found in scrutiny["preferred_is"].items():
        where.add_row(f"preferred one {side.replace('_', ' ')}", *_cells(Estimate(**found)))
    for name, said in (("by_length_difference", "chosen longer by {} tokens"), ("by_margin", "|margin| {}")):
        for group in scrutiny[name]:
            span = f"{group['from']:.4g} to {group['to']:.4g}"
            where.add_row(said.format(span), *_cells(Estimate(*(group[field] for field in Estimate._fields))))
    show(where)
    error = Estimate(**scrutiny["calibration_error"])
    say(f"calibration error: {error.value:.4f} {error.interval()}, n = {error.n} (not corrected for chance)")
    for rival in scrutiny["rivals"]:
        difference = Estimate(**rival["difference"])
        say(
            f"against {rival['name']} ({rival['accuracy']:.4f}): {difference.value:+.4f} {difference.interval()}; "
            f"right alone on {rival['only_first']} pairs, wrong alone on {rival['only_second']}, "
            f"McNemar p = {rival['p_value']:.3g}"
        )
    if config.correct:
        _print_biases(config.correct, "before", "after", scrutiny["corrected"])
    for other in scrutiny["length_bias"]:
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
