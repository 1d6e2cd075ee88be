"""Requests to stop: the first SIGTERM, SIGINT or SIGUSR1 ends a command after the current unit of work.

A handler only records the request; loops over units of work (batches, prompts, judgements, points of a sweep) call
`check` between two of them, so everything finished is on disk when the command ends. A second signal ends the process
at once.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from types import FrameType

EXIT_CODES = {signal.SIGINT: 130, signal.SIGTERM: 75}
"""Exit code by signal. 75 (EX_TEMPFAIL) means to a scheduler that the same command can continue."""
if hasattr(signal, "SIGUSR1"):  # not on Windows; Slurm sends it before a time limit
    EXIT_CODES[signal.SIGUSR1] = 75


class Stopped(KeyboardInterrupt):
    """Raised to end a command before its work is done, after a signal.

    It is no `Exception`, so that code which survives one bad item does not treat it as an error of the item.
    """

    def __init__(self, number: signal.Signals) -> None:
        """Store the signal."""
        self.number = number
        self.exit_code = EXIT_CODES[number]
        again = f"to go on, repeat: headwater {shlex.join(sys.argv[1:])}" if len(sys.argv) > 1 else "repeat the command"
        super().__init__(f"stopped by {number.name} · {again}")


_requested: signal.Signals | None = None
_postponed = 0


def requested() -> signal.Signals | None:
    """Return the signal that requested a stop; None where none did."""
    return _requested


def check() -> None:
    """Raise `Stopped` after a signal, unless inside `postponed`. Errors: `Stopped`."""
    if _requested is not None and not _postponed:
        raise Stopped(_requested)


@contextlib.contextmanager
def postponed() -> Iterator[None]:
    """Disable `check` in the block: for work that reads `requested` itself, as the training loop does."""
    global _postponed
    _postponed += 1
    try:
        yield
    finally:
        _postponed -= 1


@contextlib.contextmanager
def handled() -> Iterator[None]:
    """Record the first signal in the block instead of ending the process; restores the earlier handlers afterwards.

    Handlers can be set in the main thread only; elsewhere this does nothing.
    """
    global _requested
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, _record) for number in EXIT_CODES}
    try:
        yield
    finally:
        _requested = None
        for number, handler in before.items():
            signal.signal(number, handler)


def _record(number: int, frame: FrameType | None) -> None:
    global _requested
    if _requested is not None:
        os._exit(EXIT_CODES[signal.Signals(number)])
    _requested = signal.Signals(number)
    # os.write, because a handler may run in the middle of another write to the same stream.
    os.write(2, f"\nheadwater: {_requested.name}: ends after the current step; a second signal ends at once\n".encode())
