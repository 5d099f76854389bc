"""The errors a user can meet, each with the exit code that a shell sees.

A message says what was wrong, where, what was expected, and what to do. Anything that is not a
:class:`RegrowError` is a bug in regrow and exits with 1.
"""

from __future__ import annotations

from collections.abc import Sequence


class RegrowError(Exception):
    """Base of every error that regrow raises on purpose.

    Args:
        message: one sentence, or the only problem.
        problems: every problem found, when several were (shown one a line).
    """

    exit_code = 3

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        self.message = message
        self.problems = tuple(problems)
        super().__init__("\n".join((message, *(f"  {problem}" for problem in self.problems))))


class ConfigError(RegrowError):
    """A setting is unknown, of the wrong type, impossible, or without effect."""

    exit_code = 2


class InputError(RegrowError):
    """A file or folder given as input is missing, broken or of the wrong kind."""

    exit_code = 2


class RunError(RegrowError):
    """The work itself failed; the run folder is kept and the same command resumes it."""

    exit_code = 3


class CheckpointError(RunError):
    """No usable checkpoint, or one that cannot be written."""


class ResourceError(RunError):
    """Out of disk or memory; the message gives the amount needed and the amount available."""


class BusyError(RegrowError):
    """Another process holds the run folder."""

    exit_code = 4


class Interrupted(RegrowError):
    """Ctrl-C: the step was finished and a checkpoint committed."""

    exit_code = 130
