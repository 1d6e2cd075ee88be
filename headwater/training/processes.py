"""Several processes of one training: when one of them dies or hangs, the others end with a reason."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator

import torch
from accelerate import PartialState

from headwater.errors import HeadwaterError

LOST = ("Timed out waiting", "Connection closed by peer", "Connection reset by peer", "Broken pipe", "timed out")
"""What gloo says, in a plain RuntimeError, of a process that does not answer any more."""


class LostProcessError(HeadwaterError):
    """Another process of the job ended, or did not answer in time."""


def join(seconds: int) -> None:
    """Join the processes of this job, if there are several, before transformers does: on CPUs it sets no timeout."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        PartialState(cpu=not torch.cuda.is_available(), timeout=datetime.timedelta(seconds=seconds))


@contextlib.contextmanager
def answering(processes: int, seconds: int) -> Iterator[None]:
    """Name the cause where a collective operation fails inside. Errors: `LostProcessError`."""
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, torch.distributed.DistError) or any(words in str(error) for words in LOST)
        if processes == 1 or not lost:
            raise
        raise LostProcessError(
            f"{processes} processes",
            f"one of them ended, or did not answer for {seconds} s (--ddp-timeout)",
            "look for its own message above; the same command goes on from the last checkpoint",
        ) from error
