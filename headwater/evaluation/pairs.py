"""Evaluation of a saved model on preference pairs, or on labelled responses.

    found = evaluate("runs/reward", reading.load("pairs.jsonl").preferences)
    found.figures.accuracy            # Estimate(value=…, low=…, high=…, n=…, clusters=…)
    found.records.to_pandas()         # rewards and lengths, a row a pair

The model is a reward model, an ensemble of them (the mean of its members' rewards), or a policy with its reference
(implicit reward). `evaluate` is `prepare`, which loads the model, encodes the rows and refuses what cannot work, and
`score`, which computes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from headwater import statistics
from headwater.console import say
from headwater.data import embedding
from headwater.data.preference import Example, Preference, Unpaired
from headwater.data.preparation import PrepLog
from headwater.data.preparation import prepare as encode
from headwater.data.recorded import RowName
from headwater.data.splitting import unseen
from headwater.data.tokens import TOKENS_PER_PASS, PairTokens
from headwater.data.truncation_options import TruncationOptions, facts_of
from headwater.errors import UsageError
from headwater.evaluation import noise
from headwater.evaluation.baselines import Baseline
from headwater.evaluation.comparison import summarise_rewards, wins
from headwater.evaluation.diagnostics import ScoredPairs, diagnose
from headwater.evaluation.labels import summarise_labels
from headwater.evaluation.length_bias import Correction, Regress, compare_biases
from headwater.forward.format_check import row_format_for
from headwater.forward.packing import UNIFORM
from headwater.forward.passes import last_states
from headwater.losses.token_weights import Weights
from headwater.models import loading, positions
from headwater.models.turn_ends import end_rule, say_place
from headwater.results import runs
from headwater.results.embedding import Embedding
from headwater.results.evaluation import (
    BeforeAfter,
    Diagnostics,
    EvaluationFigures,
    LengthBiasComparison,
    RewardNoise,
    ScoredRow,
    ScoredRows,
)
from headwater.results.facts import Facts, of_evaluation
from headwater.results.runs import RunWriter
from headwater.rewards import reward_models
from headwater.rewards.reward_models import Rewarding
from headwater.statistics import Estimate, Floats
from headwater.training import labels


@dataclass(frozen=True)
class EvaluationOptions:
    """How a model is evaluated."""

    reference: str | None = None
    """Reference model of a policy; None: the one that its training run names."""
    reward_head: int | None = None
    """Index of the reward among the outputs of a reward model with several."""
    beta: float | None = None
    """Scale of a policy's implicit reward; None: 0.1, or that of its reference-free loss."""
    weights: Weights | None = None
    """Weight of each token in a policy's implicit reward; None: 1."""
    correction: Correction | None = None
    """Length correction of the rewards of pairs."""
    against: tuple[Path, ...] = ()
    """Evaluate runs on the same pairs, to compare with."""
    untrained: bool = False
    """Whether a reward model is also compared with its weights before training."""
    embed: int | None = None
    """Number of pairs whose responses are embedded by the model's last hidden states."""
    tokens_per_pass: int = TOKENS_PER_PASS
    allow_leakage: bool = False
    """Whether rows whose conversation the model was trained on are kept."""
    seed: int = 42
    truncation: TruncationOptions = field(default_factory=TruncationOptions)

    def check(self, model: str) -> None:
        """Refuse options that have no effect on this kind of model. Errors: `UsageError`."""
        members = runs.members_of(model)
        if self.embed is not None:
            embedding.check(self.embed)
            if len(members) > 1:
                raise UsageError(f"--embed {self.embed}", f"{model} is an ensemble", f"evaluate {members[0]}")
        head = loading.head_of(members[0])
        if head == "policy" and self.untrained:
            raise UsageError("--untrained", f"{model} is a policy", "its reference is what it was before training")
        own = {"reference": self.reference, "beta": self.beta, "weights": self.weights}
        reward_models.refuse_flags(model, head, **own)
        if isinstance(self.correction, Regress):
            self.correction.check(model)

    def check_row(self, row: Example) -> None:
        """Refuse options that compare the responses of pairs where rows have one response. Errors: `UsageError`."""
        given = {
            "against": self.against,
            "untrained": self.untrained,
            "correct": self.correction,
            "embed": self.embed,
        }
        for name, value in given.items() if isinstance(row, Unpaired) else ():
            if value:
                found = f"{row.id} is a single response with a label"
                raise UsageError(f"--{name}", "needs pairs", found, f"leave --{name} out")


