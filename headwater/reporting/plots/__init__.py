"""Figures of runs: one function a figure, which returns the blocks that it draws, or [] without data.

A figure consists of small panels rather than one wide drawing, so that the page can arrange them in three columns on a
wide screen and in one on a phone without shrinking their text. Keys and panel titles are text of the page for the same
reason. To add a figure, write a function and give it a line in `PLOTS`.
"""

from __future__ import annotations

from headwater.reporting.plots.answers import answer_faults, answer_lengths, reward_models
from headwater.reporting.plots.curves import accuracy_by_kept_ratio
from headwater.reporting.plots.data import longer_by, response_lengths
from headwater.reporting.plots.decoding import decoded, reward_against_kl
from headwater.reporting.plots.diagnostics import diagnostic_panels
from headwater.reporting.plots.divergence import divergence_by_position
from headwater.reporting.plots.drawing import Block, Mark, Panel, Plot
from headwater.reporting.plots.embedding import response_embeddings
from headwater.reporting.plots.policies import length_and_gain, policy_scores, score_differences, win_rates
from headwater.reporting.plots.rankings import judge_agreement, strengths, win_matrices
from headwater.reporting.plots.scores import length_histograms, score_boxes, score_histograms
from headwater.reporting.plots.selection import gradient_bounds, selection_effects, selection_scores, selector_agreement
from headwater.reporting.plots.signal import prefix_curves
from headwater.reporting.plots.sweep import sweep_curves
from headwater.reporting.plots.terms import term_contrast
from headwater.reporting.plots.training import MAX_POINTS, gradient_norms, learning_rate, loss_curves, reward_curves

__all__ = ["DATA_PLOTS", "DETAILS", "KEY", "PLOTS", "SECTIONS", "Block", "Mark", "Panel", "Plot"]

PLOTS: dict[str, Plot] = {
    "accuracy": Plot(
        "Accuracy against kept ratio",
        "Each point is a model trained on that much of the beginning of every response and evaluated on "
        "held-out pairs; bars are 95 % intervals.",
        accuracy_by_kept_ratio,
    ),
    "signal": Plot(
        "Accuracy by prefix",
        "Accuracy when only this share of both responses is read. Band: 95 % interval. D90: the share that holds 90 % "
        "of the accuracy above chance of full responses, shaded with its interval; the band around 0.5 holds the "
        "accuracies of shuffled labels. Controls: the end and other parts of the same size, and length alone.",
        prefix_curves,
    ),
    "sweep": Plot(
        "Training on every ratio, and the prediction of one pass",
        "Mean accuracy over seeds; band: 95 % interval over seeds for equal examples. Equal tokens: shorter responses "
        "are trained on for as many tokens as full ones. One pass: the curve of the model of full responses.",
        sweep_curves,
    ),
    "divergence": Plot(
        "Divergence of the policy from its reference",
        "KL of policy and reference after every prefix. High at the first positions only: shallow alignment "
        "(arXiv:2406.05946). The log-ratio of the tokens at a position is above 0 where the policy has moved "
        "towards these texts. Bands are 95 % intervals.",
        divergence_by_position,
    ),
    "decoded": Plot(
        "Share of the policy and KL by position in two-model decoding",
        "Share of the token at a position that the policy decides, and KL of the decoded distribution from the "
        "reference; mean over responses that reach the position, bands are 95 % intervals over prompts. KL is shown "
        "where both models were evaluated.",
        decoded,
    ),
    "frontier": Plot(
        "Reward against KL in decoding",
        "Each point is a strategy for decoding with two models; KL is exact, along the decoded text, except for best "
        "of n, where it is an upper bound. Bars: 95 % intervals over prompts. Above the dashed line, a strategy gets "
        "more for its KL than interpolating the two models does. Squares are published points, whose rewards are by "
        "models of their own.",
        reward_against_kl,
    ),
    "loss": Plot(
        "Loss",
        "Training loss by optimiser step; dashed lines and points: held-out pairs. A panel an objective. Long "
        "curves are averaged in "
        f"{MAX_POINTS} stretches, here and in the figures below.",
        loss_curves,
    ),
    "learning-rate": Plot("Learning rate", "Step size by optimiser step.", learning_rate),
    "gradient-norm": Plot(
        "Gradient norm",
        "Before clipping, by optimiser step; the point of a step is that of its last batch.",
        gradient_norms,
    ),
    "rewards": Plot(
        "Rewards in training",
        "What training does to each side. A chosen reward that falls while the margin grows is likelihood "
        "displacement: both responses become less likely, the rejected one faster. Dashed lines and points: "
        "held-out pairs.",
        reward_curves,
    ),
    "scores": Plot(
        "Scores of chosen and rejected responses",
        "Less overlap means a clearer preference. Runs of one kind share their axes, but for one whose scores "
        "spread far more.",
        score_histograms,
    ),
    "boxes": Plot(
        "Spread of the scores",
        "Box: middle half; tick: median; line: to the last score within 1.5 box lengths of the box; points: "
        "scores beyond.",
        score_boxes,
    ),
    "lengths": Plot(
        "Lengths of chosen and rejected responses",
        "If the chosen response is mostly the longer one, length alone predicts the preference.",
        length_histograms,
    ),
    "win-rates": Plot(
        "Policies under judges",
        "How often each model beats the baseline, by every judge; bars are 95 % intervals over prompts. A model that "
        "one judge prefers and another does not may be tuned to the first one. At equal length: the preference "
        "predicted for answers of equal length.",
        win_rates,
    ),
    "strengths": Plot(
        "Strengths of models",
        "Bradley–Terry strengths from all votes, the baseline at 0: a model one logit above another wins 73 % against "
        "it. Bars are 95 % intervals over prompts.",
        strengths,
    ),
    "win-matrix": Plot(
        "Win matrix",
        "Share of the votes of the model in the row against that in the column, ties ½; empty where two never met.",
        win_matrices,
    ),
    "judge-agreement": Plot(
        "Agreement of judges",
        "On answers that both compared: 1 is full agreement, 0 is chance. Bars are 95 % intervals over prompts.",
        judge_agreement,
    ),
    "answer-lengths": Plot(
        "Lengths of the answers",
        "Answers of every model to the same prompts.",
        answer_lengths,
    ),
    "answer-faults": Plot(
        "Unfinished and repetitive answers",
        "Bars are 95 % intervals over prompts. An answer is unfinished where it reached the limit of tokens.",
        answer_faults,
    ),
    "reward-models": Plot(
        "Reward models on the same responses",
        "Every model has units of its own: compare shapes, not levels.",
        reward_models,
    ),
    "score-differences": Plot(
        "Score differences by prompt",
        "Right of 0 the judge scores the model's answer higher. A mean above 0 can hide a tail of degraded prompts.",
        score_differences,
    ),
    "policy-scores": Plot(
        "Scores of model and baseline",
        "Box: middle half; tick: median; line: 5th to 95th percentile; points: the scores farthest beyond. "
        "Reward models have scales of their own.",
        policy_scores,
    ),
    "length-gain": Plot(
        "Gain against length",
        "A point is a prompt. If gains rise with the difference in length, the judge may reward length.",
        length_and_gain,
    ),
    "diagnostics": Plot(
        "Accuracy by confidence, length and margin",
        "A calibrated model lies on the dashed line. If accuracy rises with length, the model rewards length; if it "
        "does not rise with the margin, margins are not informative. Groups have about equal numbers of pairs; bars "
        "are 95 % intervals.",
        diagnostic_panels,
    ),
    "selection": Plot(
        "Scores of the selected rows",
        "Scores of all rows and of those taken. For preference variance, 0 means that every two responses are as good "
        "as each other, and ¼ that of every two one surely wins.",
        selection_scores,
    ),
    "selection-effects": Plot(
        "Effects of the selection on the data",
        "Side effects of a selection: where the curves differ, a model trained on the rows taken sees other lengths, "
        "margins or sources.",
        selection_effects,
    ),
    "selector-agreement": Plot(
        "Other selectors at the same budget",
        "Left: rank correlation of the scores of two selectors. Right: share of the rows taken that the other selector "
        "would take too. Each takes the end that its source takes; bars are 95 % intervals.",
        selector_agreement,
    ),
    "gradients": Plot(
        "Gradient norm of a prompt and its bound",
        "A point is a prompt: the norm of its mean DPO gradient over the pairs of its responses, and the bound that "
        "its preference variance sets (both divided by β, at θ = reference). A prompt with a small bound has a "
        "small gradient; the distance below the line is the slack of the bound.",
        gradient_bounds,
    ),
    "embedding": Plot(
        "Embeddings of responses",
        "A point is a response; similar responses are close. In t-SNE, distances between groups and their sizes have "
        "no meaning. Where the colours mix, the preference is not among the main differences of responses.",
        response_embeddings,
    ),
}

