"""Room on a disk, checked before much is written, and what a disk refuses, told in one line."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from duckling_data.base.errors import InputError, OutsideError

FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "your quota of the disk is used up"}
"""What a system says that has no room left, and how a person is told."""

OTHER_WORKSPACE = "choose another --workspace"


def make_directory(path: Path) -> None:
    """Make a directory and those above it. Raises InputError where that is not allowed, OutsideError when it fails."""
    check_utf8(str(path), "--workspace")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno in (*FULL, errno.EIO):
            with disk_errors(path):
                raise
        raise InputError(f"{path}: cannot be made ({error.strerror}). Choose another --workspace.") from error
    if not os.access(path, os.W_OK | os.X_OK):
        raise InputError(f"{path}: not writable. Choose another --workspace, or change its permissions.")


def check_room(path: Path, needed: int, what: str, instead: str = OTHER_WORKSPACE) -> None:
    """Raise OutsideError if the disk of a path, there or not, has fewer than `needed` bytes free for `what`.

    To be called once, before much is written. A system that does not say what is free is taken to have enough.
    """
    free = free_bytes(path)
    if free is not None and free < needed:
        raise OutsideError(
            f"{path}: needs about {in_bytes(needed)} for {what}, {in_bytes(free)} free; free some or {instead}."
        )


@contextlib.contextmanager
def disk_errors(path: Path, instead: str = OTHER_WORKSPACE) -> Iterator[None]:
    """Turn an operating system's refusal to write into one line: the path, and what is free where the disk is full.

    Raises InputError for what is not permitted, OutsideError for all else. `instead` is the way out where no room can
    be freed.
    """
    try:
        yield
    except PermissionError as error:
        raise InputError(f"{error.filename or path}: {error.strerror}. Choose another --workspace.") from error
    except OSError as error:
        place = error.filename or path
        if error.errno not in FULL:
            raise OutsideError(f"{place}: cannot be written ({error.strerror or error}).") from error
        free = free_bytes(path)
        known = "" if free is None else f", {in_bytes(free)} free"
        raise OutsideError(f"{place}: {FULL[error.errno]}{known}; free some or {instead}.") from error


def free_bytes(path: Path) -> int | None:
    """Return the bytes that are free on the disk of a path, there or not; None where the system does not say."""
    try:
        return shutil.disk_usage(next(place for place in (path, *path.absolute().parents) if place.exists())).free
    except (OSError, StopIteration):
        return None


def in_bytes(number: int) -> str:
    """Return a number of bytes as a person reads it: `512 bytes`, `4.1 KB`, `12.3 MB`, `1,234.5 GB`."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if number >= size:
            return f"{number / size:,.1f} {unit}"
    return f"{number} bytes"


def check_utf8(name: str, what: str) -> None:
    """Raise InputError for a name that is not UTF-8: records are, and the libraries behind open no other name.

    `what` says what the name is of: `--source`.
    """
    try:
        name.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(name).decode("utf-8", "backslashreplace")
        raise InputError(f"{what} {shown}: not UTF-8. Give it a name that is, and run again.") from None
