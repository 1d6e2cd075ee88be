"""Several processes of one training job: joining them, and ending all with a reason when one dies or hangs."""

from __future__ import annotations

import contextlib
import datetime
import os
from collections.abc import Iterator

import torch
from accelerate import PartialState

from headwater.errors import HeadwaterError

LOST = ("Timed out waiting", "Connection closed by peer", "Connection reset by peer", "Broken pipe", "timed out")
"""Parts of the messages that gloo raises, as plain RuntimeErrors, for a process that does not answer."""


class LostProcessError(HeadwaterError):
    """Another process of the job ended, or did not answer in time."""


def join(seconds: int) -> None:
    """Join the processes of this job, if there are several, before transformers does: on CPUs it sets no timeout."""
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        PartialState(cpu=not torch.cuda.is_available(), timeout=datetime.timedelta(seconds=seconds))


@contextlib.contextmanager
def answering(processes: int, seconds: int) -> Iterator[None]:
    """Raise `LostProcessError` for a collective operation that fails inside because a process is gone."""
    try:
        yield
    except RuntimeError as error:
        lost = isinstance(error, torch.distributed.DistError) or any(words in str(error) for words in LOST)
        if processes == 1 or not lost:
            raise
        raise LostProcessError(
            f"{processes} processes",
            f"one of them ended, or did not answer for {seconds} s (--ddp-timeout)",
            "look for its own message above; the same command continues from the last checkpoint",
        ) from error