@dataclass(frozen=True)
class Evaluation:
    """Rewards of a model on rows, and their figures."""

    figures: EvaluationFigures
    records: ScoredRows
    diagnostics: Diagnostics | None = None
    """None for labelled responses."""
    embedding: Embedding | None = None

    def write(self, run: RunWriter) -> None:
        """Store every part in its own file of the run."""
        for part in (self.figures, self.records, self.diagnostics, self.embedding):
            if part is not None:
                run.write(part)

    @classmethod
    def read(cls, run: Path | str) -> Self:
        """Read the evaluation of a run directory. Errors: `UsageError` where the run holds none."""
        found = EvaluationFigures.read(run), ScoredRows.read(run), Diagnostics.find(run), Embedding.find(run)
        return cls(*found)

    def to_pandas(self) -> Any:
        """Return the records as a data frame, a row a pair. Errors: `UsageError` where pandas is not installed."""
        return self.records.to_pandas()

    def _repr_html_(self) -> str:
        return self.figures._repr_html_()


@dataclass(frozen=True)
class EncodedRows:
    """A loaded model with the rows that it is to score; everything that can be refused has been."""

    name: str
    model: Rewarding
    pairs: list[PairTokens]
    rows: list[Preference | Unpaired]
    """The texts of `pairs`."""
    options: EvaluationOptions
    baselines: Mapping[str, Floats]
    """Rewards of other models on the same pairs, [pairs, 2] each."""
    embedded: list[int]
    """Places of the pairs that are embedded."""
    prep_log: PrepLog
    facts: Facts

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
        """Scored tokens of the responses, [rows, 2]; 0 where a row has no such response."""
        return np.array([pair.scored for pair in self.pairs], dtype=np.float64)


def evaluate(model: str, rows: Sequence[Preference | Unpaired], options: EvaluationOptions | None = None) -> Evaluation:
    """Score rows with a saved model and return figures with intervals, records and diagnostics.

    `model` is a training run, a path or a Hugging Face name. Rows whose conversation the model was trained on are left
    out unless `options.allow_leakage`. Errors: `UsageError` for options that do not fit the model or the rows,
    `DataError` where no row is left.
    """
    return score(prepare(model, rows, options or EvaluationOptions()))


def prepare(
    model: str, rows: Sequence[Preference | Unpaired], options: EvaluationOptions, prep_log: PrepLog | None = None
) -> EncodedRows:
    """Load the model and encode the rows for it, without those that it was trained on.

    Row counts of every stage are added to `prep_log`. Errors: as for `evaluate`.
    """
    prep_log = PrepLog() if prep_log is None else prep_log
    options.check(model)
    others = [Baseline.load(path) for path in options.against]
    facts = runs.facts_of(Path(model))
    truncation = options.truncation
    encode_options = truncation.encode_options(options.seed, truncation.end or end_rule(model))
    labels.check_reading(rows[0], options.weights or UNIFORM, encode_options.truncation)
    options.check_row(rows[0])
    part = "evaluated responses" if isinstance(rows[0], Unpaired) else "evaluated pairs"
    if not options.allow_leakage:
        rows, prep_log.stages["leakage"] = unseen(rows, runs.trained_on(Path(model)))
    loaded = reward_models.load(model, options.reference, options.beta, rows, options.seed, options.reward_head)
    loading.check_conditions(model, (row.condition for row in rows))
    encode_options = positions.fitted(encode_options, *loaded.models)
    if loading.head_of(runs.members_of(model)[0]) == "reward":
        say_place(loaded.tokenizer, encode_options.end)
    pairs = encode(part, rows, encode_options, loaded.tokenizer, prep_log)
    scored = [rows[pair.row] for pair in pairs]
    facts.pop("members", None)  # those of the model's own run
    facts |= of_evaluation(facts_of(encode_options, {}))
    if runs.is_untrained(model):
        facts["kind"] = f"{facts.get('kind', 'reward model')}, untrained"
    facts.setdefault("kind", "policy" if loading.head_of(runs.members_of(model)[0]) == "policy" else "reward model")
    return EncodedRows(
        name=model,
        model=loaded,
        pairs=pairs,
        rows=scored,
        options=options,
        baselines={other.name: other.of(scored) for other in others},
        embedded=[] if options.embed is None else embedding.drawn(pairs, options.embed, options.seed),
        prep_log=prep_log,
        facts=facts,
    )


