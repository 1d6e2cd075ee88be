"""Forward passes over many pairs: scores, token values and hidden states, in the order of the pairs.

Pairs are packed a window at a time, and a pass that does not fit in memory is divided (forward/halving.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray

from headwater import interrupts
from headwater.console import track
from headwater.data.tokens import PairTokens
from headwater.errors import ModelError
from headwater.forward import halving, partial_results
from headwater.forward.finite import check_scores
from headwater.forward.hidden_states import hidden_states
from headwater.forward.packing import SIDES, UNIFORM, PairBatch, RowFormat, collate, parts_of, tokens_of
from headwater.forward.scores import (
    ScoreFunction,
    TokenFunction,
    kind_of,
    last_tokens,
    pair_loss,
    to_device,
    token_log_probs,
)
from headwater.losses import Loss
from headwater.losses.token_weights import Weights

T = TypeVar("T")

WINDOW = 512
"""Number of pairs that are packed together: enough to fill rows, few enough to hold in memory."""


def computed(
    compute: Callable[[PairBatch], T],
    pairs: Sequence[PairTokens],
    max_tokens: int,
    row_format: RowFormat,
    what: str,
    weights: Weights = UNIFORM,
) -> Iterator[tuple[list[int], T]]:
    """Yield the results of `compute` for forward passes over all pairs, with their indices, under a progress bar.

    A pass has at most `max_tokens` tokens, and fewer where memory does not hold them; the command can be interrupted
    between two passes. Errors: `ResourceError`, `Stopped`.
    """
    starts = range(0, len(pairs), WINDOW)
    windows = track(starts, what, len(starts))
    parts = (
        [start + i for i in part]
        for start in windows
        for part in parts_of(pairs[start : start + WINDOW], row_format, max_tokens)
    )
    passes = halving.in_passes(
        parts,
        lambda part: compute(collate([pairs[index] for index in part], row_format, weights)),
        lambda part: sum(tokens_of(pairs[index], row_format) for index in part),
        lambda index: pairs[index].id,
        what,
    )
    for found in passes:
        yield found
        interrupts.check()


def last_states(
    model: torch.nn.Module, pairs: Sequence[PairTokens], max_tokens: int, row_format: RowFormat
) -> NDArray[np.float32]:
    """Return the hidden state at the last token of every response, [pairs, SIDES, hidden], in the order given.

    Errors: `ModelError` for an encoder, whose last token does not summarise a row.
    """
    if not kind_of(model).causal:
        raise ModelError(
            type(model).__name__, "is an encoder, whose last token does not summarise a row", "leave --embed out"
        )
    device = next(model.parameters()).device
    states: dict[int, NDArray[np.float32]] = {}
    model.eval()

    def read(batch: PairBatch) -> NDArray[np.float32]:
        batch = to_device(batch, device)
        found: NDArray[np.float32] = hidden_states(model, batch)[last_tokens(batch)].float().cpu().numpy()
        return found.reshape(batch["num_pairs"], SIDES, -1)

    with torch.inference_mode():
        for indices, last in computed(read, pairs, max_tokens, row_format, "hidden states"):
            check_scores(last, [pairs[index].id for index in indices], "hidden states")
            states |= dict(zip(indices, last, strict=True))
    return np.stack([states[index] for index in range(len(pairs))])


def score_pairs(
    model: torch.nn.Module,
    score: ScoreFunction,
    loss: Loss,
    pairs: Sequence[PairTokens],
    max_tokens: int,
    row_format: RowFormat,
    weights: Weights = UNIFORM,
) -> NDArray[np.float64]:
    """Return the rewards that `loss` gives to pairs, [pairs, 2] chosen and rejected, in the order given.

    An interrupted call continues in the next one (`forward/partial_results.py`).
    """
    device = next(model.parameters()).device
    rewards, done = np.zeros((len(pairs), SIDES)), np.zeros(len(pairs), dtype=bool)
    model.eval()

    def of_pass(batch: PairBatch) -> NDArray[np.float64]:
        batch = to_device(batch, device)
        result = pair_loss(model, score, loss, batch).result
        both = torch.stack([result.chosen_reward, result.rejected_reward], dim=1)
        found: NDArray[np.float64] = both.double().cpu().numpy()
        return found

    what = f"rewards by {loss!r}, {weights!r}, {score.__qualname__}"
    key = (lambda: partial_results.key_of(model, what, pairs)) if partial_results.is_named(score) else None
    with torch.inference_mode(), partial_results.kept(key, rewards, done):
        left = np.flatnonzero(~done).tolist()
        for indices, found in computed(
            of_pass, [pairs[place] for place in left], max_tokens, row_format, "scoring", weights
        ):
            places = [left[index] for index in indices]
            check_scores(found, [pairs[place].id for place in places], "rewards")
            rewards[places], done[places] = found, True
    return rewards


class TokenValues(NamedTuple):
    """A value for every token of both responses: a log-probability, or the reward of the prefix that ends there."""

    chosen: NDArray[np.float32]  # [scored chosen tokens]
    rejected: NDArray[np.float32]  # [scored rejected tokens]


def each_token_values(
    model: torch.nn.Module,
    read: TokenFunction,
    pairs: Sequence[PairTokens],
    max_tokens: int,
    row_format: RowFormat,
    what: str,
) -> Iterator[tuple[int, TokenValues]]:
    """Yield the index of a pair and the values of its response tokens by `read` (`token_log_probs`, `token_rewards`).

    A forward pass holds at most `max_tokens` tokens; `what` names the progress bar. Pairs come in the order in which
    rows are filled.
    """
    device = next(model.parameters()).device
    model.eval()

    def of_pass(batch: PairBatch) -> list[NDArray[np.float32]]:
        by_token = read(model, to_device(batch, device)).float().cpu().numpy()
        return np.split(by_token, np.cumsum(batch["lengths"])[:-1])

    with torch.inference_mode():
        for indices, sides in computed(of_pass, pairs, max_tokens, row_format, what):
            ids = [pairs[index].id for index in indices for _ in range(SIDES)]
            check_scores(sides, ids, what)
            for number, index in enumerate(indices):
                yield index, TokenValues(*sides[SIDES * number : SIDES * number + SIDES])


def token_values(
    model: torch.nn.Module,
    read: TokenFunction,
    pairs: Sequence[PairTokens],
    max_tokens: int,
    row_format: RowFormat,
    what: str,
) -> list[TokenValues]:
    """Return `each_token_values` in the order of `pairs`.

    An interrupted call continues in the next one (`forward/partial_results.py`).
    """
    if not partial_results.is_named(read):
        return list(dict(sorted(each_token_values(model, read, pairs, max_tokens, row_format, what))).values())
    starts = starts_of(pairs)
    values, done = np.zeros(starts[-1], dtype=np.float32), np.zeros(len(pairs), dtype=bool)
    with partial_results.kept(
        lambda: partial_results.key_of(model, f"{what} by {read.__qualname__}", pairs), values, done
    ):
        left = np.flatnonzero(~done).tolist()
        for number, value in each_token_values(model, read, [pairs[row] for row in left], max_tokens, row_format, what):
            place(values, starts, left[number], value)
            done[left[number]] = True
    sides = np.split(values, starts[1:-1])
    return [TokenValues(*sides[SIDES * row : SIDES * row + SIDES]) for row in range(len(pairs))]


def starts_of(pairs: Sequence[PairTokens]) -> NDArray[np.int64]:
    """Return the offset of every response in a flat array of token values, [SIDES × pairs + 1]; last, its length."""
    lengths = (length for pair in pairs for length in pair.scored)
    return np.cumsum([0, *lengths], dtype=np.int64)


def place(values: NDArray[np.float32], starts: NDArray[np.int64], row: int, found: TokenValues) -> None:
    """Write the values of a pair to its place in the flat array."""
    values[starts[SIDES * row] : starts[SIDES * row + SIDES]] = np.concatenate(found)


def with_reference(
    model: torch.nn.Module, pairs: Sequence[PairTokens], max_tokens: int, row_format: RowFormat
) -> list[PairTokens]:
    """Compute reference log-probabilities once and return the pairs with them, one value a response token."""
    values = token_values(model, token_log_probs, pairs, max_tokens, row_format, "reference log-probabilities")
    return [
        pair._replace(chosen_reference=value.chosen, rejected_reference=value.rejected)
        for pair, value in zip(pairs, values, strict=True)
    ]
