"""Effect of a truncation on a data set: tokens, length differences, dropped rows, training FLOPs saved."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from headwater.data.preference import Example, Side
from headwater.data.reading import RowCounts

LABELS: dict[Side, str] = {"chosen": "desirable", "rejected": "undesirable"}
"""Names of the sides in rows of one labelled response."""


@dataclass
class Lengths:
    """Responses by side and their tokens; of pairs, how often the longer response won (ties count ½)."""

    responses: Counter[Side] = field(default_factory=Counter)
    tokens: Counter[Side] = field(default_factory=Counter)
    pairs: int = 0
    longer_won: float = 0.0

    def add(self, row: Mapping[Side, int]) -> None:
        """Count one more row: the tokens of its responses."""
        self.responses.update(row.keys())
        self.tokens.update(row)
        if len(row) > 1:
            self.pairs += 1
            self.longer_won += 0.5 * ((row["chosen"] > row["rejected"]) + (row["chosen"] >= row["rejected"]))

    def figures(self, when: str) -> dict[str, float | int]:
        """Return the tokens, the mean difference chosen − rejected, and the share that the longer response won.

        What needs a pair, or responses of both sides, is left out where there are none.
        """
        found: dict[str, float | int] = {f"tokens_{when}": self.tokens.total()}
        if len(self.responses) > 1:
            chosen, rejected = (self.tokens[side] / self.responses[side] for side in LABELS)
            found[f"length_difference_{when}"] = chosen - rejected
        if self.pairs:
            found[f"longer_won_{when}"] = self.longer_won / self.pairs
        return found


@dataclass
class TruncationEffect:
    """Effect of a cut, summed over the rows that went through it."""

    row_counts: RowCounts = field(default_factory=RowCounts)
    before: Lengths = field(default_factory=Lengths)
    """Lengths of the responses that were kept, before the cut …"""
    after: Lengths = field(default_factory=Lengths)
    """… and after it."""
    dropped: dict[str, list[str]] = field(default_factory=dict)
    """Ids of the rows without a preference after the cut, by reason."""
    prompt_characters: int = 0
    response_characters: int = 0
    """Before the cut; like those of prompts, of the rows that were kept."""

    @property
    def kept(self) -> float:
        """Return the share of the response tokens that was kept."""
        before = self.before.tokens.total()
        return self.after.tokens.total() / before if before else 1.0

    @property
    def flops_saved(self) -> float:
        """Estimate the share of training FLOPs saved; prompts are taken to have as many characters a token."""
        before = self.before.tokens.total()
        prompt = before * self.prompt_characters / max(1, self.response_characters)
        return flops_saved(prompt, self.after.tokens.total(), before)

    def figures(self) -> dict[str, float | int]:
        """Return the effect of a cut on lengths, for `metrics.json`, in tokens; differences are chosen − rejected."""
        labelled = {label: self.before.responses[side] for side, label in LABELS.items()}
        counts = {"pairs": self.before.pairs} if self.before.pairs else labelled
        return counts | self.before.figures("before") | self.after.figures("after") | {"flops_saved": self.flops_saved}

    def keep(self, example: Example, before: Sequence[int], after: Sequence[int]) -> None:
        """Count a row that was whole before and is now cut, by the tokens of its responses."""
        self.row_counts.kept += 1
        for lengths, tokens in ((self.before, before), (self.after, after)):
            lengths.add(dict(zip(example.sides, tokens, strict=True)))
        self.prompt_characters += sum(len(message.shown) for message in example.prompt)
        self.response_characters += sum(len(text) for response in example.responses for text in response.said)

    def drop(self, example: Example, reason: str) -> None:
        """Count a row that was not kept."""
        self.row_counts.dropped[reason] += 1
        self.dropped.setdefault(reason, []).append(example.id)


def flops_saved(prompt: float, kept: float, whole: float) -> float:
    """Estimate the share of training FLOPs that a cut saves: 1 − (prompt + kept) / (prompt + whole), in tokens.

    `prompt` counts once a row, `kept` and `whole` all its responses, after and before the cut. Forward and backward
    passes cost 6 × parameters a token (arXiv:2001.08361, eq. 2.2). The quadratic term of attention is left out: it
    depends on the model's shape, and where both responses keep the same share it only adds to what is saved.
    """
    return (whole - kept) / (prompt + whole) if prompt + whole else 0.0


def truncation_report(effect: TruncationEffect) -> tuple[str, str]:
    """Return what a truncation did to tokens and to the length difference of responses, and the FLOPs it saves."""
    figures = effect.figures()
    share = figures["tokens_after"] / max(1, figures["tokens_before"])
    sentences = [f"response tokens: {figures['tokens_before']} before, {figures['tokens_after']} after ({share:.0%})"]
    for name, what, written in (
        ("length_difference", "chosen − rejected:" if effect.before.pairs else "desirable − undesirable:", "+.1f"),
        ("longer_won", "the longer response won", ".1%"),
    ):
        if f"{name}_before" in figures:
            before, after = (format(figures[f"{name}_{when}"], written) for when in ("before", "after"))
            sentences.append(f"{what} {before} before, {after} after")
    saved = f"training FLOPs saved: about {figures['flops_saved']:.0%} (tokens of prompts and responses)"
    return "; ".join(sentences), saved
