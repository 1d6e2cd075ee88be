"""Length-controlled win rates: the preference predicted for answers of equal length (arXiv:2404.04475).

A logistic model of preference has three terms: tanh of the difference in length (characters, in units of its standard
deviation, baseline − model), the difficulty of the instruction, and a constant. The length-controlled win rate is the
mean of its predictions with the length term at 0. Upstream: tatsu-lab/alpaca_eval, `length_controlled_v1`.

The data that are given decide the terms, and the mode of the figure:

    official   difficulty and the annotations of two gamed baselines, by which upstream regularises (df_gamed.csv)
    difficulty difficulty alone: upstream's model without its regularisation
    minimal    length and constant, not regularised: any prompt set, and not the leaderboard's figure

Without difficulty, length stands in for it, and a weak model is raised too far. Of 29 published models the minimal
figure was more than 5 points off for 13, and its bootstrap interval held the published one of 12. Extended to the
plain win rate it held all of them (benchmarks/length_control_error.py), and so it reaches there in the minimal mode.

It controls for length alone: a constant answer that games the judge has the highest figure on the leaderboard.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from headwater import statistics
from headwater.errors import DataError, UsageError
from headwater.evaluation.alpaca_eval import read_answers
from headwater.marks import visible
from headwater.statistics import Estimate, Floats

RESAMPLES = 200
GAMED_WEIGHT = 0.2 / 2
"""Upstream's regularisation weight, shared by two gamed baselines."""
LENGTH, DIFFICULTY, CONSTANT = "np.tanh(std_delta_len)", "instruction_difficulty", "not_gamed_baseline.astype(float)"
"""Upstream's names of the terms, as its weight files have them."""


class Fit(NamedTuple):
    """A length-controlled win rate, in per cent."""

    estimate: Estimate
    """With a 95 % interval: the model is refitted to resampled prompts, without regularisation, because coefficients
    that are shrunk to 0 would hide their uncertainty. In the minimal mode it reaches to the plain win rate."""
    standard_error: float | None
    """Upstream's, over fitted predictions: it ignores the uncertainty of the fit, and is too small. Without difficulty
    all predictions are equal, and it is None."""
    weights: dict[str, float]
    mode: str


@dataclass(frozen=True)
class Reference:
    """Upstream's data of its instructions; both empty for any other prompt set."""

    difficulty: Floats
    """[prompts] in the order of the evaluation set."""
    gamed: Floats
    """[rows, 4] tanh of length, difficulty, constant, preference of the gamed baselines' annotations."""
    prompts: tuple[str, ...] = ()
    """The instructions in the order of `difficulty`, by which those that were not judged are found; () if unknown."""

    @property
    def mode(self) -> str:
        """Name of the mode of a figure that is computed with it."""
        return "official" if len(self.gamed) else "difficulty" if len(self.difficulty) else "minimal"

    def of(self, prompts: Sequence[str]) -> Reference:
        """Return the data of `prompts`, in their order; itself where the order of instructions is not known.

        Errors: `DataError` for a prompt that is none of the instructions.
        """
        if not len(self.difficulty) or not self.prompts:
            return self
        places = {prompt: place for place, prompt in enumerate(self.prompts)}
        unknown = [prompt for prompt in prompts if prompt not in places]
        if unknown:
            found = f"{len(unknown)} of {len(prompts)} judged prompts are none of its instructions"
            raise DataError("--lc-data", found, f"the first is {visible(unknown[0])[:60]!r}", "leave --lc-data out")
        return replace(self, difficulty=self.difficulty[[places[prompt] for prompt in prompts]], prompts=tuple(prompts))

    def with_prompts(self, prompts: Sequence[str]) -> Reference:
        """Return it with the order of its instructions. Errors: `DataError` where their number is another one."""
        if len(prompts) != len(self.difficulty):
            found = f"{len(prompts)} prompts, and {len(self.difficulty)} in --lc-data"
            raise DataError("--lc-prompts", found, "expected the answers of one model to all of AlpacaEval's prompts")
        return replace(self, prompts=tuple(prompts))


NOTHING = Reference(np.zeros(0), np.zeros((0, 4)))


