"""The command line, called in this process."""

from __future__ import annotations

from headwater import cli


def headwater(*arguments: object) -> int:
    """Run a command and return its exit code."""
    return cli.main([str(argument) for argument in arguments])


def succeed(*arguments: object) -> None:
    """Run a command that must succeed."""
    assert headwater(*arguments) == 0
