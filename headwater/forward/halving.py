"""Forward passes that are halved where memory runs out.

How many rows are computed at once changes nothing but rounding. Where a pass does not fit, it is computed in two
halves, and no later one is larger than that. A single row that does not fit ends the command (exit 7).
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
    """Say whether an error means that no memory is left: on a GPU, on the CPU, or of the process."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(message in str(error) for message in MESSAGES)


def release() -> None:
    """Give back what a failed pass has left; call it when its exception is gone, which holds tensors."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


class Limit:
    """How many tokens a pass may have; lowered where memory runs out."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def lower(self, failed: int, what: str) -> None:
        """Allow half of the tokens of a pass that failed."""
        self.tokens = max(1, failed // 2)
        say(f"{what}: out of memory at {failed:,} tokens; goes on with --tokens-per-pass {self.tokens}")


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
    """Yield what `compute` makes of parts of some items, halved where memory does not hold them.

    `tokens` counts those of a part, `name` names an item in messages. Errors: `ResourceError` for a single item.
    """
    limit: Limit | None = None
    for part in parts:
        waiting = [list(part)]
        while waiting:
            now = waiting.pop()
            if limit is not None and len(now) > 1 and tokens(now) > limit.tokens:
                waiting += _halves(now)
                continue
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
    """Return a part in two, the second half first: they are taken from the end."""
    middle = (len(part) + 1) // 2
    return [part[middle:], part[:middle]]


class Rows:
    """The pairs of a batch, for the case that it is laid out anew; trainers leave such an object as it is."""

    def __init__(self, pairs: Sequence[PairTokens]) -> None:
        self.pairs = pairs


def smaller(batch: Any, tokens_of: Callable[[PairTokens], int], processes: int, error: str) -> int:
    """Return how many tokens the passes of a batch (`Packs`) may have, after one of them did not fit.

    Errors: `ResourceError` for passes of one pair, and of several processes: the others wait for gradients in an order
    that a second try would not keep to.
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