def read_reference(path: Path | None, prompts: Path | None = None) -> Reference:
    """Read upstream's `instruction_difficulty.csv` or `df_gamed.csv`; None: `NOTHING`.

    `prompts` are a model's answers to all instructions, for their order. Errors: `UsageError`, `DataError`.
    """
    if path is None:
        return NOTHING
    found = _read(path)
    return found.with_prompts([one.prompt for one in read_answers(prompts).answers]) if prompts else found


def _read(path: Path) -> Reference:
    try:
        with path.open(encoding="utf-8", newline="") as handle:
            rows = list(csv.DictReader(handle))
    except OSError as error:
        raise UsageError(f"--lc-data {path}", error.strerror or "cannot be read") from error
    try:
        return _reference(rows)
    except (KeyError, ValueError) as error:
        raise DataError(
            str(path), f"{type(error).__name__}: {error}", "expected instruction_difficulty.csv or df_gamed.csv"
        ) from error


def _reference(rows: Sequence[Mapping[str, str]]) -> Reference:
    by_index = {int(row.get("index") or row[""]): float(row[DIFFICULTY]) for row in rows}
    if sorted(by_index) != list(range(len(by_index))):
        raise ValueError("index does not count instructions from 0")
    difficulty = np.array([by_index[index] for index in range(len(by_index))])
    if not rows or "std_delta_len" not in rows[0]:
        return Reference(difficulty, NOTHING.gamed)
    gamed = [
        [
            np.tanh(float(r["std_delta_len"])),
            float(r[DIFFICULTY]),
            _truth(r["not_gamed_baseline"]),
            float(r["preference"]),
        ]
        for r in rows
    ]
    return Reference(difficulty, np.array(gamed, dtype=np.float64))


def _truth(text: str) -> float:
    return float({"True": 1, "False": 0}[text])


def win_rate(
    preferences: Floats, lengths: Floats, prompts: Sequence[str], reference: Reference = NOTHING, seed: int = 0
) -> Fit:
    """Fit the model to `preferences` [n] of the second answer, `lengths` [n, 2] of both in characters.

    Errors: `DataError` where the reference holds another number of instructions, or lengths never differ.
    """
    if len(reference.difficulty) not in (0, len(preferences)):
        found = f"{len(preferences)} judged prompts, and {len(reference.difficulty)} in the reference"
        hint = "name a model's answers to all of them with --lc-prompts"
        raise DataError("--lc-data", found, "expected one row an instruction, in the same order", hint)
    delta = lengths[:, 0] - lengths[:, 1]
    if len(delta) < 2 * SPLITS or not np.ptp(delta):
        raise DataError("length control", f"{len(delta)} prompts, or no difference in length", "expected 10 or more")
    own = [np.tanh(delta / delta.std(ddof=1)), np.ones_like(delta)]
    if len(reference.difficulty):
        own.insert(1, reference.difficulty)
    design = np.stack(own, axis=1)
    rows, targets, weights = _with_gamed(design, preferences, reference)
    # Upstream's regularisation would shrink few prompts to exactly ½, and nothing here has to match upstream then.
    coefficients = (_fit if len(reference.difficulty) else _likeliest)(rows, targets, weights)
    level = design.copy()
    level[:, 0] = 0
    fitted = _predict(level, coefficients)
    drawn = _resampled(design, preferences, prompts, reference, seed)
    low, high = np.percentile(drawn, [2.5, 97.5])
    if reference.mode == "minimal":
        plain = 100 * float(preferences.mean())
        low, high = min(low, plain), max(high, plain)
    count = len(set(prompts))
    estimate = Estimate(100 * float(fitted.mean()), float(low), float(high), len(fitted), count)
    terms = (LENGTH, DIFFICULTY, CONSTANT) if len(reference.difficulty) else (LENGTH, CONSTANT)
    error = 100 * float(fitted.std(ddof=1) / np.sqrt(len(fitted))) if len(reference.difficulty) else None
    return Fit(
        estimate,
        error,
        dict(zip(terms, coefficients.tolist(), strict=True)),
        reference.mode,
    )


def from_weights(weights: Mapping[str, float], difficulty: Floats) -> float:
    """Return the win rate in per cent that published weights give on instructions of `difficulty` [prompts]."""
    design = np.stack([difficulty, np.ones_like(difficulty)], axis=1)
    return 100 * float(_predict(design, np.array([weights[DIFFICULTY], weights[CONSTANT]])).mean())


