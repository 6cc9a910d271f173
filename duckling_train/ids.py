"""Ids of the vocabulary as a user writes them: `6144:6200,7` is 6144 to 6199, and 7."""

from __future__ import annotations

from duckling_data.base.errors import InputError
from duckling_data.base.records import short

MAX_DIGITS = 9
"""Of an id: no vocabulary has more."""


def read_ids(text: str, what: str) -> list[range]:
    """Return the ids in a text: numbers, and ranges FIRST:END without their end, between commas.

    Raises InputError, which calls the text `what`, for anything else.
    """
    return [_read(part.strip(), text, what) for part in text.split(",")]


def _read(part: str, text: str, what: str) -> range:
    ends = part.split(":")
    if len(ends) > 2 or not all(end.isdecimal() and end.isascii() and len(end) <= MAX_DIGITS for end in ends):
        raise InputError(f"{what} is {short(text)}; expected ids and ranges FIRST:END, as in 6144:6200,7")
    first, end = int(ends[0]), int(ends[-1]) + (len(ends) == 1)
    if end <= first:
        raise InputError(f"{what} has {part}, which is empty; a range FIRST:END ends before END")
    return range(first, end)


def ids_below(ranges: list[range], size: int, what: str) -> list[int]:
    """Return the ids, rising, each once. Raises InputError, which calls them `what`, for one that is not below size."""
    highest = max(each.stop for each in ranges) - 1
    if highest >= size:
        raise InputError(f"{what} has {highest}; the ids end at {size - 1}")
    return sorted(set().union(*ranges))
