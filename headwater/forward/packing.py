"""Pairs to rows that share what they can: `[opening | chosen | rejected]`, pair after pair, without padding.

A labelled response is a pair with an empty side: it takes its prompt and its own tokens, and its other score is 0.

Both responses of a pair follow one prompt, so the prompt is laid out once; tokens that begin both responses are laid
out once too, and stay in the score of both. Such a tree of tokens (`Tree`: a trunk and its branches) is what attention
needs to know of a row (forward/attention.py).

What a trainer elsewhere knows by convention is data here: `position_ids` restart at the end of the trunk for the
second branch, and `predictor` names the position whose hidden state predicts a token (the first rejected token is
predicted by the last token of the trunk, not by its left neighbour).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypedDict, cast

import numpy as np
import torch
from numpy.typing import NDArray

from headwater.data.tokens import PairTokens
from headwater.forward.halving import Rows
from headwater.losses.token_weights import Uniform, Weights

UNIFORM = Uniform()

RowFormat = Literal["shared", "packed", "padded", "single"]
"""shared: a tree a pair, in one row. packed: prompt and response, one after another in one row. padded: one response a
row, filled up on the right. single: every response in a forward of its own, without padding, for architectures whose
numbers depend on what else is in a batch (forward/format_check.py finds out)."""

SIDES = 2
"""Responses of a pair: chosen, rejected."""


@dataclass(frozen=True, slots=True)
class Tree:
    """Consecutive tokens of a row: a trunk, and branches that each continue it.

    Not a tuple, because trainers rebuild every tuple of a batch.
    """

    trunk: int
    branches: tuple[int, ...]

    @property
    def length(self) -> int:
        """Tokens of the tree."""
        return self.trunk + sum(self.branches)


class PairBatch(TypedDict):
    """R rows of T tokens (R = 1 unless padded) that hold M response tokens, which N tokens of responses refer to.

    In the layout "single" the trees of the one row are read in forwards of their own (`scoring.hidden_states`).

    M < N where two responses begin alike. A TypedDict instead of a dataclass because transformers.Trainer rebuilds
    batches as mappings.
    """

    row_format: RowFormat
    input_ids: torch.Tensor  # [R, T] int64; padding 0
    position_ids: torch.Tensor  # [R, T] int64; every branch restarts at the end of its trunk
    attention_mask: torch.Tensor  # [R, T] int64: 0 on padding
    trees: tuple[Tree, ...]  # of the one row, in their order; none where rows are padded
    position: torch.Tensor  # [M] int64: where a response token stands, counted over all rows
    predictor: torch.Tensor  # [M] int64: where the hidden state stands that predicts it
    token: torch.Tensor  # [N] int64: which of the M tokens this is; chosen, rejected of pair 0, then of pair 1, …
    slot: torch.Tensor  # [N] int64: SIDES × pair + side
    weight: torch.Tensor  # [N] float32: how much this token counts
    reference: torch.Tensor  # [N] float32: its log-probability under the reference model; 0 where there is none
    lengths: torch.Tensor  # [SIDES × pairs] int64: tokens of every response
    score_gap: torch.Tensor  # [pairs] float32: the data's score of chosen less that of rejected; 0 where there is none
    has_reference: bool
    has_score_gap: bool
    num_pairs: int


class Packs(TypedDict):
    """What an optimizer step computes at once or one after another, as memory allows: the pairs of a batch."""

    packs: list[PairBatch]
    num_pairs: int
    ids: list[str]
    """Of the pairs, in the order of the passes."""
    rows: Rows
    """The pairs themselves, for the case that they do not fit."""
    partners: list[PairBatch]
    """The same prompts with responses to other ones, for a loss that needs them; else empty."""


def fill(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Share out items of known lengths to rows of `max_tokens` tokens: first fit, the longest first.

    An item longer than `max_tokens` gets a row of its own. Returns indices, in rising order within a row.
    """
    rows: list[list[int]] = []
    free: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda i: -lengths[i]):
        row = next((r for r, left in enumerate(free) if left >= lengths[index]), len(rows))
        if row == len(rows):
            rows.append([])
            free.append(max_tokens)
        rows[row].append(index)
        free[row] -= lengths[index]
    return [sorted(row) for row in rows]


