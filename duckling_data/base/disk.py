"""The free space of a disk, checked before much is written, and a disk's errors, told in one line."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from duckling_data.base.errors import InputError, OutsideError

FULL = {errno.ENOSPC: "the disk is full", errno.EDQUOT: "your quota of the disk is used up"}
OTHER_WORKSPACE = "choose another --workspace"


def make_directory(path: Path) -> None:
    """Make a directory and those above it. Raises InputError where that is not allowed, OutsideError when it fails."""
    check_utf8(str(path), "--workspace")
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        if error.errno not in (*FULL, errno.EIO):
            raise InputError(f"{path}: cannot be made ({error.strerror}). Choose another --workspace.") from error
        with disk_errors(path):
            raise
    if not os.access(path, os.W_OK | os.X_OK):
        raise InputError(f"{path}: not writable. Choose another --workspace, or change its permissions.")


def check_room(path: Path, needed: int, what: str, instead: str = OTHER_WORKSPACE) -> None:
    """Raise OutsideError if the disk of a path, there or not, is known to have fewer than `needed` bytes free.

    `what` they are for, and what to do `instead` of freeing some, are part of the message.
    """
    free = free_bytes(path)
    if free is not None and free < needed:
        raise OutsideError(
            f"{path}: needs about {in_bytes(needed)} for {what}, {in_bytes(free)} free; free some or {instead}."
        )


@contextlib.contextmanager
def disk_errors(path: Path, instead: str = OTHER_WORKSPACE) -> Iterator[None]:
    """Turn an OSError into one line: InputError for what is not permitted, else OutsideError. `instead` as above."""
    try:
        yield
    except PermissionError as error:
        raise InputError(f"{error.filename or path}: {error.strerror}. Choose another --workspace.") from error
    except OSError as error:
        name = error.filename or path
        if error.errno not in FULL:
            raise OutsideError(f"{name}: cannot be written ({error.strerror or error}).") from error
        free = free_bytes(path)
        known = "" if free is None else f", {in_bytes(free)} free"
        raise OutsideError(f"{name}: {FULL[error.errno]}{known}; free some or {instead}.") from error


def free_bytes(path: Path) -> int | None:
    """Return the bytes that are free on the disk of a path, there or not; None where the system does not say."""
    try:
        return shutil.disk_usage(next(above for above in (path, *path.absolute().parents) if above.exists())).free
    except (OSError, StopIteration):
        return None


def in_bytes(number: int) -> str:
    """Return a number of bytes as a person reads it: `512 bytes`, `4.1 KB`, `12.3 MB`, `1,234.5 GB`."""
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("KB", 1e3)):
        if number >= size:
            return f"{number / size:,.1f} {unit}"
    return f"{number} bytes"


def check_utf8(name: str, what: str) -> None:
    """Raise InputError for the name of `what` if it is not UTF-8, as records are and as the libraries in use expect."""
    try:
        name.encode()
    except UnicodeEncodeError:
        shown = os.fsencode(name).decode("utf-8", "backslashreplace")
        raise InputError(f"{what} {shown}: not UTF-8. Give it a name that is, and run again.") from None
