"""Facts of a run (facts.json): what later commands and the report need to know of it, by name.

Commands inherit the facts of what they read: a model knows how its data was truncated, and its evaluation knows how it
was trained. Every name is declared here, so that the type checker compares writers and readers. All are optional.
"""

from __future__ import annotations

from typing import Any, Literal, cast

from headwater.data.facts import SelectionFacts, TruncationFacts


class Facts(TruncationFacts, SelectionFacts, total=False):
    """Facts of a run; a name that is missing does not apply, or was not known to the version that wrote it."""

    # Data
    layout: str
    """Layout of the file that `inspect` read; of a training run, how rows were packed."""
    planted_depth: float
    """Share of a response that holds the signal of a made corpus."""
    flops_saved: float
    """Share of training FLOPs saved by truncation so far."""
    scored_by: list[str]
    sampled_from: str
    n: int
    """Responses sampled for each prompt."""
    temperature: float
    top_p: float
    max_new_tokens: int
    decoded_from: str
    strategy: str
    """Decoding strategy, as a constructor call."""
    reward_models: list[str]

    # Training
    kind: str
    """Name of the loss of a policy, or `reward model`."""
    base: str
    """Model that training started from."""
    reference: str | None
    """Reference model of a policy: a path inside of the run, or a name."""
    beta: float | None
    reward_head: int
    members: list[str]
    """Members of an ensemble, directories of the run."""
    conditional: bool
    """Whether rows had a condition."""
    notes: dict[str, int]
    """Rows that were prepared in a way that a reader should know of, by the rule."""
    desirable: int
    undesirable: int
    label_balance: float
    """Ratio of the weighted labels of KTO."""
    changes: dict[str, Any]
    """Settings that differ from those that training began with (`--allow-changes`)."""
    resumed_at: int
    memory_bytes: dict[str, int]
    """Estimated parts and measured peak."""
    loss_note: str
    """That the training loss did not move, where it did not."""
    training_tokens: float
    training_flops: float
    read_back: dict[str, float]
    """Pairs that the saved model scored again, and the largest difference."""
    frozen: dict[str, int]
    """With frozen layers: numbers of trained and of all layers and weights."""
    learning_rate_search: dict[str, Any]
    early_stopping: dict[str, int]
    skipped_steps: list[dict[str, Any]]

    # Evaluation
    evaluated_keep: float
    evaluated_kept: str
    evaluated_cut: str
    evaluated_part: str
    evaluated_end: str
    correction: str
    """Length correction, as a constructor call."""
    benchmark: str
    baseline: str
    says: list[str] | str
    """What follows from the figures, in sentences."""
    length_control: str | None
    """Mode of the length-controlled win rates: official, difficulty or minimal."""
    score: str
    """What a model's scores are: reward, or implicit reward."""

    # Signal
    unit: str
    """Unit of lengths: tokens or words."""
    verdict: str
    recommended_keep: str | None
    recommended_flops_saved: float | None
    shuffled: list[float]
    """Least and largest accuracy with shuffled labels."""
    shuffles: int
    published: str
    margin: float
    groups_too_small: dict[str, int]
    training_flops_a_token: float
    along: Literal["texts", "samples"]
    """Whose responses a divergence was measured along."""


def of_evaluation(truncation: TruncationFacts) -> Facts:
    """Return the facts of how evaluated responses were truncated, apart from those of training."""
    return cast(Facts, {f"evaluated_{name}": value for name, value in truncation.items()})
