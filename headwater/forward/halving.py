"""Split forward passes in two where memory runs out.

The number of rows in a pass changes results only by rounding. A pass that does not fit in memory is computed in two
halves, and no later pass is larger. A single row that does not fit ends the command (exit code 7).
"""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch

from headwater.console import say
from headwater.data.tokens import PairTokens
from headwater.errors import ResourceError, first_line

T = TypeVar("T")

MESSAGES = ("out of memory", "not enough memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


def is_exhausted(error: BaseException) -> bool:
    """Return whether an error means that memory is exhausted: on a GPU, on the CPU, or of the process."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in MESSAGES)


def release() -> None:
    """Free the memory of a failed pass; call it after its exception is gone, whose frames hold tensors."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Limit:
    """Maximum number of tokens of a pass; lowered where memory runs out."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def lower(self, failed: int, what: str) -> None:
        """Allow half of the tokens of the pass that failed."""
        self.tokens = max(1, failed // 2)
        say(f"{what}: out of memory at {failed:,} tokens; continues with --tokens-per-pass {self.tokens}")


def too_long(what: str, row: str, tokens: int, error: str) -> ResourceError:
    """Return the error of a row that does not fit on its own."""
    fix = "give a smaller --max-length, --precision bf16, --gradient-checkpointing or a smaller model"
    return ResourceError(f"{what}, row {row}", f"memory does not hold its {tokens:,} tokens", fix, error)


def in_passes(
    parts: Iterable[Sequence[int]],
    compute: Callable[[list[int]], T],
    tokens: Callable[[Sequence[int]], int],
    name: Callable[[int], str],
    what: str,
) -> Iterator[tuple[list[int], T]]:
    """Yield parts with the results of `compute`, split in two where memory does not hold them.

    `tokens` counts the tokens of a part; `name` names an item in messages. Errors: `ResourceError` for a single item.
    """
    limit: Limit | None = None
    for part in parts:
        # A stack of parts: the first half of a split part is computed next, so results stay in order.
        waiting = [list(part)]
        while waiting:
            now = waiting.pop()
            if limit is not None and len(now) > 1 and tokens(now) > limit.tokens:
                waiting += _halves(now)
                continue
            # Handled outside of the except block: while the exception lives, its traceback keeps the tensors of the
            # failed pass in memory.
            error = ""
            try:
                found = compute(now)
            except (RuntimeError, MemoryError) as problem:
                if not is_exhausted(problem):
                    raise
                error = first_line(problem)
            if not error:
                yield now, found
                continue
            release()
            if len(now) == 1:
                raise too_long(what, name(now[0]), tokens(now), error)
            limit = limit or Limit(tokens(now))
            limit.lower(tokens(now), what)
            waiting += _halves(now)


def _halves(part: list[int]) -> list[list[int]]:
    """Split a part in two, the second half first: the caller pops from the end."""
    middle = (len(part) + 1) // 2
    return [part[middle:], part[:middle]]


class Rows:
    """The pairs of a batch, kept for repacking into smaller passes; trainers pass unknown objects on unchanged."""

    def __init__(self, pairs: Sequence[PairTokens]) -> None:
        self.pairs = pairs


def smaller(batch: Any, tokens_of: Callable[[PairTokens], int], processes: int, error: str) -> int:
    """Return a lower maximum of tokens for the passes of a batch (`Packs`) of which one did not fit.

    Errors: `ResourceError` for passes of one pair, and where several processes train: the other processes wait for
    gradients in an order that a repeated pass would break.
    """
    if all(each["num_pairs"] == 1 for each in batch["packs"]):
        longest = max(batch["rows"].pairs, key=tokens_of)
        raise too_long("training", longest.id, tokens_of(longest), error)
    largest = max(each["input_ids"].numel() for each in batch["packs"])
    if processes > 1:
        found = f"out of memory at {largest:,} tokens in one of several processes"
        raise ResourceError("training", found, f"repeat the command with --tokens-per-pass {largest // 2}", error)
    limit = Limit(largest)
    limit.lower(largest, "training")
    return limit.tokens
