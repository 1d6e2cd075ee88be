"""Figures of runs: one function a figure, which returns the blocks that it draws, or [] without data.

A figure consists of small panels rather than one wide drawing, so that the page can arrange them in three columns on a
wide screen and in one on a phone without shrinking their text. Keys and panel titles are text of the page for the same
reason. To add a figure, write a function and give it a line in `PLOTS`.
"""

from __future__ import annotations

from headwater.report.plots.curves import accuracy_by_kept_ratio
from headwater.report.plots.data import longer_by, response_lengths
from headwater.report.plots.decoding import decoded, reward_against_kl
from headwater.report.plots.diagnostics import diagnostic_panels
from headwater.report.plots.divergence import divergence_by_position
from headwater.report.plots.drawing import Block, Mark, Panel, Plot
from headwater.report.plots.embedding import response_embeddings
from headwater.report.plots.policies import length_and_gain, policy_scores, score_differences, win_rates
from headwater.report.plots.rankings import judge_agreement, strengths, win_matrices
from headwater.report.plots.scores import length_histograms, score_boxes, score_histograms
from headwater.report.plots.selection import gradient_bounds, selection_effects, selection_scores, selector_agreement
from headwater.report.plots.signal import prefix_curves
from headwater.report.plots.sweep import sweep_curves
from headwater.report.plots.terms import term_contrast
from headwater.report.plots.training import MAX_POINTS, gradient_norms, learning_rate, loss_curves, reward_curves

__all__ = ["DATA_PLOTS", "PLOTS", "SECTIONS", "Block", "Mark", "Panel", "Plot"]

