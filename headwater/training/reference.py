"""Reference log-probabilities of every response token, computed once and stored in a file.

The log-probability that a causal model gives a token does not depend on later tokens. The values of a whole response
therefore apply to every truncation that keeps its beginning, and to every ratio, loss, β, seed and epoch. A file is
named by a hash of everything its values depend on (weights, tokens, precision). Before use its checksum is compared
and a few rows are computed again; where anything differs it is computed anew, with a message.

Files are in `$HEADWATER_CACHE/reference` (or `~/.cache/headwater/reference`), four bytes a token, and are mapped into
memory instead of read as a whole. Several processes fill one file together.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xxhash
from accelerate import PartialState
from numpy.typing import NDArray

from headwater import files
from headwater.console import say
from headwater.data import token_cache
from headwater.data.tokens import Mask, PairTokens
from headwater.errors import ResourceError, UsageError
from headwater.forward import partial_results
from headwater.forward.format_check import row_format_for
from headwater.forward.packing import RowFormat, tokens_of
from headwater.forward.passes import (
    WINDOW,
    TokenValues,
    each_token_values,
    place,
    starts_of,
    token_values,
    with_reference,
)
from headwater.forward.scores import token_log_probs

FORMAT = "2"
CHECKED = 3
"""Number of pairs that are computed again before a file is used."""
WORTH = 4.0
"""Values are computed for whole responses if that costs at most this many times the truncated ones: later runs with
another ratio then reuse them."""

Values = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Reference:
    """A reference model and how its values are computed: all that they depend on, except the tokens."""

    model: Any
    max_tokens: int
    """Tokens of a forward pass."""
    bf16: bool
    """Autocast, as in training: policy and reference are then the same to the last bit at the first step."""

    def fill(self, pairs: Sequence[PairTokens], whole: Sequence[PairTokens]) -> list[PairTokens]:
        """Return pairs with reference values, from the file of `whole` pairs where those begin with them.

        Both were made of the same rows: a pair and a whole one with the same `row` belong together.

        Errors: `UsageError` when the file cannot be written.
        """
        if _cost(whole) > WORTH * _cost(pairs):
            whole = pairs
        by_row = {pair.row: pair for pair in self.stored(whole)}
        filled = [_from_whole(pair, by_row.get(pair.row)) for pair in pairs]
        missing = [index for index, pair in enumerate(filled) if pair.chosen_reference is None]
        if missing:
            say(f"reference: {len(missing)} of {len(pairs)} pairs are not how whole ones begin, and are computed apart")
            with self._precision():
                apart = [filled[i] for i in missing]
                computed = with_reference(self.model, apart, self.max_tokens, self._row_format(apart))
            for index, pair in zip(missing, computed, strict=True):
                filled[index] = pair
        return filled

    def stored(self, pairs: Sequence[PairTokens]) -> list[PairTokens]:
        """Return pairs with values from the file, which is computed where it is missing or does not match."""
        path = token_cache.home() / "reference" / f"{self._key(pairs)}.npy"
        starts = starts_of(pairs)
        values = self._load(path, pairs, starts)
        if values is None:
            try:
                values = self._made(path, pairs, starts)
            except OSError as error:
                raise UsageError(str(path), f"cannot be written: {error}", "set HEADWATER_CACHE") from error
        return [
            pair._replace(chosen_reference=chosen, rejected_reference=rejected)
            for pair, (chosen, rejected) in zip(pairs, _by_pair(values, starts), strict=True)
        ]

    def _key(self, pairs: Sequence[PairTokens]) -> str:
        digest = xxhash.xxh3_128(f"{FORMAT} {'bf16' if self.bf16 else 'as loaded'} {len(pairs)}".encode())
        for name, tensor in self.model.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(memoryview(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy()))
        for pair in pairs:
            digest.update(f"{len(pair.prompt)} {len(pair.chosen)} {len(pair.rejected)}".encode())
            for ids in (pair.prompt, pair.chosen, pair.rejected, *(mask for mask in pair.masks if mask is not None)):
                digest.update(ids.tobytes())
        return digest.hexdigest()

    def _row_format(self, pairs: Sequence[PairTokens]) -> RowFormat:
        return row_format_for(self.model, pairs, self.max_tokens, bf16=self.bf16)

    def _precision(self) -> torch.autocast:
        device = next(self.model.parameters()).device.type
        return torch.autocast(device, torch.bfloat16, enabled=self.bf16)

    def _load(self, path: Path, pairs: Sequence[PairTokens], starts: NDArray[np.int64]) -> Values | None:
        """Map a file into memory; None where it is missing or does not hold the values of this model."""
        if not path.exists():
            return None
        try:
            values: Values = np.load(path, mmap_mode="r", allow_pickle=False)
            about = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))
            problem = "" if about["checksum"] == _checksum(values) else "is damaged"
        except (OSError, ValueError, KeyError) as error:
            problem = f"cannot be read ({error})"
        problem = problem or self._differs(values, pairs, starts)
        if problem:
            say(f"reference: {path} {problem}; it is made anew")
            return None
        say(f"reference: {path} · {len(values)} tokens, computed before")
        return values

    def _differs(self, values: Values, pairs: Sequence[PairTokens], starts: NDArray[np.int64]) -> str:
        """Compute a few pairs again and describe how a file differs; empty when it does not."""
        if values.shape != (starts[-1],):
            return f"holds {len(values)} tokens, not {starts[-1]}"
        sample = np.unique(np.linspace(0, len(pairs) - 1, CHECKED, dtype=int))
        chosen = [pairs[index] for index in sample]
        row_format = self._row_format(pairs)
        with self._precision():
            again = token_values(self.model, token_log_probs, chosen, self.max_tokens, row_format, "reference, check")
        known = list(_by_pair(values, starts))
        off = np.concatenate(
            [
                abs(np.concatenate(known[index]) - np.concatenate(value))
                for index, value in zip(sample, again, strict=True)
            ]
        )
        # In bf16 a token's value moves by some hundredths with its company in a row; another model's by whole nats.
        return "" if off.mean() <= (0.05 if self.bf16 else 1e-3) else f"is off by {off.mean():.2g} a token"

    def _made(self, path: Path, pairs: Sequence[PairTokens], starts: NDArray[np.int64]) -> Values:
        """Compute this process's share of the values into a file, and map the whole file into memory."""
        state = PartialState()
        path.parent.mkdir(parents=True, exist_ok=True)
        group = os.getppid() if state.num_processes > 1 else os.getpid()
        unfinished = path.with_name(f".tmp-{group}-{path.name}")
        if state.is_main_process and not _reserve(unfinished, int(starts[-1])):
            if state.num_processes > 1:
                fix = "free some space, or set HEADWATER_CACHE to another disk"
                raise ResourceError(str(path), "the disk has no space for the reference values", fix)
            say(f"reference: the disk has no space for {path}; the values are kept in memory alone")
            in_memory: Values = np.empty(int(starts[-1]), dtype=np.float32)
            self._fill(in_memory, pairs, range(len(pairs)), starts)
            return in_memory
        state.wait_for_everyone()
        values = np.lib.format.open_memmap(unfinished, "r+")
        mine = range(state.process_index, len(pairs), state.num_processes)
        share = -(len(pairs) // -state.num_processes)
        # Several processes meet after each window, so that nobody waits for another longer than a window takes.
        window = share if state.num_processes == 1 else WINDOW
        try:
            for start in range(0, share, window):
                self._fill(values, pairs, mine[start : start + window], starts)
                state.wait_for_everyone()
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
        values.flush()
        state.wait_for_everyone()
        if state.is_main_process:
            files.write_json(path.with_suffix(".json"), {"checksum": _checksum(values), "pairs": len(pairs)})
            unfinished.replace(path)
        state.wait_for_everyone()
        say(f"reference: {path} · {len(values)} tokens, computed now")
        made: Values = np.load(path, mmap_mode="r", allow_pickle=False)
        return made

    def _fill(
        self, values: Values, pairs: Sequence[PairTokens], indices: Sequence[int], starts: NDArray[np.int64]
    ) -> None:
        """Compute the values of the pairs at `indices` into `values`."""
        row_format, done = self._row_format(pairs), np.zeros(len(indices), dtype=bool)
        # Several processes share the file, and none knows what the others have done: they start over.
        key = (lambda: f"reference-{self._key(pairs)}") if PartialState().num_processes == 1 else None
        with self._precision(), partial_results.kept(key, values, done):
            left = np.flatnonzero(~done).tolist()
            chosen = [pairs[indices[number]] for number in left]
            found = each_token_values(self.model, token_log_probs, chosen, self.max_tokens, row_format, "reference")
            for number, value in found:
                place(values, starts, indices[left[number]], value)
                done[left[number]] = True


def _reserve(path: Path, tokens: int) -> bool:
    """Create a file for `tokens` values and return whether the disk has the space; otherwise remove it.

    The space is allocated at once: writing to a page of a mapped file that finds none ends the process by a signal.
    """
    try:
        np.lib.format.open_memmap(path, "w+", np.float32, (tokens,))
        with path.open("r+b") as handle:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(handle.fileno(), 0, path.stat().st_size)
    except OSError as error:
        path.unlink(missing_ok=True)
        if not files.is_full(error):
            raise
        return False
    return True


def _cost(pairs: Sequence[PairTokens]) -> int:
    return sum(tokens_of(pair, "shared") for pair in pairs)


def _checksum(values: Values) -> str:
    return xxhash.xxh3_128_hexdigest(np.ascontiguousarray(values).data)


def _by_pair(values: Values, starts: NDArray[np.int64]) -> Iterator[TokenValues]:
    """Yield the values of every pair, as views of the mapped file."""
    for first, second, end in zip(starts[:-1:2], starts[1::2], starts[2::2], strict=True):
        yield TokenValues(values[first:second], values[second:end])


def _from_whole(pair: PairTokens, whole: PairTokens | None) -> PairTokens:
    """Return a pair with the values of a whole pair that begins with it; unchanged where it does not."""
    if whole is None or not np.array_equal(pair.prompt, whole.prompt):
        return pair
    assert whole.chosen_reference is not None
    assert whole.rejected_reference is not None
    sides = ((pair.chosen, whole.chosen), (pair.rejected, whole.rejected))
    for (mine, theirs), mask, whole_mask in zip(sides, pair.masks, whole.masks, strict=True):
        if not np.array_equal(mine, theirs[: len(mine)]) or not _scores_alike(mask, whole_mask, len(mine)):
            return pair
    chosen, rejected = pair.scored
    return pair._replace(
        chosen_reference=whole.chosen_reference[:chosen], rejected_reference=whole.rejected_reference[:rejected]
    )


def _scores_alike(mask: Mask | None, whole: Mask | None, length: int) -> bool:
    """Return whether the same of the first `length` tokens are scored under both masks; None: all of them."""
    every = np.ones(length, dtype=bool)
    return np.array_equal(every if mask is None else mask, every if whole is None else whole[:length])
