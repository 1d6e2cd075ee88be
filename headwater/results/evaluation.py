"""Results of `evaluate`: figures (metrics.json), one record a row (records.parquet), diagnostics (diagnostics.json)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from headwater.noninferiority import MARGIN, Comparison
from headwater.results.stored import StoredResult
from headwater.statistics import Estimate, Floats


class LengthRule(NamedTuple):
    """The rule that looks at length alone, in the direction that is right more often."""

    wins: Literal["longer", "shorter"]
    """Which response it prefers."""
    accuracy: Estimate


def better_rule(longer: Estimate) -> LengthRule:
    """Return the better of "the longer one wins", whose accuracy is `longer`, and "the shorter one wins"."""
    if not longer.value < 0.5:  # NaN too, which has no direction
        return LengthRule("longer", longer)
    low, high = (None if end is None else 1 - end for end in (longer.high, longer.low))
    return LengthRule("shorter", longer._replace(value=1 - longer.value, low=low, high=high))


@dataclass(frozen=True)
class EvaluationFigures(StoredResult):
    """Figures of rewards on pairs, or on labelled responses; each is None where the rows cannot tell it.

    All are estimates with 95 % intervals over conversations. A tie, in rewards or in lengths, counts ½.
    """

    FILE: ClassVar[str] = "metrics.json"

    accuracy: Estimate | None = None
    """Share of pairs whose chosen response has the higher reward."""
    length_accuracy: Estimate | None = None
    """Accuracy of always preferring the longer response; `length_rule` is the better direction."""
    length_gain: Estimate | None = None
    """Accuracy of the model less that of `length_rule`, pair by pair."""
    length_correlation: Estimate | None = None
    """Pearson's correlation of reward and length within pairs."""
    margin_mean: Estimate | None = None
    """Mean reward of the chosen response less that of the rejected one."""
    auc: Estimate | None = None
    """Share of (desirable, undesirable) responses in which the desirable one has the higher reward."""
    length_auc: Estimate | None = None
    """The same for taking the longer response; `length_auc_rule` is the better direction."""
    reward_difference: Estimate | None = None
    """Mean reward of desirable responses less that of undesirable ones."""
    reward_mean: Estimate | None = None
    reward_std: Estimate | None = None
    """Standard deviation over all responses (ddof = 1)."""
    untrained_reward_mean: Estimate | None = None
    """The same two of the model before its training, with `--untrained`."""
    untrained_reward_std: Estimate | None = None
    chosen_reward_mean: Estimate | None = None
    rejected_reward_mean: Estimate | None = None
    brier: Estimate | None = None
    """Mean of (1 − σ(margin))²."""
    desirable_reward_mean: Estimate | None = None
    undesirable_reward_mean: Estimate | None = None
    ensemble_std: Estimate | None = None
    """Mean over responses of the standard deviation over the members of an ensemble (ddof = 1)."""

    @property
    def length_rule(self) -> LengthRule | None:
        """Accuracy of length alone on pairs, in the direction that is right more often."""
        return better_rule(self.length_accuracy) if self.length_accuracy else None

    @property
    def length_auc_rule(self) -> LengthRule | None:
        """AUC of length alone on labelled responses, in the direction that is right more often."""
        return better_rule(self.length_auc) if self.length_auc else None

    def known(self) -> dict[str, Estimate]:
        """Return the figures that are not None, by name."""
        return {name: value for name, value in vars(self).items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class ScoredRow:
    """Rewards and lengths of one pair; of a labelled response, one side is None throughout."""

    id: str = ""
    conversation_id: str | None = None
    """Hash of the first user turn; the cluster of the bootstrap."""
    key: str | None = None
    """Hash of the row's texts, by which the row is found in other runs."""
    altered: bool = False
    """Whether the row's texts may differ elsewhere: a response was truncated, or the row has a condition."""
    source: str = ""
    chosen_reward: float | None
    rejected_reward: float | None
    chosen_tokens: int | None = None
    rejected_tokens: int | None = None
    chosen_reward_std: float | None = None
    """Standard deviation over the members of an ensemble (ddof = 1)."""
    rejected_reward_std: float | None = None
    chosen_reward_untrained: float | None = None
    """Reward of the model before its training."""
    rejected_reward_untrained: float | None = None


ScoredColumn = Literal["reward", "tokens", "reward_std", "reward_untrained"]


@dataclass(frozen=True)
class ScoredRows(StoredResult):
    """The rewards of all rows, in the order of the data."""

    FILE: ClassVar[str] = "records.parquet"

    records: tuple[ScoredRow, ...]

    def sides(self, what: ScoredColumn) -> Floats:
        """Return a column of the chosen and the rejected responses, [rows, 2]; NaN where there is no value."""
        rows = [(getattr(row, f"chosen_{what}"), getattr(row, f"rejected_{what}")) for row in self.records]
        return np.array(rows, dtype=np.float64).reshape(-1, 2)  # None becomes NaN

    def margins(self) -> Floats:
        """Return the reward of the chosen response less that of the rejected one, [pairs]."""
        rewards = self.sides("reward")
        margins: Floats = rewards[:, 0] - rewards[:, 1]
        return margins[np.isfinite(margins)]

    @classmethod
    def migrate(cls, stored: Any) -> Any:
        """Headwater 0.1 called the conversation id `opening`."""
        return [{"conversation_id" if key == "opening" else key: row[key] for key in row} for row in stored]


class Group(NamedTuple):
    """Pairs whose value lies in [low, high], and the accuracy on them."""

    low: float
    high: float
    accuracy: Estimate


class Bin(NamedTuple):
    """Pairs of like confidence: their mean confidence, and how often the verdict was right (ties count ½)."""

    confidence: float
    accuracy: Estimate


class BaselineComparison(NamedTuple):
    """The model against another one on the same pairs."""

    name: str
    accuracy: float
    """Accuracy of the other model."""
    difference: Estimate
    """Accuracy of the model less that of the other one; the bootstrap is paired (`noninferiority.paired`)."""
    only_first: int
    """Pairs on which the model does better than the other one."""
    only_second: int
    p_value: float
    """McNemar's exact test of whether these two counts differ (Psychometrika 12, 1947); it takes pairs as independent,
    which the interval does not."""

    def comparison(self, margin: float = MARGIN) -> Comparison:
        """Return what the difference says against a margin in percentage points."""
        return Comparison(self.difference, margin / 100, same=self.only_first == self.only_second == 0)


class RewardNoise(NamedTuple):
    """How much the difference of rewards of a pair changes when pairs are scored again in another batch."""

    largest: float
    """Largest change that was seen; a difference no larger than that is a tie."""
    pairs: int
    """Number of pairs that were scored again."""
    ties: int
    """Number of all pairs that differ by no more than that."""


class BeforeAfter(NamedTuple):
    """A figure before and after a length correction, or of another model and of this one."""

    before: Estimate
    after: Estimate


class LengthBiasComparison(NamedTuple):
    """Figures of length bias of another model (`before`) and of this one (`after`), by name."""

    name: str
    figures: Mapping[str, BeforeAfter]


class ExampleResponse(NamedTuple):
    """A response with its reward."""

    text: str
    reward: float
    tokens: int


class ExamplePair(NamedTuple):
    """A pair with its texts."""

    id: str
    margin: float
    prompt: str
    chosen: ExampleResponse
    rejected: ExampleResponse


@dataclass(frozen=True)
class ExamplePairs:
    """The pairs with the most negative margins, and those with margins closest to 0."""

    wrong: tuple[ExamplePair, ...] = ()
    close: tuple[ExamplePair, ...] = ()


@dataclass(frozen=True)
class Diagnostics(StoredResult):
    """Where a model is right on pairs, whether its margins are calibrated, and how it does against baselines."""

    FILE: ClassVar[str] = "diagnostics.json"
    OLD_FILES: ClassVar[tuple[str, ...]] = ("scrutiny.json",)

    by_length_difference: tuple[Group, ...]
    """Accuracy in groups of rising length difference, chosen − rejected, in tokens."""
    by_margin: tuple[Group, ...]
    """Accuracy in groups of rising |margin|."""
    calibration_error: Estimate
    reliability: tuple[Bin, ...]
    preferred_is: Mapping[str, Estimate] = field(default_factory=dict)
    """Accuracy where the chosen response is the `longer` one, the `shorter` one, or `as_long`."""
    baselines: tuple[BaselineComparison, ...] = ()
    examples: ExamplePairs = ExamplePairs()
    corrected: Mapping[str, BeforeAfter] | None = None
    """Figures of length bias before and after a correction."""
    length_bias: tuple[LengthBiasComparison, ...] = ()
    noise: RewardNoise | None = None

    @classmethod
    def migrate(cls, stored: Any) -> Any:
        """Headwater 0.1 said `rivals` for baselines, and spread the parts of an accuracy over its group."""
        names = {"rivals": "baselines"}
        found = {names.get(key, key): value for key, value in stored.items()}
        for name in ("by_length_difference", "by_margin", "reliability"):
            found[name] = [_nested(group) for group in found[name]]
        return found


def _nested(group: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return a group of headwater 0.1, {from, to, value, low, high, n, clusters}, as one with an accuracy."""
    if "accuracy" in group:
        return group
    edges = {new: group[old] for old, new in (("from", "low"), ("to", "high")) if old in group}
    confidence = {"confidence": group["confidence"]} if "confidence" in group else {}
    return edges | confidence | {"accuracy": {name: group[name] for name in Estimate._fields}}