def score(encoded: EncodedRows) -> Evaluation:
    """Score encoded rows and return their evaluation."""
    options = encoded.options
    by_member, found_noise = _rewards(encoded, encoded.model, options.weights or UNIFORM)
    columns: dict[str, NDArray[Any]] = {}
    diagnostics = None
    if encoded.labelled:
        rewards: Floats = by_member.mean(axis=0)
        figures = _figures_of_labels(encoded, rewards)
    else:
        before = _untrained(encoded) if options.untrained else None
        rewards, figures, diagnostics = _figures_of_pairs(encoded, by_member, before)
        diagnostics = dataclasses.replace(diagnostics, noise=found_noise)
        columns |= {} if before is None else {"reward_untrained": before}
    if len(by_member) > 1:
        spread: Floats = by_member.std(axis=0, ddof=1)
        columns["reward_std"] = spread
        figures = dataclasses.replace(figures, ensemble_std=_mean_of_responses(encoded, spread))
    columns |= {"reward": rewards, "tokens": encoded.lengths.astype(np.int64)}
    return Evaluation(figures, _records(encoded, columns), diagnostics, _embedding(encoded))


def _rewards(encoded: EncodedRows, model: Rewarding, weights: Weights) -> tuple[Floats, RewardNoise | None]:
    """Return rewards [members, rows, 2], in which pairs closer than the noise of the model are ties, and the noise."""
    tokens = encoded.options.tokens_per_pass
    rewards = model.rewards(encoded.pairs, tokens, weights)
    if encoded.labelled:
        return rewards, None

    def again(places: list[int]) -> Floats:
        found = model.rewards([encoded.pairs[place] for place in places], tokens, weights, from_stored=False)
        # Of an ensemble, the member that changes most.
        changes = found - rewards[:, places]
        worst = np.abs(changes[..., 0] - changes[..., 1]).max(axis=0)
        return np.asarray(margins[places] + worst)

    margins = rewards[..., 0].mean(axis=0) - rewards[..., 1].mean(axis=0)
    found = noise.measured(margins, again, range(len(margins)))
    return np.stack([noise.with_ties(each, found.largest) for each in rewards]), found


def _figures_of_pairs(
    encoded: EncodedRows, by_member: Floats, before: Floats | None
) -> tuple[Floats, EvaluationFigures, Diagnostics]:
    """Return corrected rewards [pairs, 2], their figures and diagnostics, from rewards [members, pairs, 2].

    `before` are the rewards before training, [pairs, 2].
    """
    options, lengths, conversation_ids = encoded.options, encoded.lengths, encoded.conversation_ids
    plain: Floats = by_member.mean(axis=0)
    rewards = options.correction(plain, lengths) if options.correction else plain
    baselines = {name: wins(*theirs.T) for name, theirs in encoded.baselines.items()}
    if before is not None:
        baselines["untrained"] = wins(*before.T)
    if len(by_member) > 1:
        members = (Path(member).name for member in runs.members_of(encoded.name))
        baselines |= {name: wins(*theirs.T) for name, theirs in zip(members, by_member, strict=True)}
    pairs = [row for row in encoded.rows if isinstance(row, Preference)]
    figures = summarise_rewards(rewards, lengths, conversation_ids, options.seed)
    if before is not None:
        own = summarise_rewards(before, lengths, conversation_ids, options.seed)
        figures = dataclasses.replace(
            figures, untrained_reward_mean=own.reward_mean, untrained_reward_std=own.reward_std
        )
    diagnostics = diagnose(ScoredPairs(pairs, rewards, lengths), baselines, options.seed)

    def biases(before: Floats) -> dict[str, BeforeAfter]:
        return compare_biases(before, rewards, lengths, conversation_ids, options.seed)

    compared = tuple(LengthBiasComparison(name, biases(theirs)) for name, theirs in encoded.baselines.items())
    corrected = biases(plain) if options.correction else None
    return rewards, figures, dataclasses.replace(diagnostics, corrected=corrected, length_bias=compared)


