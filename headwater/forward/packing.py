"""Pack preference pairs into rows without padding: `[prompt | common prefix | chosen | rejected]`, pair after pair.

Both responses of a pair continue one prompt, so the prompt is stored and read once. Tokens with which both responses
begin are stored once too, and count in the score of both. Such a part of a row is a tree (`Tree`: a trunk and its
branches). Two pairs in one row; the responses to the second prompt Q both begin with x:

                   prompt    chosen rejected   prompt   chosen rejected
    row            P0 P1 P2  C0 C1  R0 R1 R2 │ Q0 Q1  x  D1 D2  S1
    position_ids    0  1  2   3  4   3  4  5 │  0  1  2   3  4   3
    predicted by             P2 C0  P2 R0 R1 │       Q1   x D1   x
    trees          trunk 3, branches (2, 3)  │ trunk 3, branches (2, 1)

Attention of the first pair (row: query, column: key, 1: visible); tokens of the second pair see none of it:

              P0 P1 P2 C0 C1 R0 R1 R2
          P0   1  .  .  .  .  .  .  .
          P1   1  1  .  .  .  .  .  .
          P2   1  1  1  .  .  .  .  .
          C0   1  1  1  1  .  .  .  .
          C1   1  1  1  1  1  .  .  .
          R0   1  1  1  .  .  1  .  .    the rejected response does not see the chosen one
          R1   1  1  1  .  .  1  1  .
          R2   1  1  1  .  .  1  1  1

Every token thus has the position and the context of a row of its own, and therefore the same hidden state. A batch says
explicitly what trainers usually assume: `position_ids` restart at the end of the trunk for the second branch, and
`predictor` holds the position whose hidden state predicts a token. The first rejected token R0 is predicted by P2, the
last token of the trunk; its left neighbour C1 belongs to the other response.

A labelled response is a pair with one empty side: only its own tokens are stored, and the score of the other side is 0.
In a response of several turns, the turns of others between those of the assistant are read like all tokens, and not
scored (`PairTokens.masks`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, TypedDict, cast

import numpy as np
import torch
from numpy.typing import NDArray

from headwater.data.tokens import Mask, PairTokens
from headwater.forward.halving import Rows
from headwater.losses.token_weights import Uniform, Weights

UNIFORM = Uniform()

RowFormat = Literal["shared", "packed", "padded", "single"]
"""How responses are placed in rows.

shared: both responses of a pair share their prompt, and pairs share a row (the drawing above). packed: prompt and
response, one after another in one row. padded: one response a row, padded on the right. single: every response in a
forward pass of its own, for architectures whose values depend on the rest of a batch (forward/format_check.py).
"""

SIDES = 2
"""Number of responses of a pair: chosen, rejected."""


@dataclass(frozen=True, slots=True)
class Tree:
    """Consecutive tokens of a row: a trunk, and branches that each continue it.

    A dataclass instead of a tuple, because trainers rebuild every tuple of a batch.
    """

    trunk: int
    branches: tuple[int, ...]

    @property
    def length(self) -> int:
        """Tokens of the tree."""
        return self.trunk + sum(self.branches)


class PairBatch(TypedDict):
    """A batch of R rows of T tokens (R = 1 unless padded) with M stored and N scored response tokens.

    M < N where two responses have a common prefix, which is stored once and scored twice. In the drawing above the
    second pair has M = 4 stored tokens (x D1 D2 S1) and N = 5 scored ones (x D1 D2, x S1): `token` is 0 1 2 0 3.

    In the format "single" the trees of the one row are read in separate forward passes
    (`hidden_states.hidden_states`). A TypedDict instead of a dataclass because transformers.Trainer rebuilds batches as
    mappings.
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
    reference: torch.Tensor | None  # [N] float32: its reference log-probability; None unless all pairs have it
    lengths: torch.Tensor  # [SIDES × pairs] int64: scored tokens of every response
    columns: dict[str, torch.Tensor]  # each [pairs] float32: the numbers that all pairs have, by name
    num_pairs: int