SECTIONS: dict[str, tuple[str, ...]] = {
    "Data": (),
    "Signal": ("accuracy", "signal", "sweep", "divergence"),
    "Selection": ("selection", "selection-effects", "selector-agreement", "gradients"),
    "Training": ("loss", "rewards", "learning-rate", "gradient-norm"),
    "Models": ("scores", "boxes", "lengths", "diagnostics", "embedding"),
    "Decoding": ("decoded", "frontier"),
    "Policies": (
        *("win-rates", "strengths", "win-matrix", "judge-agreement"),
        *("answer-lengths", "answer-faults", "reward-models"),
        *("score-differences", "policy-scores", "length-gain"),
    ),
}
"""Sections of the page and their figures; figures without a section come last, under a heading of their own."""
DETAILS = frozenset(("learning-rate", "gradient-norm", "lengths", "diagnostics", "gradients"))
"""Figures that are folded at the end of their section."""
KEY = ("accuracy", "sweep", "signal", "frontier", "win-rates", "selection", "decoded", "divergence", "scores", "loss")
"""Figures that may open the page, the most important first."""

DATA_PLOTS: dict[str, Plot] = {
    "data-lengths": Plot("Lengths", "The longest 1 % lie beyond the right edge.", response_lengths),
    "data-longer": Plot(
        "Length difference of chosen and rejected responses",
        "If one side is larger, a model can learn length instead of the preference. The largest 1 % of the differences "
        "lie beyond the edges.",
        longer_by,
    ),
    "data-terms": Plot(
        "Words that distinguish chosen from rejected responses",
        "Log-odds of a word in chosen against rejected responses, drawn towards its share of all words (informative "
        "Dirichlet prior, Monroe et al. 2008), over its standard deviation. z ranks words; it is no test, because "
        "words of one response go together.",
        term_contrast,
    ),
}
"""Figures of a data set, drawn in its own section for one `inspect` run at a time."""
