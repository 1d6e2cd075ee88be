"""Exceptions with an external cause, each with its exit code.

Every message is one line: place · what was found · what was expected · what to do.
Anything that is not a `HeadwaterError` is a bug in headwater and exits with 1.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from pathlib import Path


class HeadwaterError(Exception):
    """An error with a cause outside headwater; `exit_code` is what the command line returns."""

    exit_code = 1

    def __init__(self, *parts: str) -> None:
        """Join `parts` (place, found, expected, what to do) into one line."""
        super().__init__(" · ".join(part for part in parts if part))


class UsageError(HeadwaterError):
    """A flag, a configuration key or a path that cannot be used."""

    exit_code = 2


class DataError(HeadwaterError):
    """Input data that cannot be used as it is."""

    exit_code = 3


class ModelError(HeadwaterError):
    """A model or tokenizer that cannot do what was asked."""

    exit_code = 4


class NumericalError(HeadwaterError):
    """A loss, gradient or score that is not finite."""

    exit_code = 5


class NetworkError(HeadwaterError):
    """A server or the hub does not answer, or does not have what was requested."""

    exit_code = 6


class ResourceError(HeadwaterError):
    """Memory or disk space is exhausted."""

    exit_code = 7


class CheckError(HeadwaterError):
    """A figure of a study that lies outside of the interval that its recipe states."""

    exit_code = 8


def did_you_mean(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """Return `did you mean X?`; where nothing is close, `otherwise` or a list of what is known."""
    names = {one.lstrip("-"): one for one in known}  # the dashes of flags make any two of them look alike
    close = difflib.get_close_matches(word.lstrip("-"), names, n=1, cutoff=0.5)
    return f"did you mean {names[close[0]]}?" if close else otherwise or f"known: {', '.join(names.values())}"


def nothing_at(path: Path, otherwise: str = "check the path") -> UsageError:
    """Return the error for a path where nothing is; it names the entry of the folder whose name is nearest."""
    there = [str(path.parent / each.name) for each in path.parent.iterdir()] if path.parent.is_dir() else []
    close = difflib.get_close_matches(str(path), there, n=1, cutoff=0.8)
    return UsageError(str(path), "no such file or directory", f"did you mean {close[0]}?" if close else otherwise)


def first_line(error: BaseException) -> str:
    """Return the first line of a library's error message, or the error's type where the message is empty."""
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
