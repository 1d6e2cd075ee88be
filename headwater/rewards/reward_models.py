"""Rewards of a saved model: those of a reward model or an ensemble, or the implicit reward of a policy.

The implicit reward of a policy is β (log π − log π_ref), as in DPO; of one trained without a reference, the reward of
its loss.
"""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from headwater.console import say
from headwater.data.preference import Record
from headwater.data.tokenizers import Tokenizer
from headwater.data.tokens import PairTokens
from headwater.errors import UsageError
from headwater.forward.format_check import row_format_for
from headwater.forward.packing import UNIFORM
from headwater.forward.passes import score_pairs, with_reference
from headwater.forward.scores import exact_policy_scores, reward_scores
from headwater.forward.stored_states import stored_states
from headwater.losses import DPO, POLICY_LOSSES, BradleyTerry, LossBase, Mix, loss_of
from headwater.losses.token_weights import Weights
from headwater.models import loading
from headwater.models.heads import Head
from headwater.results import runs


@dataclass(frozen=True)
class Rewarding:
    """A model with the rule for its rewards; built by `load`."""

    members: list[Any]
    """One model, or those of an ensemble of reward models."""
    tokenizer: Tokenizer
    rule: LossBase
    """The loss whose rewards are computed."""
    reference: Any
    """None where the rule needs none."""
    trained_layers: tuple[int | None, ...] = ()
    """For each member trained with frozen layers (`--freeze-layers`), how many of its last layers were trained."""

    @property
    def models(self) -> list[Any]:
        """All models that are run: the members, and the reference."""
        return [*self.members, *filter(None, (self.reference,))]

    def rewards(
        self, rows: Sequence[PairTokens], max_tokens: int, weights: Weights = UNIFORM, *, from_stored: bool = True
    ) -> NDArray[np.float64]:
        """Return the rewards of pairs or labelled responses, [members, rows, 2] of chosen and rejected.

        A forward pass holds at most `max_tokens` tokens. The value of the empty side of a labelled response is
        undefined. Reward models with frozen layers read stored hidden states if `from_stored`.
        """
        score = reward_scores if isinstance(self.rule, BradleyTerry) else exact_policy_scores
        layouts = [row_format_for(model, rows, max_tokens) for model in self.members]
        if self.reference is not None:
            row_format = row_format_for(self.reference, rows, max_tokens)
            rows = with_reference(self.reference, rows, max_tokens, row_format)
        # States are stored for responses of one turn, as training with frozen layers reads them.
        of_turns = any(row.chosen_mask is not None or row.rejected_mask is not None for row in rows)
        found = []
        for place, (model, row_format) in enumerate(zip(self.members, layouts, strict=True)):
            trained = self.trained_layers[place] if self.trained_layers and from_stored and not of_turns else None
            with (
                contextlib.nullcontext()
                if trained is None
                else stored_states(model, trained, rows, row_format, max_tokens)
            ):
                found.append(score_pairs(model, score, self.rule, rows, max_tokens, row_format, weights))
        return np.stack(found)


def load(
    name: str,
    reference: str | None,
    beta: float | None,
    records: Sequence[Record],
    seed: int,
    reward_head: int | None = None,
) -> Rewarding:
    """Load a reward model, an ensemble, or a policy with its reference where its rule needs one (β: 0.1).

    `reference` None selects the one in the training run; `reward_head` is the output of a reward model with several.
    Errors: `UsageError` for a reference or β of a reward model, which has none, and for a reward head of a policy;
    those of `loading.load_members` and `loading.reference_of`.
    """
    head = loading.head_of(runs.members_of(name)[0])
    refuse_flags(name, head, reference=reference, beta=beta)
    refuse_head(name, head, reward_head)
    members = loading.load_members(name, head, records, seed, reward_head)
    tokenizer = members[0].tokenizer
    rule = BradleyTerry() if head == "reward" else rule_of(name, reference, beta)
    other = loading.reference_of(name, reference, tokenizer, seed) if rule.needs_reference else None
    layers = tuple(_trained_layers(member) if head == "reward" else None for member in runs.members_of(name))
    return Rewarding([member.model for member in members], tokenizer, rule, other, layers)


def _trained_layers(name: str) -> int | None:
    """Return how many last layers of a reward model were trained; None where none was frozen."""
    frozen = None if runs.is_untrained(name) else runs.facts_of(Path(name)).get("frozen")
    return None if frozen is None else frozen["trained_layers"]


def refuse_flags(name: str, head: Head, **flags: object) -> None:
    """Refuse flags of the implicit reward for a reward model, which has none. Errors: `UsageError`."""
    for flag, value in flags.items() if head == "reward" else ():
        if value is not None:
            raise UsageError(f"--{flag}", f"{name} is a reward model", f"leave --{flag} out")


def refuse_head(name: str, head: Head, reward_head: int | None) -> None:
    """Refuse to name an output of a policy as the reward. Errors: `UsageError`."""
    if reward_head is not None and head == "policy":
        raise UsageError(f"--reward-head {reward_head}", f"{name} is a policy", "leave --reward-head out")


def rule_of(policy: str, reference: str | None, beta: float | None) -> LossBase:
    """Return the loss whose reward a policy gets: DPO, or its own where it was trained without a reference.

    A given reference or β selects DPO.
    """
    kind = str(runs.facts_of(Path(policy)).get("kind"))
    trained = reference is None and beta is None and kind in (*POLICY_LOSSES, Mix.name)
    rule: LossBase | None = loss_of(runs.load(Path(policy)).config["loss"], POLICY_LOSSES) if trained else None
    if rule is None or rule.needs_reference:
        return DPO(0.1 if beta is None else beta)
    say(f"rewards: those of {rule!r}, by which {policy} was trained without a reference")
    return rule