def pack(pairs: Sequence[PairTokens], row_format: RowFormat, max_tokens: int, weights: Weights = UNIFORM) -> Packs:
    """Lay the pairs of a batch out in forward passes of at most `max_tokens` tokens."""
    parts = parts_of(pairs, row_format, max_tokens)
    packs = [collate([pairs[index] for index in part], row_format, weights) for part in parts]
    ids = [pairs[index].id for part in parts for index in part]
    return {"packs": packs, "num_pairs": len(pairs), "ids": ids, "rows": Rows(pairs), "partners": []}


def parts_of(pairs: Sequence[PairTokens], row_format: RowFormat, max_tokens: int) -> list[list[int]]:
    """Return the indices of the pairs of every forward pass of at most `max_tokens` tokens, or of one longer pair."""
    if row_format == "padded":
        return _like_length(pairs, max_tokens)
    return fill([tokens_of(pair, row_format) for pair in pairs], max_tokens)


def tokens_of(pair: PairTokens, row_format: RowFormat) -> int:
    """Count the tokens that a pair takes in a row."""
    if row_format == "shared":
        return pair.length - common_prefix_length(pair)
    return sum(len(pair.prompt) + len(response) for response in (pair.chosen, pair.rejected) if len(response))


def common_prefix_length(pair: PairTokens) -> int:
    """Count the tokens that begin both responses."""
    shared = min(len(pair.chosen), len(pair.rejected))
    differs = np.flatnonzero(pair.chosen[:shared] != pair.rejected[:shared])
    return int(differs[0]) if len(differs) else shared


def _like_length(pairs: Sequence[PairTokens], max_tokens: int) -> list[list[int]]:
    """Group pairs of like length so that their padded rows hold at most `max_tokens` tokens."""
    parts: list[list[int]] = []
    for index in sorted(range(len(pairs)), key=lambda i: _longest(pairs[i])):
        if parts and SIDES * (len(parts[-1]) + 1) * _longest(pairs[index]) <= max_tokens:
            parts[-1].append(index)
        else:
            parts.append([index])
    return parts


def _longest(pair: PairTokens) -> int:
    return len(pair.prompt) + max(len(pair.chosen), len(pair.rejected))


class Path(NamedTuple):
    """One response in its row: its tokens by their positions, and by the positions that predict them."""

    positions: NDArray[np.int64]
    predictors: NDArray[np.int64]