PLOTS: dict[str, Plot] = {
    "accuracy": Plot(
        "Accuracy against kept ratio",
        "Each point is a model trained on that much of the beginning of every response and evaluated on "
        "held-out pairs; bars are 95 % intervals.",
        accuracy_by_kept_ratio,
    ),
    "signal": Plot(
        "Where the preference is decided",
        "How often the better response is ahead when only this much of both is read. Band: 95 % interval. D90: the "
        "share that holds 90 % of what the full response tells above chance, shaded with its interval; the band around "
        "0.5 holds the accuracies of shuffled labels. If the end of the same size did as well, the beginning would be "
        "nothing special; if length did, neither would the curve.",
        prefix_curves,
    ),
    "sweep": Plot(
        "Training on every ratio, and what one pass foresaw",
        "Mean accuracy over seeds; band: 95 % interval over seeds for equal examples. Equal tokens: shorter responses "
        "are trained on for as many tokens as full ones. One pass: the curve of the model of full responses.",
        sweep_curves,
    ),
    "divergence": Plot(
        "Where the policy has moved",
        "KL of policy and reference after every prefix. High at the first positions only: shallow alignment "
        "(arXiv:2406.05946). The log-ratio of the tokens that stand there is above 0 where the policy has moved "
        "towards these texts. Bands are 95 % intervals.",
        divergence_by_position,
    ),
    "decoded": Plot(
        "Who speaks when two models decode",
        "How much of the token at a position the policy says, and how far what is said lies from the reference; mean "
        "over responses that reach it, bands are 95 % intervals over prompts. KL stands where both models were asked.",
        decoded,
    ),
    "frontier": Plot(
        "Reward against KL in decoding",
        "Each point is a strategy for two models speaking; KL is exact, along what was decoded, but for the best of n, "
        "where it is an upper bound. Bars: 95 % intervals over prompts. Above the dashed line, a strategy gets more "
        "for its KL than interpolating the two models does. Squares are published points, whose "
        "rewards are by models of their own.",
        reward_against_kl,
    ),
    "loss": Plot(
        "Loss",
        "Training loss by optimiser step; dashed where measured on held-out pairs. Long curves are averaged in "
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
        "What training does to each side. A better-sample reward that falls while the margin grows is likelihood "
        "displacement: both responses become less likely, the worse one faster. Dashed: held-out pairs.",
        reward_curves,
    ),
    "scores": Plot(
        "Scores of better and worse responses",
        "Less overlap means a clearer preference. Runs of one kind share their axes.",
        score_histograms,
    ),
    "boxes": Plot(
        "Spread of the scores",
        "Box: middle half; tick: median; line: to the last score within 1.5 box lengths of the box.",
        score_boxes,
    ),
    "lengths": Plot(
        "Lengths of better and worse responses",
        "If the better response is mostly the longer one, length alone predicts the preference.",
        length_histograms,
    ),
    "win-rates": Plot(
        "Policies under judges",
        "How often each model beats the baseline, by every judge; bars are 95 % intervals over prompts. A model that "
        "one judge prefers and another does not was tuned to the first one's taste. At equal length: what a judge "
        "would prefer if both answers were equally long.",
        win_rates,
    ),
    "strengths": Plot(
        "Which model is strongest",
        "Bradley–Terry strengths from all votes, the baseline at 0: a model one logit above another wins 73 % against "
        "it. Bars are 95 % intervals over prompts.",
        strengths,
    ),
    "win-matrix": Plot(
        "Who beat whom",
        "Share of the votes of the model in the row against that in the column, ties ½; empty where two never met.",
        win_matrices,
    ),
    "judge-agreement": Plot(
        "Whether the judges agree",
        "On answers that both compared: 1 is full agreement, 0 is chance. Bars are 95 % intervals over prompts.",
        judge_agreement,
    ),
    "score-differences": Plot(
        "How much better, prompt by prompt",
        "Right of 0 the judge scores the model's answer higher. A mean above 0 can hide a tail of degraded prompts.",
        score_differences,
    ),
    "policy-scores": Plot(
        "Scores of model and baseline",
        "Box: middle half; tick: median; line: 5th to 95th percentile. Reward models have scales of their own.",
        policy_scores,
    ),
    "length-gain": Plot(
        "Is it better, or only longer?",
        "One point a prompt. If gains rise with the difference in length, the judge may reward length alone.",
        length_and_gain,
    ),
    "diagnostics": Plot(
        "Where a model is right",
        "A calibrated model lies on the dashed line. If accuracy rises with length, it pays for length; if it does not "
        "rise with the margin, its margins mean nothing. Pairs are in groups of like size; bars are 95 % intervals.",
        diagnostic_panels,
    ),
    "selection": Plot(
        "What was selected",
        "Scores of all rows and of those taken. For preference variance, 0 means that every two responses are as good "
        "as each other, and ¼ that of every two one surely wins.",
        selection_scores,
    ),
    "selection-effects": Plot(
        "What the selection does to the data",
        "A selection may change more than it means to: where the curves part, a model trained on the rows taken sees "
        "other lengths, other margins or other sources.",
        selection_effects,
    ),
    "selector-agreement": Plot(
        "Other selectors at the same budget",
        "Left: do two selectors order rows alike? Right: how many of the rows taken would the other one take? Each "
        "takes the end that its source takes; bars are 95 % intervals.",
        selector_agreement,
    ),
    "gradients": Plot(
        "What a prompt's gradient is, and what it can be at most",
        "A point is a prompt: the norm of its mean DPO gradient over the pairs of its responses, and the bound that "
        "its preference variance sets (both divided by β, at θ = reference). A prompt with a small bound cannot teach "
        "much; how far it lies below the line is what the bound leaves open.",
        gradient_bounds,
    ),
    "embedding": Plot(
        "What responses are like",
        "A point a response, near others that are like it. In t-SNE, distances between groups and their sizes mean "
        "nothing. Where the colours mix, what tells better from worse is not what tells responses apart most.",
        response_embeddings,
    ),
}

SECTIONS: dict[str, tuple[str, ...]] = {
    "Signal": ("accuracy", "signal", "sweep", "divergence"),
    "Selection": ("selection", "selection-effects", "selector-agreement", "gradients"),
    "Training": ("loss", "learning-rate", "gradient-norm", "rewards"),
    "Models": ("scores", "boxes", "lengths", "diagnostics", "embedding"),
    "Decoding": ("decoded", "frontier"),
    "Policies": (
        *("win-rates", "strengths", "win-matrix", "judge-agreement"),
        *("score-differences", "policy-scores", "length-gain"),
    ),
}
"""Sections of the page and their figures; figures without a section come last, under a heading of their own."""

DATA_PLOTS: dict[str, Plot] = {
    "data-lengths": Plot("Lengths", "The longest 1 % lie beyond the right edge.", response_lengths),
    "data-longer": Plot(
        "Which one is longer",
        "If one side is larger, a model can learn length instead of the preference. The largest 1 % of the differences "
        "lie beyond the edges.",
        longer_by,
    ),
    "data-terms": Plot(
        "Words that tell",
        "Log-odds of a word in chosen against rejected responses, drawn towards its share of all words (informative "
        "Dirichlet prior, Monroe et al. 2008), over its standard deviation. z ranks words; it is no test, because "
        "words of one response go together.",
        term_contrast,
    ),
}
"""Figures of a data set, drawn in its own section for one `inspect` run at a time."""