class Packs(TypedDict):
    """The forward passes of one batch of an optimizer step, computed one after another."""

    packs: list[PairBatch]
    num_pairs: int
    ids: list[str]
    """Ids of the pairs, in the order of the passes."""
    rows: Rows
    """The pairs themselves, for packing again into smaller passes where memory runs out."""
    partners: list[PairBatch]
    """The same prompts with responses to other prompts, for a loss that needs them; else empty."""


def fill(lengths: Sequence[int], max_tokens: int) -> list[list[int]]:
    """Assign items of known lengths to rows of `max_tokens` tokens: first fit, the longest first.

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
    """Pack the pairs of a batch into forward passes of at most `max_tokens` tokens."""
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
    """A response in its row: the positions of its tokens, and the positions that predict them."""

    positions: NDArray[np.int64]
    predictors: NDArray[np.int64]

    def scored(self, mask: Mask | None) -> Path:
        """Return the path of the tokens that are scored; None for a mask: of all."""
        return self if mask is None else Path(self.positions[mask], self.predictors[mask])


NOWHERE = Path(np.empty(0, dtype=np.int64), np.empty(0, dtype=np.int64))
"""The path of an empty side of a labelled response."""


class _Row:
    """A row under construction: columns of tokens, and the path of every response, in order."""

    def __init__(self) -> None:
        self.ids: list[NDArray[np.int32]] = []
        self.positions: list[NDArray[np.int64]] = []
        self.trees: list[Tree] = []
        self.paths: list[Path] = []
        self.length = 0

    def add(self, trunk: Sequence[NDArray[np.int32]], branches: Sequence[NDArray[np.int32]]) -> None:
        """Append a tree: a trunk (prompt, common prefix) and one branch a response."""
        prompt, common = (len(part) for part in trunk)
        size = prompt + common
        start = self.length + size
        self.ids += [*trunk, *branches]
        self.positions.append(np.arange(size))
        for branch in branches:
            n = len(branch)
            self.positions.append(np.arange(size, size + n))
            # A response starts behind the prompt: the common prefix at the end of the trunk, then its own branch. Every
            # token is predicted by the one before it on this path, the first token of a branch by the end of the trunk.
            path = np.concatenate(
                [np.arange(self.length + prompt - 1, self.length + size), np.arange(start, start + n)]
            )
            self.paths.append(Path(path[1:], path[:-1]))
            start += n
        self.trees.append(Tree(size, tuple(len(branch) for branch in branches)))
        self.length = start

    def add_apart(self, prompt: NDArray[np.int32], responses: Sequence[NDArray[np.int32]]) -> None:
        """Append a tree for every response, each with its own copy of the prompt; for an empty side, nothing."""
        for response in responses:
            if len(response):
                self.add((prompt, response[:0]), (response,))
            else:
                self.paths.append(NOWHERE)


def collate(pairs: Sequence[PairTokens], row_format: RowFormat = "shared", weights: Weights = UNIFORM) -> PairBatch:
    """Pack pairs into one forward pass."""
    row = _Row()
    for pair in pairs:
        if row_format == "shared":
            common = common_prefix_length(pair)
            row.add((pair.prompt, pair.chosen[:common]), (pair.chosen[common:], pair.rejected[common:]))
        else:
            row.add_apart(pair.prompt, (pair.chosen, pair.rejected))
    masks = [mask for pair in pairs for mask in pair.masks]
    row.paths = [path.scored(mask) for path, mask in zip(row.paths, masks, strict=True)]
    weight = [each for pair in pairs for each in weights(*pair.scored, pair.key)]
    return _batch(row, row_format, len(pairs), np.concatenate(weight), _references(pairs), _columns(pairs))


class Group(NamedTuple):
    """A prompt as token ids, and any number of responses to it."""

    prompt: NDArray[np.int32]
    responses: tuple[NDArray[np.int32], ...]


def collate_groups(groups: Sequence[Group], row_format: RowFormat = "shared") -> PairBatch:
    """Pack prompts with any number of responses into one forward pass, for functions of tokens (`TokenFunction`).

    In the batch, `slot` and `lengths` count responses, not sides of pairs; scores of pairs cannot be read from it.
    """
    row = _Row()
    for prompt, responses in groups:
        if row_format == "shared":
            row.add((prompt, prompt[:0]), responses)
        else:
            row.add_apart(prompt, responses)
    tokens = sum(len(response) for _, responses in groups for response in responses)
    return _batch(row, row_format, len(groups), np.ones(tokens), None, {})


def _batch(
    row: _Row,
    row_format: RowFormat,
    num_pairs: int,
    weight: NDArray[np.float64],
    reference: NDArray[np.float32] | None,
    columns: Mapping[str, NDArray[np.float32]],
) -> PairBatch:
    """Return a row as tensors, with `weight` and `reference` [N] of its response tokens and `columns` of its pairs."""
    ids, positions = (np.concatenate(column).astype(np.int64) for column in (row.ids, row.positions))
    placed = np.arange(row.length)
    mask = np.ones(row.length, dtype=np.int64)
    shape = (1, row.length)
    if row_format == "padded":
        shape, placed = _padded(row.trees)
        ids, positions, mask = (_spread(column, shape, placed) for column in (ids, positions, mask))
    at = np.concatenate([path.positions for path in row.paths])
    predictors = np.concatenate([path.predictors for path in row.paths])
    # A common prefix lies on the paths of both responses: its tokens are predicted once, and `token` refers to them
    # twice.
    distinct, first, token = np.unique(at, return_index=True, return_inverse=True)
    lengths = np.array([len(path.positions) for path in row.paths])
    arrays = {
        "input_ids": ids.reshape(shape),
        "position_ids": positions.reshape(shape),
        "attention_mask": mask.reshape(shape),
        "position": placed[distinct],
        "predictor": placed[predictors[first]],
        "token": token,
        "slot": np.repeat(np.arange(len(lengths)), lengths),
        "lengths": lengths,
        "weight": weight.astype(np.float32),
    }
    batch: dict[str, Any] = {name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in arrays.items()}
    batch |= {
        "row_format": row_format,
        "trees": () if row_format == "padded" else tuple(row.trees),
        "reference": None if reference is None else torch.from_numpy(reference),
        "columns": {name: torch.from_numpy(column) for name, column in columns.items()},
        "num_pairs": num_pairs,
    }
    return cast(PairBatch, batch)


def _padded(trees: Sequence[Tree]) -> tuple[tuple[int, int], NDArray[np.int64]]:
    """Return the shape of padded rows, one a tree, and the place of every token, counted over all rows."""
    lengths = np.array([tree.length for tree in trees])
    width = int(lengths.max())
    starts = np.cumsum(lengths) - lengths
    return (len(trees), width), np.arange(lengths.sum()) + np.repeat(np.arange(len(trees)) * width - starts, lengths)


def _spread(column: NDArray[np.int64], shape: tuple[int, int], placed: NDArray[np.int64]) -> NDArray[np.int64]:
    spread = np.zeros(shape[0] * shape[1], dtype=np.int64)
    spread[placed] = column
    return spread


def _references(pairs: Sequence[PairTokens]) -> NDArray[np.float32] | None:
    """Return the reference log-probability of every response token, [N]; None unless all pairs have them."""
    known = [each for pair in pairs for each in (pair.chosen_reference, pair.rejected_reference) if each is not None]
    return np.concatenate(known).astype(np.float32) if len(known) == SIDES * len(pairs) else None


def _columns(pairs: Sequence[PairTokens]) -> dict[str, NDArray[np.float32]]:
    """Return the numbers that all pairs have, by name, each [pairs]."""
    names = [name for name in pairs[0].columns if all(name in pair.columns for pair in pairs)]
    return {name: np.array([pair.columns[name] for pair in pairs], dtype=np.float32) for name in names}