def is_extreme(before: float, after: float) -> bool:
    """Say whether control changes a win rate (per cent) by over 10 points and over a quarter of the rest to 0 or 100.

    Upstream prints a warning in this case: the model may not fit.
    """
    too_small = after < min(before - before / 4, before - 10)
    return too_small or after > max(before + (100 - before) / 4, before + 10)


SPLITS = 5


def _with_gamed(design: Floats, preferences: Floats, reference: Reference) -> tuple[Floats, Floats, Floats]:
    """Return rows, targets and weights with the gamed baselines' before the model's own, as upstream stacks them."""
    gamed = reference.gamed
    weights = np.concatenate([np.full(len(gamed), GAMED_WEIGHT), np.ones(len(design))])
    if not len(gamed):
        return design, preferences, weights
    return np.concatenate([gamed[:, :3], design]), np.concatenate([gamed[:, 3], preferences]), weights


def _fit(rows: Floats, targets: Floats, weights: Floats) -> Floats:
    """Return the coefficients at the regularisation that five folds of prompts choose."""
    import sklearn
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.metrics import make_scorer
    from sklearn.model_selection import GroupKFold

    # Every row stands twice, labelled 1 and 0 and weighted by its probability: sklearn takes no soft labels.
    probability = np.concatenate([targets, 1 - targets])
    twice = np.concatenate([weights, weights])
    with sklearn.config_context(enable_metadata_routing=True):
        scorer = make_scorer(_log_loss, response_method="predict_proba", greater_is_better=False)
        scorer = scorer.set_score_request(true_weight=True, true_probability=True)
        model = LogisticRegressionCV(
            cv=GroupKFold(SPLITS), scoring=scorer, use_legacy_attributes=False, l1_ratios=[1.0], **LASSO
        ).set_fit_request(sample_weight=True)
        model.fit(
            np.concatenate([rows, rows]),
            np.repeat([1, 0], len(rows)),
            sample_weight=probability * twice,
            groups=np.tile(np.arange(len(rows)), 2),
            true_weight=twice,
            true_probability=probability,
        )
    return np.asarray(model.coef_[0], dtype=np.float64)


LASSO: dict[str, Any] = {"solver": "liblinear", "fit_intercept": False, "random_state": 123}
"""Upstream's solver and seed."""
LEAST_REGULAR = 1e4
"""The largest of the ten regularisation strengths that are tried."""


def _log_loss(y_true: Any, y_pred: Any, true_probability: Floats, true_weight: Floats) -> float:
    """Return the mean weighted log-loss of `y_pred` [n] against the probability of the label itself."""
    true = np.where(y_true == 1, true_probability, 1 - true_probability)
    p = np.clip(y_pred, 1e-15, 1 - 1e-15)
    return -float(np.mean((true * np.log(p) + (1 - true) * np.log(1 - p)) * true_weight))


def _resampled(
    design: Floats, preferences: Floats, prompts: Sequence[str], reference: Reference, seed: int
) -> NDArray[np.float64]:
    """Return win rates (per cent) [RESAMPLES] of models fitted to prompts drawn with replacement."""
    rows, targets, weights = _with_gamed(design, preferences, reference)
    level = design.copy()
    level[:, 0] = 0
    found = []
    for times in statistics.resamples(prompts, seed, RESAMPLES):
        drawn = weights.copy()
        drawn[-len(times) :] = times
        coefficients = _likeliest(rows, targets, drawn)
        found.append(100 * float(np.average(_predict(level, coefficients), weights=times)))
    return np.array(found)


def _likeliest(rows: Floats, targets: Floats, weights: Floats) -> Floats:
    """Return the coefficients with next to no regularisation."""
    from sklearn.linear_model import LogisticRegression

    # Never quite 0: liblinear would miss a class that a resample leaves without any weight.
    probability = np.concatenate([targets, 1 - targets]).clip(1e-9) * np.concatenate([weights, weights])
    model = LogisticRegression(C=LEAST_REGULAR, l1_ratio=1.0, max_iter=10_000, **LASSO)
    model.fit(np.concatenate([rows, rows]), np.repeat([1, 0], len(rows)), sample_weight=probability)
    return np.asarray(model.coef_[0], dtype=np.float64)


def _predict(design: Floats, coefficients: Floats) -> Floats:
    from scipy.special import expit

    return np.asarray(expit(design @ coefficients), dtype=np.float64)
