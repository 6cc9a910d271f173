"""What can go wrong that is not a bug, and the exit status each kind ends with.

Every message is one line: the bad value, what was expected, what to do. The command line prints it
without a traceback (`--debug` adds one).
"""

from __future__ import annotations


class DucklingError(Exception):
    """The root of every error that a user can meet; never raised itself.

    What a message quotes may come from anywhere: what is not printable in it is escaped, a line break too.

    >>> issubclass(InputError, DucklingError), DucklingError("one\\ntwo").args
    (True, ('one\\\\ntwo',))
    """

    exit_status = 2
    breaks = ""
    """What is not printable and stays as it is."""

    def __init__(self, message: str) -> None:
        super().__init__(printable(message, self.breaks))


def printable(text: str, breaks: str = "") -> str:
    """Return the text with what is not printable escaped, as `\\n`; the characters in `breaks` stay as they are."""
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


class CheckFailed(DucklingError):
    """A check found damage or a difference; a line for each. Exit status 1."""

    exit_status = 1
    breaks = "\n"


class OutsideError(DucklingError):
    """Something outside the program failed after retries: the network, the disk. Exit status 3."""

    exit_status = 3