NOWHERE = Path(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
"""The path of the side that a labelled response does not have."""


class _Row:
    """Rows on their way: columns of tokens, and the path of every response, in their order."""

    def __init__(self) -> None:
        self.ids: list[NDArray[np.int32]] = []
        self.positions: list[NDArray[np.int64]] = []
        self.trees: list[Tree] = []
        self.paths: list[Path] = []
        self.length = 0

    def add(self, trunk: Sequence[NDArray[np.int32]], branches: Sequence[NDArray[np.int32]]) -> None:
        """Append a tree: a trunk (prompt, common opening) and branches; every branch ends a response."""
        prompt, conversation_id = (len(part) for part in trunk)
        size = prompt + conversation_id
        start = self.length + size
        self.ids += [*trunk, *branches]
        self.positions.append(np.arange(size))
        for branch in branches:
            n = len(branch)
            self.positions.append(np.arange(size, size + n))
            # After the trunk's last token, which predicts the first token of every branch, the left neighbour does.
            path = np.concatenate(
                [np.arange(self.length + prompt - 1, self.length + size), np.arange(start, start + n)]
            )
            self.paths.append(Path(path[1:], path[:-1]))
            start += n
        self.trees.append(Tree(size, tuple(len(branch) for branch in branches)))
        self.length = start

    def add_apart(self, prompt: NDArray[np.int32], responses: Sequence[NDArray[np.int32]]) -> None:
        """Append a tree for every response, each with the prompt to itself; for an empty side, nothing."""
        for response in responses:
            if len(response):
                self.add((prompt, response[:0]), (response,))
            else:
                self.paths.append(NOWHERE)


def collate(pairs: Sequence[PairTokens], row_format: RowFormat = "shared", weights: Weights = UNIFORM) -> PairBatch:
    """Lay pairs out in one forward pass."""
    row = _Row()
    for pair in pairs:
        if row_format == "shared":
            conversation_id = common_prefix_length(pair)
            row.add(
                (pair.prompt, pair.chosen[:conversation_id]),
                (pair.chosen[conversation_id:], pair.rejected[conversation_id:]),
            )
        else:
            row.add_apart(pair.prompt, (pair.chosen, pair.rejected))
    columns = {
        "weight": np.concatenate(list(_weights(pairs, weights))).astype(np.float32),
        "reference": np.concatenate(list(_references(pairs))).astype(np.float32),
        "score_gap": np.array([pair.score_gap or 0.0 for pair in pairs], dtype=np.float32),
    }
    known = {
        "has_reference": all(pair.chosen_reference is not None for pair in pairs),
        "has_score_gap": all(pair.score_gap is not None for pair in pairs),
    }
    return _batch(row, row_format, columns, known | {"num_pairs": len(pairs)})


class Group(NamedTuple):
    """A prompt as token ids, and any number of responses to it."""

    prompt: NDArray[np.int32]
    responses: tuple[NDArray[np.int32], ...]


def collate_groups(groups: Sequence[Group], row_format: RowFormat = "shared") -> PairBatch:
    """Lay prompts with any number of responses out in one forward pass, for functions of tokens (`TokenFunction`).

    In the batch, `slot` and `lengths` count responses, not sides of pairs; scores of pairs cannot be read from it.
    """
    row = _Row()
    for prompt, responses in groups:
        if row_format == "shared":
            row.add((prompt, prompt[:0]), responses)
        else:
            row.add_apart(prompt, responses)
    tokens = sum(len(response) for _, responses in groups for response in responses)
    columns = {
        "weight": np.ones(tokens, dtype=np.float32),
        "reference": np.zeros(tokens, dtype=np.float32),
        "score_gap": np.zeros(len(groups), dtype=np.float32),
    }
    return _batch(row, row_format, columns, {"has_reference": False, "has_score_gap": False, "num_pairs": len(groups)})


def _batch(row: _Row, row_format: RowFormat, columns: dict[str, Any], known: dict[str, Any]) -> PairBatch:
    """Turn a filled row into tensors, and add what is `known` of its pairs and `columns` of their tokens."""
    ids, positions = (np.concatenate(column).astype(np.int64) for column in (row.ids, row.positions))
    placed = np.arange(row.length)
    mask = np.ones(row.length, dtype=np.int64)
    shape = (1, row.length)
    if row_format == "padded":
        shape, placed = _padded(row.trees)
        ids, positions, mask = (_spread(column, shape, placed) for column in (ids, positions, mask))
    at = np.concatenate([path.positions for path in row.paths])
    predictors = np.concatenate([path.predictors for path in row.paths])
    distinct, first, token = np.unique(at, return_index=True, return_inverse=True)
    lengths = np.array([len(path.positions) for path in row.paths])
    batch: dict[str, Any] = {
        "input_ids": ids.reshape(shape),
        "position_ids": positions.reshape(shape),
        "attention_mask": mask.reshape(shape),
        "position": placed[distinct],
        "predictor": placed[predictors[first]],
        "token": token,
        "slot": np.repeat(np.arange(len(lengths)), lengths),
        "lengths": lengths,
        **columns,
    }
    tensors = {name: torch.from_numpy(np.ascontiguousarray(column)) for name, column in batch.items()}
    trees = () if row_format == "padded" else tuple(row.trees)
    return cast(PairBatch, {**tensors, "row_format": row_format, "trees": trees, **known})


def _padded(trees: Sequence[Tree]) -> tuple[tuple[int, int], NDArray[np.int64]]:
    """Give every tree a row as wide as the longest: the shape, and where every token goes, counted over all rows."""
    lengths = np.array([tree.length for tree in trees])
    width = int(lengths.max())
    starts = np.cumsum(lengths) - lengths
    return (len(trees), width), np.arange(lengths.sum()) + np.repeat(np.arange(len(trees)) * width - starts, lengths)


def _spread(column: NDArray[np.int64], shape: tuple[int, int], placed: NDArray[np.int64]) -> NDArray[np.int64]:
    spread = np.zeros(shape[0] * shape[1], dtype=np.int64)
    spread[placed] = column
    return spread


def _weights(pairs: Sequence[PairTokens], weights: Weights) -> Iterator[NDArray[np.float64]]:
    for pair in pairs:
        yield from weights(len(pair.chosen), len(pair.rejected), pair.key)


def _references(pairs: Sequence[PairTokens]) -> Iterator[NDArray[Any]]:
    for pair in pairs:
        for response, known in ((pair.chosen, pair.chosen_reference), (pair.rejected, pair.rejected_reference)):
            yield np.zeros(len(response)) if known is None else known
