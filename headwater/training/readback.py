"""Check of the saved model: read back from disk, it must score as the trained model in memory does.

Runs at the end of every training, on a few short pairs, in float32 and in padded rows, which every architecture reads.
It finds faults of saving or loading that are invisible in the run: tied weights, a different configuration, a tokenizer
without its template.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from headwater.console import say
from headwater.data.tokenizers import Tokenizer
from headwater.data.tokens import PairTokens
from headwater.errors import ModelError
from headwater.forward.attention import attend_with
from headwater.forward.format_check import checked
from headwater.forward.packing import collate
from headwater.forward.scores import ScoreFunction, own_scores, response_values
from headwater.models import loading
from headwater.models.heads import Head

PAIRS = 3
EXACT, MERGED, SHARDED = 1e-6, 1e-4, 5e-2
"""Tolerances of scores, relative to 1 + their size: weights written unchanged; adapters merged and rounded to float32;
a sharded model, which computes in bfloat16."""


class Trained(NamedTuple):
    """Scores of a few pairs by a trained model, before it is saved."""

    pairs: list[PairTokens]
    values: torch.Tensor
    """Scores of both responses of every pair, [pairs × 2]."""
    attention: str
    """The attention implementation that the model came with."""
    tolerance: float


def sample_of(pairs: Sequence[PairTokens]) -> list[PairTokens]:
    """Return the shortest pair and those at a quarter and a half by length."""
    by_length = sorted(pairs, key=lambda pair: pair.length)
    places = {len(by_length) * part // 4 for part in range(PAIRS)}
    return [by_length[place] for place in sorted(places)]


def asked(trainer: Any, score: ScoreFunction, pairs: Sequence[PairTokens]) -> Trained:
    """Return the scores of a trained model; all processes call it, since FSDP shards the weights over them."""
    wrapped = trainer.model_wrapped if trainer.is_fsdp_enabled else None
    model = trainer.accelerator.unwrap_model(trainer.model).model
    attention = checked(model).attention
    sample = sample_of(pairs)
    before = model.config._attn_implementation
    attend_with(model, attention)
    try:
        values = _values(model, score, sample) if wrapped is None else _values(wrapped, own_scores, sample)
    finally:
        attend_with(model, before)
    merged = hasattr(model, "merge_and_unload")
    return Trained(sample, values, attention, SHARDED if wrapped is not None else MERGED if merged else EXACT)


def _values(model: Any, score: ScoreFunction, pairs: Sequence[PairTokens]) -> torch.Tensor:
    """Return the scores of both responses, pair by pair, [pairs × 2]."""
    values = response_values(score)
    model.eval()
    # What was compiled was compiled for training; these few rows are not worth another minute of it.
    with torch.no_grad(), torch.compiler.set_stance("force_eager"):
        return torch.cat([values(model, collate([pair], "padded")).double().cpu() for pair in pairs])


def let_go(trainer: Any) -> None:
    """Free the memory of a trained and saved model; its trainer cannot be used afterwards."""
    if trainer.optimizer is not None:  # none was made where a training went on after its last step
        trainer.optimizer.state.clear()
    trainer.model.zero_grad(set_to_none=True)
    if not trainer.is_fsdp_enabled:
        trainer.model.to("meta")


def check(path: Path, head: Head, score: ScoreFunction, trained: Trained, tokenizer: Tokenizer) -> float:
    """Load a saved model as every command does, and return how far its scores differ, relative to 1 + their size.

    Errors: `ModelError` where they differ by more than rounding explains, or where the tokenizer does.
    """
    loaded = loading.load(str(path), head, (), 0, unfinished=True)
    attend_with(loaded.model, trained.attention)
    found = _values(loaded.model, score, trained.pairs)
    off = float(((found - trained.values).abs() / (1 + trained.values.abs())).max())
    if not off <= trained.tolerance:
        problem = f"the saved model scores {len(trained.pairs)} pairs otherwise than the trained one, by {off:.2g}"
        expected = f"expected at most {trained.tolerance:g} of 1 + the score"
        raise ModelError(str(path), problem, expected, "the run is not finished; do not use its model, and report this")
    for name, same in (
        ("vocabulary", loaded.tokenizer.get_vocab() == tokenizer.get_vocab()),
        ("chat template", loaded.tokenizer.chat_template == tokenizer.chat_template),
    ):
        if not same:
            raise ModelError(str(path), f"the saved tokenizer has another {name} than the one in training", "report it")
    say("saved: the model that was read back from disk scores as trained")
    return off
