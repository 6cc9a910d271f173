"""What can go wrong that is not a bug, and the exit status each kind ends with.

Every message is one or two lines: the bad value, what was expected, what to do. The command line prints it
without a traceback (`--debug` adds one).
"""

from __future__ import annotations


class DucklingError(Exception):
    """The root of every error that a user can meet; never raised itself."""

    exit_status = 2


class InputError(DucklingError):
    """The user's input or settings: a missing file, broken JSON, an option out of range. Exit status 2."""


class CheckFailed(DucklingError):
    """A check found damage or a difference. Exit status 1."""

    exit_status = 1


class OutsideError(DucklingError):
    """Something outside the program failed after retries: the network, the disk. Exit status 3."""

    exit_status = 3