def _figures_of_labels(encoded: EncodedRows, rewards: Floats) -> EvaluationFigures:
    """Return the figures of labelled responses, from rewards [rows, 2]."""
    desirable = encoded.lengths[:, 0] > 0
    own: Floats = np.where(desirable, rewards[:, 0], rewards[:, 1])
    lengths, conversation_ids = encoded.lengths.sum(axis=1), encoded.conversation_ids
    figures = summarise_labels(own, desirable, lengths, conversation_ids, encoded.options.seed)
    if figures.auc is None:
        label = "desirable" if desirable.any() else "undesirable"
        say(f"all responses are {label}: there is no AUC")
    return figures


def _mean_of_responses(encoded: EncodedRows, values: Floats) -> Estimate:
    """Return the mean of `values` [rows, 2] over the responses that rows have."""
    present = (encoded.lengths > 0).T.reshape(-1)
    twice = encoded.conversation_ids * 2
    conversation_ids = [one for one, there in zip(twice, present.tolist(), strict=True) if there]
    return statistics.mean(values.T.reshape(-1)[present], conversation_ids, encoded.options.seed)


def _untrained(encoded: EncodedRows) -> Floats:
    """Return a reward model's rewards [pairs, 2] before it was trained: its base (or random) weights, a new head."""
    facts, options = encoded.facts, encoded.options
    fresh = loading.untrained(encoded.model.members[0], facts.get("base"), options.seed, facts.get("reward_head"))
    untrained = dataclasses.replace(encoded.model, members=[fresh])
    rewards, _ = _rewards(encoded, untrained, UNIFORM)
    first: Floats = rewards[0]
    return first


def _embedding(encoded: EncodedRows) -> Embedding | None:
    """Embed responses by the model's last hidden states at their last tokens; None where no pair was asked for."""
    if not encoded.embedded:
        return None
    (model,), options = encoded.model.members, encoded.options
    pairs = [encoded.pairs[place] for place in encoded.embedded]
    row_format = row_format_for(model, pairs, options.tokens_per_pass)
    states = last_states(model, pairs, options.tokens_per_pass, row_format)
    points = embedding.project(states.reshape(2 * len(pairs), -1).astype(np.float64), options.seed)
    of = f"last hidden states, {states.shape[-1]} numbers"
    return Embedding.of_pairs([pair.id for pair in pairs], points, of, options.seed)


def _records(encoded: EncodedRows, columns: Mapping[str, NDArray[Any]]) -> ScoredRows:
    """Return a record a row, from `columns` [rows, 2] by name."""
    records = []
    for place, (row, pair) in enumerate(zip(encoded.rows, encoded.pairs, strict=True)):
        sides = {"chosen": len(pair.chosen), "rejected": len(pair.rejected)}
        values: dict[str, Any] = {
            f"{side}_{name}": column[place, number].item() if length else None
            for name, column in columns.items()
            for number, (side, length) in enumerate(sides.items())
        }
        records.append(ScoredRow(**RowName.of(row)._asdict(), source=pair.source, **values))
    return ScoredRows(tuple(records))
