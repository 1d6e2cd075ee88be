"""Sentences on what a truncation did to a data set."""

from __future__ import annotations

from headwater.data.truncation import TruncationEffect


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
