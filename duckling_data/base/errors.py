"""What can go wrong that is not a bug, with the exit status: one line that the command line prints without a traceback.

It names the bad value, what was expected and what to do.
"""

from __future__ import annotations

STRIPPED = "Python runs with PYTHONOPTIMIZE=2 or -OO, without the docstrings that the libraries read; leave it out"


class DucklingError(Exception):
    """The root of every error that a user can meet; never raised itself.

    What is not printable in a message, which may quote anything, is escaped, a line break too.

    >>> issubclass(InputError, DucklingError), DucklingError("one\\ntwo").args
    (True, ('one\\\\ntwo',))
    """

    exit_status = 2
    breaks = ""
    """Characters that are not printable and are not escaped."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message, self.breaks))


def printable(text: str, breaks: str = "") -> str:
    """Return the text with what is not printable escaped, as `\\n`, but for the characters in `breaks`."""
    return "".join(
        character if character.isprintable() or character in breaks else character.encode("unicode_escape").decode()
        for character in text
    )


class InputError(DucklingError):
    """The user's input or settings: a missing file, broken JSON, an option out of range. Exit status 2.

    >>> read_mapping("nowhere.json")
    Traceback (most recent call last):
    duckling_data.base.errors.InputError: nowhere.json: cannot be read (No such file or directory); ...
    """


class SourceChanged(InputError):
    """A file of the source was written to, replaced or removed while a command read it."""


class SourceMissing(InputError):
    """A path or URL of the source is not there."""


class CheckFailed(DucklingError):
    """A check found damage or a difference; a line for each. Exit status 1."""

    exit_status = 1
    breaks = "\n"


class OutsideError(DucklingError):
    """Something outside the program failed after retries: the network, the disk. Exit status 3."""

    exit_status = 3
